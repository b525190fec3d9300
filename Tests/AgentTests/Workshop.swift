import ChunkModel
import Glibc
import HTTPTransfer
import Integrity
import LinuxSystem
import Logging
import OCISpec
import RegistryClient
import ServiceLifecycle
import Settings
import TestSupport
import Testing
import Zstandard

@testable import Agent

/// An image in a real registry, and what its blob holds. The bootstrap is no EROFS: the fake gate does not look.
struct TestImage {
    let reference: String
    let manifest: Digest
    let blob: Digest
    let raw: [UInt8]
    let chunkSize: Int
    /// Where each chunk's stored bytes lie in the stored blob.
    let storedEnds: [Int]

    var chunkCount: Int { (raw.count + chunkSize - 1) / chunkSize }
    func range(_ chunks: Range<Int>) -> Range<UInt64> {
        UInt64(chunks.lowerBound * chunkSize)..<UInt64(min(chunks.upperBound * chunkSize, raw.count))
    }
    func bytes(_ range: Range<UInt64>) -> [UInt8] { Array(raw[Int(range.lowerBound)..<Int(range.upperBound)]) }

    /// Pushes an image with one blob of `raw`.
    static func push(
        _ raw: [UInt8], to reference: String, compressed: Bool, chunkSize: Int = 256 << 10, host: String
    ) async throws -> TestImage {
        let client = RegistryClient(
            configuration: RegistryConfiguration(hosts: [host: HostConfiguration(usesPlainHTTP: true)]))
        let target = try Reference(reference)
        var chunks: [(end: UInt64, digest: Digest)] = []
        var stored: [UInt8] = []
        var frames: [SeekTable.Frame] = []
        var storedEnds: [Int] = []
        let compressor = try FrameCompressor()
        for start in stride(from: 0, to: raw.count, by: chunkSize) {
            let piece = Array(raw[start..<min(start + chunkSize, raw.count)])
            chunks.append((UInt64(start + piece.count), SHA256.hash(piece)))
            var frame = piece
            if compressed {
                var out = [UInt8](repeating: 0, count: FrameCompressor.bound(rawSize: piece.count))
                let size = try piece.withUnsafeBytes { input in
                    try out.withUnsafeMutableBytes { try compressor.compress(input, into: $0) }
                }
                frame = Array(out[..<size])
                frames.append(.init(storedSize: UInt32(size), rawSize: UInt32(piece.count)))
            }
            stored += frame
            storedEnds.append(stored.count)
        }
        let table = compressed ? try SeekTable(frames: frames).encoded() : []
        stored += table
        let index = try ChunkIndex(chunks: chunks).caibx(sizes: (chunkSize, chunkSize, chunkSize))
        func put(_ bytes: [UInt8]) async throws -> Descriptor {
            let digest = SHA256.hash(bytes)
            _ = try await client.push(.bytes(bytes), digest: digest, to: target)
            return Descriptor(mediaType: MediaTypes.ociConfig, digest: digest, size: UInt64(bytes.count))
        }
        let config = try await put(Array("{}".utf8))
        let bootstrap = try await put([UInt8](repeating: 7, count: 4096))
        let blob = try await put(stored)
        let manifest = Manifest(
            config: config,
            layers: ChunkdImage.layers(
                bootstrap: bootstrap,
                blobs: [
                    ChunkdImage.Blob(
                        descriptor: blob, compression: compressed ? .zstd : .raw, rawSize: UInt64(raw.count),
                        index: try await put(index), seekTable: compressed ? SHA256.hash(table) : nil)
                ]))
        let bytes = try OCIJSON.encode(manifest)
        let digest = try await client.pushManifest(bytes, mediaType: MediaTypes.ociManifest, to: target)
        await client.shutDown()
        return TestImage(
            reference: reference, manifest: digest, blob: blob.digest, raw: raw, chunkSize: chunkSize,
            storedEnds: storedEnds)
    }
}

/// An agent in this process against a fake gate and a real registry.
final class Workshop: Sendable {
    let directory: TemporaryDirectory
    let registry: RegistryFixture
    let gate: FakeGate
    let state: String

    init() throws {
        directory = try TemporaryDirectory(prefix: "chunkd-agent")
        registry = try RegistryFixture.start()
        state = directory.path + "/state"
        try Directory.create(state, mode: 0o700)
        try Directory.create(directory.path + "/run", mode: 0o700)
        gate = try FakeGate(path: directory.path + "/run/gate.sock")
    }

    var host: String { registry.host }

    func settings(_ change: (inout AgentSettings) -> Void = { _ in }) -> AgentSettings {
        var settings = AgentSettings.defaults
        settings.stateDirectory = state
        settings.runDirectory = directory.path + "/run"
        settings.gateSocket = directory.path + "/run/gate.sock"
        settings.controlSocket = directory.path + "/run/control.sock"
        settings.metricsAddress = nil
        // Off, so that counters say what a test did.
        settings.hydrate.enabled = false
        settings.readAheadWindowMaxBytes = 0
        settings.trace.replay = false
        change(&settings)
        return settings
    }

    /// Runs an agent while `body` does, and ends it.
    func run<Value>(
        _ settings: AgentSettings? = nil, _ body: (AgentRuntime) async throws -> Value
    ) async throws -> Value {
        let used = settings ?? self.settings()
        var configuration = RegistryConfiguration(hosts: [host: HostConfiguration(usesPlainHTTP: true)])
        // A test must not wait for a registry that is meant to be gone.
        configuration.retry = RetryPolicy(maxAttempts: 2, baseDelay: .milliseconds(20), circuitThreshold: 1000)
        var logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        logger.logLevel = .critical
        let runtime = try AgentRuntime(
            AgentRuntime.Configuration(settings: used, registry: configuration), logger: logger)
        let group = ServiceGroup(
            configuration: .init(services: [.init(service: runtime)], gracefulShutdownSignals: [], logger: logger))
        let running = Task { try await group.run() }
        let isConnected = await off {
            Wait.until(.seconds(10)) { runtime.service.gate.current != nil || runtime.service.gate.isRefused }
        }
        do {
            try #require(isConnected, "the agent does not connect")
            let value = try await body(runtime)
            await group.triggerGracefulShutdown()
            try await running.value
            return value
        } catch {
            await group.triggerGracefulShutdown()
            try? await running.value
            throw error
        }
    }
}

/// Runs blocking work on a thread of its own.
func off<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
    await withCheckedContinuation { continuation in
        do throws(SystemError) {
            try Thread.start("test") { continuation.resume(returning: body()) }
        } catch { fatalError("no thread: \(error)") }
    }
}
