import ChunkModel
import DevelopmentPKI
import Glibc
import PeerTestSupport
import PeerTransport
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(2))) struct RecordTests {
    let pki: TestAuthority
    let store: IdentityStore
    let record: [UInt8] = Array("node a at 10.0.0.1:4710, incarnation 3".utf8)

    init() async throws {
        pki = try await TestAuthority.make()
        store = try await pki.store("a")
    }

    func reason(_ verifier: RecordVerifier, _ bytes: [UInt8], _ proof: [UInt8]) -> PeerRefusalReason? {
        do throws(IdentityError) {
            _ = try verifier.verify(bytes, proof: proof)
            return nil
        } catch { return error.reason }
    }

    @Test func aSignedRecordIsItsOwners() async throws {
        let proof = try RecordSigner(store).sign(record)
        let verifier = RecordVerifier(try await pki.store("b"))
        #expect(try verifier.verify(record, proof: proof).text == "a")
        // The same again comes from memory, and says the same.
        #expect(try verifier.verify(record, proof: proof).text == "a")
        #expect(proof.count < 1024)
    }

    @Test func aRecordOfAnotherIsNotItsOwners() async throws {
        let mine = RecordSigner(try await pki.store("b"))
        let proof = try RecordSigner(store).sign(record)
        let verifier = RecordVerifier(try await pki.store("c"))
        #expect(reason(verifier, record + [0], proof) == .badSignature)
        #expect(try verifier.verify(record, proof: mine.sign(record)).text == "b")
        // A record remembered as good does not vouch for another one.
        #expect(reason(verifier, Array(record.reversed()), proof) == .badSignature)
    }

    @Test func aRecordFromAnotherClusterIsRefused() async throws {
        let proof = try RecordSigner(store).sign(record)
        let other = try await TestAuthority.make()
        #expect(reason(RecordVerifier(try await other.store("b")), record, proof) == .unknownAuthority)
    }

    @Test func aDeniedNodesRecordsAreRefusedAlsoWhenRemembered() async throws {
        let proof = try RecordSigner(store).sign(record)
        let files = try await pki.files("b", denied: [])
        let own = try pki.store(files)
        let verifier = RecordVerifier(own)
        #expect(reason(verifier, record, proof) == nil)
        try pki.directory.write("b-denied", "a\n")
        own.tick()
        #expect(reason(verifier, record, proof) == .denied)
    }

    @Test func aChainThatIsNotDirectlyUnderTheBundleTravelsAlong() async throws {
        let below = try await pki.intermediate()
        let name = try TestAuthority.name("deep")
        let made = try await blocking { try below.issue(name, validity: .days(5)) }
        let chain = TestAuthority.read(made.certificate) + TestAuthority.read(below.bundle)
        let files = IdentityFiles(
            bundle: pki.authority.bundle, certificate: try pki.directory.write("chain.crt", chain), key: made.key)
        let proof = try RecordSigner(try pki.store(files)).sign(record)
        #expect(try RecordVerifier(store).verify(record, proof: proof).text == "deep")
    }

    @Test func damagedProofsAreRefusedAndNeverTrap() async throws {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let proof = try RecordSigner(store).sign(record)
        let verifier = RecordVerifier(try await pki.store("b"))
        for count in 0..<proof.count { #expect(reason(verifier, record, Array(proof.prefix(count))) != nil) }
        for _ in 0..<2000 {
            var damaged = proof
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                damaged[Int.random(in: 0..<damaged.count, using: &generator)] = UInt8.random(
                    in: 0...255, using: &generator)
            }
            // A flipped bit may leave the certificate's meaning as it was, but never its signatures.
            if damaged != proof { #expect(reason(verifier, record, damaged) != nil) }
        }
        #expect(reason(verifier, record, proof + [0]) == .malformedProof)
        #expect(reason(verifier, record, [UInt8](repeating: 1, count: 100_000)) == .malformedProof)
    }
}
