import ChunkModel
import HTTPTransfer
import Integrity
import OCISpec
import Synchronization
import TestSupport
import Testing

@testable import RegistryClient

/// What the client told its observer.
final class Events: Sendable {
    private let state = Mutex<[RegistryEvent]>([])
    var all: [RegistryEvent] { state.withLock { $0 } }
    func add(_ event: RegistryEvent) { state.withLock { $0.append(event) } }

    /// Results of exchanges, of one operation or all.
    func results(_ wanted: RegistryEvent.Operation? = nil) -> [String] {
        all.compactMap { event in
            guard case .exchange(_, let operation, let result, _, _) = event, wanted ?? operation == operation else {
                return nil
            }
            return result
        }
    }
    var retries: Int {
        all.filter { if case .retry = $0 { true } else { false } }.count
    }
}

/// Collects the bytes of a range.
final class Bytes: Sendable {
    private let state = Mutex<[UInt8]>([])
    var all: [UInt8] { state.withLock { $0 } }
    func take(_ piece: UnsafeRawBufferPointer) -> SinkDecision {
        state.withLock { $0 += piece }
        return .continue
    }
}

/// Refuses everything and prints one line a request.
private let alwaysUnauthorizedScript = """
    import http.server, sys
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *a): pass
        def do_GET(self):
            print(self.path, flush=True)
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """

/// One blob, config and manifest, made from a seed.
struct SampleImage {
    let blob: [UInt8]
    let descriptor: Descriptor
    let config: [UInt8]
    let manifest: Manifest
    let manifestBytes: [UInt8]

    init(size: Int = 3_000_000, seed: UInt64 = 1) throws {
        var random = SeededGenerator(seed: seed)
        blob = random.bytes(size)
        descriptor = Descriptor(mediaType: MediaTypes.ociLayerTar, digest: SHA256.hash(blob), size: UInt64(size))
        config = Array(#"{"os":"linux","architecture":"amd64"}"#.utf8)
        manifest = Manifest(
            config: Descriptor(
                mediaType: MediaTypes.ociConfig, digest: SHA256.hash(config), size: UInt64(config.count)),
            layers: [descriptor])
        manifestBytes = try OCIJSON.encode(manifest)
    }

    /// Pushes everything; the digest of the manifest.
    @discardableResult
    func push(_ client: RegistryClient, to reference: Reference) async throws -> Digest {
        _ = try await client.push(.bytes(blob), digest: descriptor.digest, to: reference)
        _ = try await client.push(.bytes(config), digest: manifest.config.digest, to: reference)
        return try await client.pushManifest(manifestBytes, mediaType: manifest.mediaType, to: reference)
    }
}

@Suite(.timeLimit(.minutes(2))) struct RealRegistryTests {
    let image: SampleImage
    let events = Events()
    /// Made once: random bytes take a while in a debug build.
    private static let sample = Result { try SampleImage() }

    init() throws { image = try Self.sample.get() }

    func client(
        _ registry: RegistryFixture, credential: RegistryCredential? = nil, retry: RetryPolicy = RetryPolicy(),
        change: (inout RegistryConfiguration) -> Void = { _ in }
    ) -> RegistryClient {
        var configuration = RegistryConfiguration(
            hosts: [
                registry.host: HostConfiguration(
                    usesPlainHTTP: registry.caFile == nil, credential: credential, caFile: registry.caFile)
            ], retry: retry)
        change(&configuration)
        let events = events
        return RegistryClient(configuration: configuration) { events.add($0) }
    }

    func code(_ body: () async throws -> Void) async -> RegistryError.Code? {
        do {
            try await body()
            return nil
        } catch {
            return (error as? RegistryError)?.code
        }
    }

    /// Push, resolve, read, list: what a build and a mount do.
    func roundTrip(_ client: RegistryClient, _ registry: RegistryFixture) async throws {
        let reference = try Reference("\(registry.host)/team/app:1.0")
        let digest = try await image.push(client, to: reference)
        let resolved = try await client.resolve(reference)
        #expect(resolved.digest == digest)
        #expect(resolved.size == UInt64(image.manifestBytes.count))
        #expect(resolved.mediaType == MediaTypes.ociManifest)
        let fetched = try await client.manifest(reference.pinned(to: digest))
        #expect(fetched.bytes == image.manifestBytes)
        #expect(fetched.document == .manifest(image.manifest))
        let blob = try await client.blob(image.descriptor, of: reference, limit: 4_000_000)
        #expect(blob == image.blob)
        let part = Bytes()
        let result = try await client.blobRange(
            image.descriptor.digest, of: reference, range: 1_000_000..<1_524_288, totalSize: image.descriptor.size,
            sink: part.take)
        #expect(part.all == Array(image.blob[1_000_000..<1_524_288]))
        #expect(result == RangeResult(host: registry.host, exchanges: 1, isRangeIgnored: false))
        #expect(try await client.tags(of: reference) == ["1.0"])
        try await client.ping(registry: registry.host)
        // Pushing again sends nothing.
        #expect(try await !client.push(.bytes(image.blob), digest: image.descriptor.digest, to: reference))
    }

    @Test func anonymousPlainHTTP() async throws {
        let registry = try RegistryFixture.start()
        try await roundTrip(client(registry), registry)
    }

    @Test func passwordOverTLSWithAPrivateCA() async throws {
        let registry = try RegistryFixture.start(tls: true, auth: .password)
        try await roundTrip(client(registry, credential: .password(username: "u", password: "p")), registry)
        // Asked once, known from then on.
        #expect(events.results().filter { $0 == "unauthorized" }.count == 1)
    }

    @Test func bearerTokens() async throws {
        let registry = try RegistryFixture.start(auth: .token(lifetimeSeconds: 60))
        try await roundTrip(client(registry, credential: .password(username: "u", password: "p")), registry)
        // One each for pull,push and pull, and one without a scope for the ping.
        #expect(registry.tokenServerLog.split(separator: "\n").filter { $0.hasPrefix("TOKEN basic") }.count == 3)
    }

    @Test func bearerTokensOverTLS() async throws {
        let registry = try RegistryFixture.start(tls: true, auth: .token(lifetimeSeconds: 60))
        try await roundTrip(client(registry, credential: .password(username: "u", password: "p")), registry)
    }

    @Test func tokensAreRenewedBeforeTheyExpireAndOncePerScope() async throws {
        let registry = try RegistryFixture.start(auth: .token(lifetimeSeconds: 2))
        let client = client(registry, credential: .password(username: "u", password: "p"))
        let reference = try Reference("\(registry.host)/team/app:1.0")
        try await image.push(client, to: reference)
        let image = image
        let end = ContinuousClock.now + .seconds(5)
        var reads = 0
        while ContinuousClock.now < end {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        let part = Bytes()
                        _ = try await client.blobRange(
                            image.descriptor.digest, of: reference, range: 5..<5000, sink: part.take)
                        #expect(part.all == Array(image.blob[5..<5000]))
                    }
                }
                try await group.waitForAll()
            }
            reads += 8
        }
        let tokens = registry.tokenServerLog.split(separator: "\n").filter { $0.contains(":pull'") }.count
        #expect((3...6).contains(tokens), "\(tokens) tokens for \(reads) reads")
        // Renewed in time: no read was ever refused but the first ones, which did not know the scheme.
        #expect(!events.results(.range).contains("unauthorized"))
    }

    @Test func wrongPasswordsAndNoneAreToldApartAndNotTriedAgain() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let reference = try Reference("\(registry.host)/team/app:1.0")
        for credential in [RegistryCredential.password(username: "u", password: "wrong"), nil] {
            let before = events.results().count
            let client = client(registry, credential: credential)
            #expect(await code { _ = try await client.manifest(reference) } == .unauthorized)
            #expect(events.results().count - before <= 2)
        }
        // One that worked and does not any more is not sent a second time.
        let directory = try TemporaryDirectory()
        try directory.write("\(registry.host)/username", "u")
        try directory.write("\(registry.host)/password", "p")
        let known = client(registry) { $0.registriesDirectory = directory.path }
        try await known.ping(registry: registry.host)
        registry.stop()
        let stricter = try PythonServer.start(alwaysUnauthorizedScript, port: registry.port)
        #expect(await code { try await known.ping(registry: registry.host) } == .unauthorized)
        #expect(stricter.log.split(separator: "\n").count == 1)
        let tokens = try RegistryFixture.start(auth: .token(lifetimeSeconds: 60))
        let wrong = client(tokens, credential: .password(username: "u", password: "wrong"))
        #expect(await code { _ = try await wrong.manifest(Reference("\(tokens.host)/a:1")) } == .unauthorized)
        let anonymous = client(tokens)
        #expect(
            await code { _ = try await image.push(anonymous, to: Reference("\(tokens.host)/a:1")) } == .unauthorized)
        #expect(await code { _ = try await anonymous.manifest(Reference("\(tokens.host)/a:1")) } == .notFound)
    }

    @Test func credentialsComeFromDockerConfigAndHelpers() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let directory = try TemporaryDirectory()
        try directory.write(
            "docker-credential-t", "#!/bin/sh\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'\n", mode: 0o755)
        for config in [
            #"{"auths":{"\#(registry.host)":{"auth":"dTpw"}}}"#, #"{"credHelpers":{"\#(registry.host)":"t"}}"#,
        ] {
            let path = try directory.write("config.json", config)
            let client = client(registry) {
                $0.dockerConfigPath = path
                $0.credentialHelperDirectory = directory.path
            }
            try await client.ping(registry: registry.host)
        }
    }

    @Test func aPasswordThatChangedOnDiskIsReadAgain() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let directory = try TemporaryDirectory()
        try directory.write("\(registry.host)/username", "u")
        try directory.write("\(registry.host)/password", "old")
        let client = client(registry) { $0.registriesDirectory = directory.path }
        #expect(await code { try await client.ping(registry: registry.host) } == .unauthorized)
        try directory.write("\(registry.host)/password", "p")
        try await client.ping(registry: registry.host)
    }

    @Test func anUnknownCAIsRefusedAndOnlyConfigurationCanAllowIt() async throws {
        let registry = try RegistryFixture.start(tls: true)
        let host = registry.host
        let strict = client(registry) { $0.hosts[host] = HostConfiguration() }
        do {
            try await strict.ping(registry: host)
            Issue.record("trusted an unknown CA")
        } catch {
            #expect(error.code == .unreachable && error.transfer == .certificate)
        }
        let plain = client(registry) { $0.hosts[host] = HostConfiguration(usesPlainHTTP: true) }
        #expect(await code { try await plain.ping(registry: host) } == .unexpectedStatus)
        try await client(registry) { $0.hosts[host] = HostConfiguration(skipsTLSVerification: true) }.ping(
            registry: host)
    }

    @Test func httpIsNeverTriedUnlessConfigured() async throws {
        let registry = try RegistryFixture.start()
        let host = registry.host
        let strict = client(registry) { $0.hosts[host] = nil }
        #expect(await code { try await strict.ping(registry: host) } == .unreachable)
        #expect(!registry.log.contains("GET /v2/"))
    }

    @Test func platformsAreChosenFromAnIndex() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry)
        let reference = try Reference("\(registry.host)/multi:1")
        try await image.push(client, to: reference)
        var entry = Descriptor(
            mediaType: MediaTypes.ociManifest, digest: SHA256.hash(image.manifestBytes),
            size: UInt64(image.manifestBytes.count), platform: Platform(os: "linux", architecture: "arm64"))
        let bytes = try OCIJSON.encode(ImageIndex(manifests: [entry]))
        _ = try await client.pushManifest(bytes, mediaType: MediaTypes.ociIndex, to: reference)
        let chosen = try await client.imageManifest(reference, platform: Platform("linux/arm64"))
        #expect(chosen.descriptor.digest == entry.digest)
        #expect(chosen.manifest == image.manifest)
        #expect(
            await code { _ = try await client.imageManifest(reference, platform: Platform("linux/amd64")) }
                == .noMatchingPlatform)
        entry.platform = nil
        let direct = try await client.imageManifest(reference.pinned(to: entry.digest), platform: .current)
        #expect(direct.manifest == image.manifest)
    }

    @Test func missingThingsAreNotFound() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry)
        let reference = try Reference("\(registry.host)/none:1")
        #expect(await code { _ = try await client.manifest(reference) } == .notFound)
        #expect(await code { _ = try await client.resolve(reference) } == .notFound)
        #expect(await code { _ = try await client.blob(image.descriptor, of: reference, limit: .max) } == .notFound)
        #expect(try await !client.blobExists(image.descriptor.digest, in: reference))
        #expect(events.retries == 0)
    }

    @Test func aBlobIsMountedFromAnotherRepository() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry)
        let first = try Reference("\(registry.host)/one:1")
        let second = try Reference("\(registry.host)/two:1")
        #expect(try await client.push(.bytes(image.blob), digest: image.descriptor.digest, to: first))
        #expect(
            try await !client.push(.bytes(image.blob), digest: image.descriptor.digest, to: second, mountFrom: "one"))
        #expect(try await client.blobExists(image.descriptor.digest, in: second))
        // Not there: the registry opens a session instead, and the bytes are sent.
        let other = SHA256.hash(image.config)
        #expect(try await client.push(.bytes(image.config), digest: other, to: second, mountFrom: "nowhere"))
        #expect(try await client.blobExists(other, in: second))
    }

    @Test func uploadsStreamFromAFileAndDownloadsIntoOne() async throws {
        let registry = try RegistryFixture.start(tls: true, auth: .password)
        let client = client(registry, credential: .password(username: "u", password: "p"))
        let reference = try Reference("\(registry.host)/files:1")
        let directory = try TemporaryDirectory()
        let source = try OpenFile(try directory.write("blob", image.blob))
        let body = BlobSource.file(descriptor: source.number, offset: 0, length: Int64(image.blob.count))
        #expect(try await client.push(body, digest: image.descriptor.digest, to: reference))
        let target = try OpenFile(try directory.write("copy", "before"), writable: true)
        try await client.download(image.descriptor, of: reference, to: target.number, offset: 6)
        #expect(target.contents() == Array("before".utf8) + image.blob)
        // A descriptor that cannot be written is the caller's fault and says so.
        #expect(
            await code { try await client.download(image.descriptor, of: reference, to: source.number) } == .localFile)
        // Bytes that are not what the digest says are refused by the registry.
        #expect(
            await code {
                _ = try await client.push(.bytes([1, 2, 3]), digest: SHA256.hash([1, 2]), to: reference)
            } == .unexpectedStatus)
    }

    @Test func aFlippedBitIsAMismatchAndHealingHelps() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry)
        let reference = try Reference("\(registry.host)/flip:1")
        try await image.push(client, to: reference)
        let hex = image.descriptor.digest.hex
        let path = "\(registry.dataDirectory)/docker/registry/v2/blobs/sha256/\(hex.prefix(2))/\(hex)/data"
        let file = try OpenFile(path, writable: true)
        file.flip(at: 12_345)
        #expect(
            await code { _ = try await client.blob(image.descriptor, of: reference, limit: .max) } == .digestMismatch)
        // Asked twice, the second time past all caches.
        #expect(events.results(.range).count == 2)
        file.flip(at: 12_345)
        #expect(try await client.blob(image.descriptor, of: reference, limit: .max) == image.blob)
    }

    @Test func limitsHoldBeforeAnythingIsFetched() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry)
        let reference = try Reference("\(registry.host)/limits:1")
        #expect(await code { _ = try await client.blob(image.descriptor, of: reference, limit: 100) } == .tooLarge)
        #expect(
            await code {
                _ = try await client.blobRange(image.descriptor.digest, of: reference, range: 0..<11, totalSize: 10) {
                    _ in .stop
                }
            } == .sizeMismatch)
        let nothing = try await client.blobRange(image.descriptor.digest, of: reference, range: 5..<5) { _ in .stop }
        #expect(nothing.exchanges == 0)
        #expect(events.results().isEmpty)
    }

    @Test func mirrorsAreAskedInOrderAndTheRegistryLast() async throws {
        let empty = try RegistryFixture.start()
        let full = try RegistryFixture.start()
        let origin = try RegistryFixture.start()
        let dead = try Ports.free()
        var configuration = RegistryConfiguration(
            hosts: [
                origin.host: HostConfiguration(
                    usesPlainHTTP: true,
                    mirrors: ["http://127.0.0.1:\(dead)", empty.host, "http://\(full.host)/proxy/"]),
                empty.host: HostConfiguration(usesPlainHTTP: true), full.host: HostConfiguration(usesPlainHTTP: true),
            ])
        let events = events
        let client = RegistryClient(configuration: configuration) { events.add($0) }
        let reference = try Reference("\(origin.host)/app:1")
        // Pushes never go to a mirror.
        try await image.push(client, to: reference)
        #expect(!full.log.contains("PUT") && !empty.log.contains("PUT"))
        let part = Bytes()
        var result = try await client.blobRange(image.descriptor.digest, of: reference, range: 7..<99, sink: part.take)
        #expect(result.host == origin.host)
        try await image.push(client, to: Reference("\(full.host)/proxy/app:1"))
        result = try await client.blobRange(image.descriptor.digest, of: reference, range: 7..<99, sink: part.take)
        #expect(result.host == full.host)
        #expect(part.all == Array(image.blob[7..<99]) + Array(image.blob[7..<99]))
        result = try await client.blobRange(
            image.descriptor.digest, of: reference, range: 7..<99, bypassingCaches: true, sink: part.take)
        #expect(result.host == origin.host)
        configuration.hosts[origin.host]?.mirrors = ["http://u@x/"]
        let broken = RegistryClient(configuration: configuration)
        #expect(await code { _ = try await broken.manifest(reference) } == .configuration)
    }

    @Test func aPausedReadGoesOnWhereItStopped() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry)
        let reference = try Reference("\(registry.host)/pause:1")
        try await image.push(client, to: reference)
        let control = client.makeControl()
        let part = Bytes()
        let left = Mutex(5)
        let (pauses, continuation) = AsyncStream.makeStream(of: Void.self)
        let resumer = Task { for await _ in pauses { control.resume() } }
        _ = try await client.blobRange(
            image.descriptor.digest, of: reference, range: 10..<2_000_010, totalSize: image.descriptor.size,
            control: control
        ) { piece in
            let pauses = left.withLock { left in
                let isDue = left > 0 && part.all.count >= (6 - left) * 200_000
                if isDue { left -= 1 }
                return isDue
            }
            if pauses {
                continuation.yield()
                return .pause
            }
            return part.take(piece)
        }
        continuation.finish()
        await resumer.value
        #expect(left.withLock { $0 } == 0)
        #expect(part.all == Array(image.blob[10..<2_000_010]))
    }
}
