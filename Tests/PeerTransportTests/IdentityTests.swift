import ChunkModel
import DevelopmentPKI
import Glibc
import PeerTestSupport
import PeerTransport
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(2))) struct IdentityTests {
    let pki: TestAuthority

    init() async throws { pki = try await TestAuthority.make() }

    func reason(_ files: IdentityFiles) -> PeerRefusalReason? {
        IdentityStore(files: files, trustDomain: pki.trustDomain).failure?.reason
    }

    /// The reason a certificate like this is refused for.
    func odd(
        _ file: String, uris: [String], usages: [String] = DevelopmentAuthority.bothSides,
        validity: DevelopmentAuthority.Validity = .days(5)
    ) async throws -> PeerRefusalReason? {
        reason(try await pki.odd(file, uris: uris, usages: usages, validity: validity))
    }

    @Test func aGoodIdentityHasTheNameOfItsURI() async throws {
        let store = try await pki.store("node-1.zone-a")
        #expect(store.current?.name.text == "node-1.zone-a")
        #expect(store.current?.generation == 1)
    }

    @Test func eachWrongCertificateHasItsOwnReason() async throws {
        let id = "spiffe://test.chunkd/chunkd/node/a"
        let now = Int64(time(nil))
        #expect(try await odd("cn", uris: []) == .noURIName)
        #expect(try await odd("two", uris: [id, "spiffe://test.chunkd/chunkd/node/b"]) == .severalURINames)
        #expect(try await odd("foreign", uris: ["spiffe://other/chunkd/node/a"]) == .otherTrustDomain)
        #expect(try await odd("longer", uris: ["spiffe://test.chunkd.evil/chunkd/node/a"]) == .otherTrustDomain)
        #expect(try await odd("upper", uris: ["SPIFFE://test.chunkd/chunkd/node/a"]) == .otherTrustDomain)
        #expect(try await odd("service", uris: ["spiffe://test.chunkd/ns/default/sa/x"]) == .notANode)
        #expect(try await odd("slash", uris: [id + "/"]) == .notANode)
        #expect(try await odd("caps", uris: ["spiffe://test.chunkd/chunkd/node/A"]) == .notANode)
        #expect(try await odd("server", uris: [id], usages: ["serverAuth"]) == .wrongUsage)
        #expect(try await odd("client", uris: [id], usages: ["clientAuth"]) == .wrongUsage)
        #expect(try await odd("none", uris: [id], usages: []) == .wrongUsage)
        #expect(
            try await odd("past", uris: [id], validity: .init(from: now - 9000, to: now - 120)) == .expired)
        #expect(
            try await odd("future", uris: [id], validity: .init(from: now + 120, to: now + 9000)) == .notYetValid)
        #expect(try await odd("good", uris: [id]) == nil)
    }

    @Test func clocksThatDifferALittleDoNotMatter() async throws {
        let id = "spiffe://test.chunkd/chunkd/node/a"
        let now = Int64(time(nil))
        #expect(try await odd("justPast", uris: [id], validity: .init(from: now - 900, to: now - 20)) == nil)
        #expect(try await odd("justNot", uris: [id], validity: .init(from: now + 40, to: now + 900)) == nil)
    }

    @Test func anotherAuthorityOfTheSameNameIsNotTrusted() async throws {
        let other = try await TestAuthority.make()
        var files = try await other.files("a")
        files.bundle = pki.authority.bundle
        #expect(reason(files) == .unknownAuthority)
    }

    @Test func theAuthorityItselfIsNoNode() async throws {
        let directory = pki.authority.directory
        let files = IdentityFiles(
            bundle: pki.authority.bundle, certificate: directory + "/ca.crt", key: directory + "/ca.key")
        #expect(reason(files) == .notALeaf)
    }

    @Test func aLeafIsNoBundle() async throws {
        var files = try await pki.files("a")
        files.bundle = files.certificate
        #expect(reason(files) == .malformedFile)
    }

    @Test func aChainOverAnIntermediateNeedsItToBeSent() async throws {
        let below = try await pki.intermediate()
        let name = try TestAuthority.name("deep")
        let made = try await blocking { try below.issue(name, validity: .days(5)) }
        var files = IdentityFiles(bundle: pki.authority.bundle, certificate: made.certificate, key: made.key)
        #expect(reason(files) == .unknownAuthority)
        let chain = TestAuthority.read(made.certificate) + TestAuthority.read(below.bundle)
        files.certificate = try pki.directory.write("chain.crt", chain)
        #expect(reason(files) == nil)
        // An intermediate in the bundle is an anchor of its own.
        #expect(reason(IdentityFiles(bundle: below.bundle, certificate: made.certificate, key: made.key)) == nil)
    }

    @Test func brokenFilesAreToldApart() async throws {
        let files = try await pki.files("a")
        let other = try await pki.files("b")
        var broken = files
        broken.key = other.key
        #expect(reason(broken) == .keyMismatch)
        broken = files
        broken.certificate = pki.directory.path + "/absent"
        #expect(reason(broken) == .unreadableFile)
        let pem = TestAuthority.read(files.certificate)
        broken.certificate = try pki.directory.write("cut.crt", pem.prefix(pem.count / 2))
        #expect(reason(broken) == .malformedFile)
        broken = files
        broken.key = try pki.directory.write("empty.key", "")
        #expect(reason(broken) == .malformedFile)
        broken = files
        broken.denyList = try pki.directory.write("deny", "good\nBAD NAME\n")
        #expect(reason(broken) == .malformedFile)
        broken.denyList = try pki.directory.write("deny2", "# cut off\n\n good # why\nother\r\n")
        let store = IdentityStore(files: broken, trustDomain: pki.trustDomain)
        #expect(store.current?.denied == [try TestAuthority.name("good"), try TestAuthority.name("other")])
    }

    @Test func theLastGoodIdentityStaysWhileFilesAreHalfWritten() async throws {
        let log = EventLog()
        let files = try await pki.files("a", into: "live")
        let store = IdentityStore(files: files, trustDomain: pki.trustDomain, observer: log.observer)
        let first = try store.require()
        let next = try await pki.files("a", into: "next")

        let certificate = TestAuthority.read(next.certificate)
        try pki.directory.write("live/a.crt", certificate.prefix(200))
        store.tick()
        #expect(log.rejected.isEmpty, "it may be half written")
        store.tick()
        #expect(store.current === first)
        #expect(log.rejected.last?.reason == .malformedFile)
        // Nothing new: nothing said again.
        store.tick()
        #expect(log.rejected.count == 1)
        // The new certificate is whole, its key is still the old one.
        try pki.directory.write("live/a.crt", certificate)
        store.tick()
        #expect(log.rejected.count == 1, "its key may be on the way")
        store.tick()
        #expect(store.current === first)
        #expect(log.rejected.last?.reason == .keyMismatch)
        try pki.directory.write("live/a.key", TestAuthority.read(next.key))
        store.tick()
        #expect(store.current?.generation == 2)
        #expect(store.failure == nil)
    }

    @Test func filesThatAreNotValidYetAreTakenUpWhenTheyAre() async throws {
        let now = Int64(time(nil))
        let files = try await pki.files("early", validity: .init(from: now + 3600, to: now + 9000))
        let log = EventLog()
        let clock = Mutex(now)
        let store = IdentityStore(
            files: files, trustDomain: pki.trustDomain, clock: { clock.withLock { $0 } }, observer: log.observer)
        for later in [10, 20, 30] {
            clock.withLock { $0 = now + Int64(later) }
            store.tick()
        }
        #expect(store.current == nil)
        #expect(log.rejected.map(\.reason) == [.notYetValid], "said once")
        clock.withLock { $0 = now + 3600 }
        store.tick()
        #expect(store.current?.name.text == "early")
    }

    @Test func anIdentityThatComesLaterIsTakenUp() async throws {
        let files = try await pki.files("late", into: "made")
        let absent = IdentityFiles(
            bundle: files.bundle, certificate: pki.directory.path + "/x.crt", key: pki.directory.path + "/x.key")
        let store = IdentityStore(files: absent, trustDomain: pki.trustDomain)
        #expect(store.current == nil)
        #expect(throws: IdentityError.self) { _ = try store.require() }
        rename(files.certificate, absent.certificate)
        rename(files.key, absent.key)
        store.tick()
        #expect(store.current?.name.text == "late")
    }

    @Test func aDenyListHoldsForOthersAlsoWhenItNamesThisNode() async throws {
        let store = try await pki.store("a", denied: ["a", "b"])
        #expect(store.current?.denied.count == 2)
    }

    @Test func namesAreValidatedByteByByte() async throws {
        #expect(TrustDomain("test.chunkd") != nil)
        for bad in ["", "Test", "a/b", "a b", "a:1", "ü", String(repeating: "a", count: 256)] {
            #expect(TrustDomain(bad) == nil, "\(bad)")
        }
        let domain = pki.trustDomain
        #expect(try domain.name(in: "spiffe://test.chunkd/chunkd/node/x").text == "x")
        for bad in [
            "", "spiffe://", "spiffe://test.chunkd", "spiffe://test.chunkd/chunkd/node/",
            "https://test.chunkd/chunkd/node/x",
            "spiffe://test.chunkd:1/chunkd/node/x", "spiffe://test.chunkd/chunkd/node/x?y",
            "spiffe://test.chunkd/chunkd/node/%61",
        ] {
            #expect(throws: IdentityError.self, "\(bad)") { _ = try domain.name(in: bad) }
        }
    }

    @Test func addressesAreNumericAndNameOneHost() {
        #expect(PeerAddress("10.0.0.1:4710")?.text == "10.0.0.1:4710")
        #expect(PeerAddress("[2001:db8:0::1]:4710")?.text == "[2001:db8::1]:4710")
        for bad in [
            "", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:047", "10.0.0.1:+1", "localhost:1", "10.1:4710",
            "0.0.0.0:1",
            "224.0.0.1:1", "255.255.255.255:1", "169.254.169.254:80", "[::]:1", "[ff02::1]:1", "[fe80::1]:1", "::1:1",
            "[::ffff:169.254.169.254]:80", "10.0.0.1:1,x:2", "10.0.0.1 :1", "[fe80::1%eth0]:1",
        ] {
            #expect(PeerAddress(bad) == nil, "\(bad)")
        }
    }
}
