import ChunkModel
import HTTPTransfer
import Integrity
import OCISpec
import Synchronization
import TestSupport
import Testing

@testable import RegistryClient

@Suite(.timeLimit(.minutes(2))) struct OddRegistryTests {
    let server: PythonServer
    let events = Events()
    let digest = SHA256.hash(OddRegistry.content)

    init() throws { server = try OddRegistry.start() }

    func client(
        retry: RetryPolicy = RetryPolicy(baseDelay: .milliseconds(5)), timeouts: TransferTimeouts = TransferTimeouts(),
        credential: RegistryCredential? = nil
    ) -> RegistryClient {
        let configuration = RegistryConfiguration(
            hosts: [server.host: HostConfiguration(usesPlainHTTP: true, credential: credential)], timeouts: timeouts,
            retry: retry)
        let events = events
        return RegistryClient(configuration: configuration) { events.add($0) }
    }

    func reference(_ mode: String) -> Reference {
        do throws(OCISpecError) {
            return try Reference("\(server.host)/\(mode)")
        } catch {
            fatalError("\(mode) is no repository name")
        }
    }

    /// Reads a range of a repository's blob and compares what was passed on, whole or cut short by an error.
    @discardableResult
    func read(
        _ mode: String, _ range: Range<UInt64> = 100_000..<300_000, with client: RegistryClient? = nil,
        totalSize: UInt64? = OddRegistry.size
    ) async throws -> RangeResult {
        let part = Bytes()
        let wanted = OddRegistry.content[Int(range.lowerBound)..<Int(range.upperBound)]
        do throws(RegistryError) {
            let result = try await (client ?? self.client()).blobRange(
                digest, of: reference(mode), range: range, totalSize: totalSize, sink: part.take)
            #expect(part.all == Array(wanted), "\(mode)")
            return result
        } catch {
            // Invariant: what was passed on before the error is a prefix of what was wanted.
            #expect(part.all.elementsEqual(wanted.prefix(part.all.count)), "\(mode)")
            throw error
        }
    }

    func failure(_ mode: String, with client: RegistryClient? = nil) async -> RegistryError? {
        do {
            try await read(mode, with: client)
            return nil
        } catch {
            return error as? RegistryError
        }
    }

    func requests(_ text: String) -> Int { OddRegistry.count(server, text) }

    @Test func aProperServerTakesOneRequest() async throws {
        #expect(try await read("ok") == RangeResult(host: server.host, exchanges: 1, isRangeIgnored: false))
        #expect(requests("bytes=100000-299999") == 1)
        try await read("ok", 0..<OddRegistry.size)
        #expect(requests("/v2/ok/blobs/\(digest) -") == 1)
    }

    @Test(arguments: [
        ("shifted", RegistryError.Code.malformedResponse), ("no-content-range", .malformedResponse),
        ("contradictory", .malformedResponse), ("multipart", .malformedResponse), ("total", .sizeMismatch),
        ("416", .sizeMismatch), ("unknown", .notFound),
    ])
    func brokenResponsesAreRefusedAtOnce(mode: String, code: RegistryError.Code) async {
        #expect(await failure(mode)?.code == code)
        #expect(requests("GET") == 1)
        #expect(events.retries == 0)
    }

    @Test func theRegistrysWordsAreInTheMessageMadeSafe() async {
        let error = await failure("unknown")
        #expect(error?.message.contains("BLOB_UNKNOWN: no ?[31m such") == true)
    }

    @Test func ofAnIgnoredRangeTheWantedPartIsKept() async throws {
        let client = client()
        #expect(!client.ignoresRanges(server.host))
        let result = try await read("ignore", with: client)
        #expect(result.isRangeIgnored)
        #expect(client.ignoresRanges(server.host))
        #expect(events.all.contains { if case .rangeIgnored = $0 { true } else { false } })
        // It stops at the end of the range instead of reading the rest.
        let received = events.all.compactMap { event -> UInt64? in
            if case .exchange(_, .range, _, let bytes, _) = event { bytes } else { nil }
        }
        #expect(received.reduce(0, +) < 700_000)
    }

    @Test(arguments: ["pieces", "halves", "reset", "no-length", "no-length-short"])
    func shortAnswersAreGoneOnFromWhereTheyEnded(mode: String) async throws {
        try await read(mode, 123..<400_123)
        #expect(requests("bytes=123-400122") == 1)
        if mode != "no-length" { #expect(requests("GET") >= 2) }
    }

    @Test func anEndlessBodyIsCutWhereTheWantedPartEnds() async throws {
        try await read("endless")
        try await read("endless", 0..<OddRegistry.size)
        #expect(requests("GET") == 2)
        let received = events.all.compactMap { event -> UInt64? in
            if case .exchange(_, .range, _, let bytes, _) = event { bytes } else { nil }
        }
        #expect(received.reduce(0, +) < 3_000_000)
    }

    @Test func anAnswerThatBringsNothingIsGivenUp() async {
        let error = await failure("reset-at-once")
        #expect(error?.transfer == .shortBody)
        #expect(requests("GET") == RetryPolicy().maxAttempts)
    }

    @Test func aTrickleIsCutOff() async {
        let quick = TransferTimeouts(progressWindow: .milliseconds(300), progressBytes: 1000)
        let error = await failure("trickle", with: client(retry: RetryPolicy(maxAttempts: 2), timeouts: quick))
        #expect(error?.transfer == .progressTimeout)
    }

    @Test func serverErrorsAreRetriedWithinTheBudget() async throws {
        try await read("503-twice")
        #expect(events.retries == 2)
        let few = client(
            retry: RetryPolicy(maxAttempts: 10, baseDelay: .milliseconds(1), budgetCap: 2, circuitThreshold: 100))
        let before = requests("/v2/503/")
        for _ in 0..<10 { #expect(await failure("503", with: few)?.code == .serverError) }
        // Ten first requests, two saved retries and one earned.
        #expect((12...13).contains(requests("/v2/503/") - before))
    }

    @Test func retryAfterIsWaitedForAndClamped() async throws {
        let clock = ContinuousClock()
        var start = clock.now
        try await read("429-once")
        #expect(clock.now - start >= .seconds(1))
        start = clock.now
        let policy = RetryPolicy(maxAttempts: 2, maxRetryAfter: .milliseconds(200))
        #expect(await failure("429-absurd", with: client(retry: policy))?.code == .rateLimited)
        #expect(clock.now - start >= .milliseconds(200))
        #expect(clock.now - start < .seconds(20))
    }

    @Test func aFailingHostIsLeftAloneForAWhile() async {
        let policy = RetryPolicy(maxAttempts: 1, circuitThreshold: 3, circuitOpenTime: .seconds(60))
        let client = client(retry: policy)
        for _ in 0..<3 { #expect(await failure("503", with: client)?.code == .serverError) }
        for _ in 0..<5 { #expect(await failure("ok", with: client)?.code == .circuitOpen) }
        #expect(requests("GET") == 3)
    }

    @Test(arguments: ["loop", "chain", "metadata", "no-location"])
    func badRedirectsAreRefused(mode: String) async {
        let error = await failure(mode)
        #expect(error?.code == (mode == "no-location" ? .malformedResponse : .redirectRefused))
        #expect(requests("GET") <= 6)
    }

    @Test func authorizationStaysBehindAndARedirectIsRememberedUntilItExpires() async throws {
        let client = client(credential: .password(username: "u", password: "p"))
        // Makes the client know that this endpoint wants a token; every later request to it carries one.
        try await read("bearer", with: client)
        for _ in 0..<3 { #expect(try await read("signed", with: client).host == "localhost:\(server.port)") }
        #expect(requests("/v2/signed/") == 1)
        #expect(requests("/cdn/") == 3)
        #expect(requests("/cdn/x?sign=1 bytes=100000-299999 -") == 3)
        try await bump("sign")
        try await read("signed", with: client)
        // The remembered URL was refused, the registry gave a new one.
        #expect(requests("/v2/signed/") == 2)
        #expect(requests("/cdn/x?sign=2") == 1)
        // One that was never good is not asked for again and again.
        #expect(await failure("signed-stale", with: client)?.code == .unauthorized)
        #expect(requests("sign=0") == 1)
    }

    func bump(_ what: String) async throws {
        let transfers = TransferClient()
        _ = try await transfers.perform(
            TransferRequest(url: "http://\(server.host)/bump?what=\(what)"), sink: .collecting(limit: 10))
    }

    @Test func aTokenRevokedInMidPullIsRenewedOnceForAll() async throws {
        let client = client()
        try await read("bearer", with: client)
        #expect(requests("/token") == 1)
        try await bump("token")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<8 as Range<UInt64> {
                group.addTask { try await self.read("bearer", number * 1000..<number * 1000 + 5000, with: client) }
            }
            try await group.waitForAll()
        }
        #expect(requests("/token") == 2)
    }

    @Test func aSecondRefusalIsTheEnd() async {
        #expect(await failure("bearer-never")?.code == .unauthorized)
        #expect(requests("/v2/bearer-never") == 2)
        #expect(requests("/token") == 1)
    }

    @Test(arguments: [
        ("huge", RegistryError.Code.tooLarge), ("deep", .invalidDocument), ("html", .invalidDocument),
        ("lying-header", .digestMismatch), ("traversal", .digestMismatch), ("wrong-type", .invalidDocument),
        ("nothing", .notFound),
    ])
    func hostileManifestsAreRefused(mode: String, code: RegistryError.Code) async {
        do throws(RegistryError) {
            _ = try await client().manifest(reference(mode))
            Issue.record("accepted \(mode)")
        } catch {
            #expect(error.code == code, "\(error)")
        }
    }

    @Test func aManifestWithoutATypeIsReadByItsShapeAndOneByDigestIsChecked() async throws {
        let reference = try Reference("\(server.host)/untyped:1")
        let fetched = try await client().manifest(reference)
        #expect(fetched.descriptor.mediaType == MediaTypes.ociManifest)
        // HEAD tells too little here, so resolve asks in full.
        #expect(try await client().resolve(reference) == fetched.descriptor)
        #expect(try await client().resolve(self.reference("no-head")) == fetched.descriptor)
        await #expect(throws: RegistryError.self) { _ = try await client().manifest(reference.pinned(to: digest)) }
    }

    @Test func wrongBytesAreAskedForOnceMorePastCachesThenAMismatch() async throws {
        let descriptor = Descriptor(mediaType: MediaTypes.blobRaw, digest: digest, size: OddRegistry.size)
        let ok = try Reference("\(server.host)/ok")
        #expect(try await client().blob(descriptor, of: ok, limit: .max) == OddRegistry.content)
        do throws(RegistryError) {
            _ = try await client().blob(descriptor, of: reference("wrong-bytes"), limit: .max)
            Issue.record("accepted")
        } catch {
            #expect(error.code == .digestMismatch)
        }
        #expect(requests("/v2/wrong-bytes/") == 2)
    }

    @Test func tagPagesAreFollowedOnTheRegistryOnlyAndBounded() async throws {
        #expect(try await client().tags(of: Reference("\(server.host)/paged")) == (0..<30).map { "t\($0)" })
        #expect(try await client().tags(of: Reference("\(server.host)/foreign")).count == 10)
        #expect(try await client().tags(of: Reference("\(server.host)/endless"), limit: 95).count == 95)
        #expect(requests("/v2/endless/") == 10)
    }

    @Test func uploadLocationsFollowTheRulesOfRedirects() async throws {
        let client = client(credential: .password(username: "u", password: "p"))
        try await read("bearer", with: client)
        let body = BlobSource.bytes([1, 2, 3])
        let digest = SHA256.hash([1, 2, 3])
        #expect(try await client.push(body, digest: digest, to: Reference("\(server.host)/plain")))
        #expect(requests("PUT /v2/plain/blobs/uploads/1?s=x&digest=sha256%3A\(digest.hex) - Bearer") == 1)
        #expect(try await client.push(body, digest: digest, to: Reference("\(server.host)/foreign")))
        #expect(requests("PUT /v2/foreign/blobs/uploads/1?s=x&digest=sha256%3A\(digest.hex) - -") == 1)
        for mode in ["none", "metadata"] {
            await #expect(throws: RegistryError.self) {
                _ = try await client.push(body, digest: digest, to: Reference("\(self.server.host)/\(mode)"))
            }
        }
    }

    @Test func cancellingEndsAReadInAnyPhase() async throws {
        for mode in ["trickle", "429-absurd"] {
            let task = Task { await self.failure(mode) }
            #expect(await Wait.eventually(.seconds(30)) { requests("/v2/\(mode)/") > 0 })
            task.cancel()
            #expect(await task.value?.code == .cancelled)
        }
    }

    @Test func aNameThatDoesNotResolveHasItsReason() async throws {
        let client = client(retry: RetryPolicy(maxAttempts: 1))
        let nowhere = try Reference("registry.invalid/a:1")
        do throws(RegistryError) {
            _ = try await client.manifest(nowhere)
            Issue.record("answered")
        } catch {
            #expect(error.reason == "name_resolution")
        }
    }
}
