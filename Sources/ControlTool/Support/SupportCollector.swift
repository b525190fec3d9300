import ControlAPI
import Glibc
import LinuxSystem
import Synchronization

/// Gathers the files of a support bundle in a directory, each within a bound of size and time; what cannot be had is
/// noted and ends nothing.
final class SupportCollector {
    /// One file of the bundle, or why it is missing.
    struct Item: Codable, Equatable, Sendable {
        var name: String
        var bytes: UInt64 = 0
        var seconds: Double = 0
        /// It had more bytes than the limit.
        var isCut: Bool?
        /// Why there is no such file, or not all of it.
        var error: String?
    }

    /// What one file came to.
    struct Piece: Sendable {
        var bytes: [UInt8]
        var isCut = false
        var error: String?
    }

    /// Bytes of one file; 40 files of which few come near it.
    static let maxBytes = 16 << 20
    /// One file may take this long, and all of them together.
    static let itemTime = Duration.seconds(20)
    static let wholeTime = Duration.seconds(180)

    let directory: String
    private let begun = ContinuousClock.now
    private(set) var items: [Item] = []

    init(directory: String) { self.directory = directory }

    /// Makes one file of what `body` gives, which may block: it has a thread of its own.
    func add(_ name: String, time: Duration = itemTime, _ body: @escaping @Sendable () throws -> Piece) async {
        await add(name, time: time) { try await OwnThread.run(body) }
    }

    /// Makes one file of what `body` gives, which must not block.
    func add(asynchronous name: String, _ body: @escaping @Sendable () async throws -> [UInt8]) async {
        await add(name, time: Self.itemTime) { Piece(bytes: try await body()) }
    }

    private func add(_ name: String, time: Duration, _ body: @escaping @Sendable () async throws -> Piece) async {
        let start = ContinuousClock.now
        var item = Item(name: name)
        do {
            guard start - begun < Self.wholeTime else {
                throw ToolError("deadline", "left out: all files together took \(Self.wholeTime)")
            }
            var piece = try await Bounded.run(time, body)
            if piece.bytes.count > Self.maxBytes {
                piece.bytes.removeLast(piece.bytes.count - Self.maxBytes)
                piece.isCut = true
            }
            let clean = Redaction.text(piece.bytes)
            try write(name, clean)
            item.bytes = UInt64(clean.count)
            if piece.isCut { item.isCut = true }
            item.error = piece.error.map(Redaction.text)
        } catch { item.error = Redaction.text(ToolError(error).message) }
        item.seconds = (ContinuousClock.now - start) / .seconds(1)
        items.append(item)
    }

    private func write(_ name: String, _ bytes: [UInt8]) throws {
        var folder = directory
        for part in name.split(separator: "/").dropLast() {
            folder += "/" + part
            try Directory.create(folder, mode: 0o700)
        }
        try NewFile.write(bytes, to: directory + "/" + name)
    }

    /// Writes the list of everything, and what is not there.
    func finish(_ manifest: SupportManifest) throws {
        var manifest = manifest
        manifest.items = items.sorted { $0.name < $1.name }
        try write("manifest.json", try ControlJSON.encode(manifest, pretty: true))
    }
}

/// `manifest.json` of a support bundle.
struct SupportManifest: Codable, Sendable {
    var apiVersion = ControlVersion.current
    var node: String
    var createdUnixSeconds: Double
    /// Of chunkctl.
    var version: String
    /// Whether chunkd answered.
    var isAgentReached: Bool
    var items: [SupportCollector.Item] = []
}

/// Blocking work off the cooperative pool.
enum OwnThread {
    static func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
            do throws(SystemError) {
                try Thread.start("support") { continuation.resume(with: Result { try body() }) }
            } catch { continuation.resume(throwing: error) }
        }
    }
}

/// Work that is given up after a time, whatever it is doing: a thread that hangs on a dead disk is left behind.
enum Bounded {
    static func run<Value: Sendable>(
        _ limit: Duration, _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let outcome = Mutex<CheckedContinuation<Value, any Error>?>(nil)
        let end: @Sendable (Result<Value, any Error>) -> Void = { result in
            let waiting = outcome.withLock { waiting in
                defer { waiting = nil }
                return waiting
            }
            waiting?.resume(with: result)
        }
        return try await withCheckedThrowingContinuation { continuation in
            outcome.withLock { $0 = continuation }
            let work = Task {
                do { end(.success(try await body())) } catch { end(.failure(error)) }
            }
            Task {
                try await Task.sleep(for: limit)
                end(.failure(ToolError("deadline", "not done after \(limit)")))
                work.cancel()
            }
        }
    }
}
