import ChunkModel
import Glibc
import LinuxSystem
import Logging
import Synchronization

/// Keeps a connection to chunkgate: one thread that connects, reads, and connects again.
///
/// Thread-safe. Notices come on that thread, in order: `up`, then events, then `down`.
package final class GateClient: Sendable {
    /// What the owner is told.
    package enum Notice: Sendable {
        case up(GateConnection, integrityGap: Bool, epoch: UInt64)
        case event(GateConnection, GateProtocol.Event)
        case down(GateConnection)
        /// The gate will not have this agent, because it has one: trying again is no use.
        case refused(AgentError)
    }

    /// Waiting times between attempts, in milliseconds: doubles from the first to the last.
    static let backoffMilliseconds = 100...2000

    /// A predecessor that was killed may hold the gate a moment longer.
    static let takenPatienceMilliseconds = 3000

    private let path: String
    private let arena: Arena
    private let logger: Logger
    private let sending: WorkQueue
    private let onNotice: @Sendable (Notice) -> Void
    private let isStopped = Monitor(false)
    private let connection = Mutex<GateConnection?>(nil)
    private let refusal = Mutex(false)

    /// Makes the client; `start` begins to connect.
    package init(
        path: String, arena: Arena, logger: Logger, onNotice: @escaping @Sendable (Notice) -> Void
    ) throws(SystemError) {
        self.path = path
        self.arena = arena
        self.logger = logger
        self.onNotice = onNotice
        sending = try WorkQueue("gate-send", threads: 1)
    }

    package func start() throws(SystemError) { try Thread.start("gate") { [self] in run() } }

    /// Ends the connection and the thread.
    package func stop() {
        isStopped.update { $0 = true }
        connection.withLock { $0 }?.close()
    }

    /// Ends the current connection, for a new one: what was agreed on it is no longer trusted.
    package func reconnect() { connection.withLock { $0 }?.close() }

    /// The connection of this moment; nil while there is none.
    package var current: GateConnection? { connection.withLock { $0 } }

    /// The gate would not have this agent; it does not try again.
    package var isRefused: Bool { refusal.withLock { $0 } }

    // MARK: - Connecting

    private func run() {
        var wait = Self.backoffMilliseconds.lowerBound
        var attempt: UInt64 = 0
        var lastProblem = ""
        var takenSince: Monotonic?
        while !isStopped.withLock({ $0 }) {
            attempt += 1
            do throws(AgentError) {
                let connection = try connect(attempt)
                wait = Self.backoffMilliseconds.lowerBound
                lastProblem = ""
                takenSince = nil
                serve(connection)
            } catch {
                if error.code == .gateTaken { takenSince = takenSince ?? .now }
                // A refusal can get lost when the gate ends the connection at once: other errors do not undo one.
                if let since = takenSince {
                    if Monotonic.now.milliseconds(since: since) >= Self.takenPatienceMilliseconds {
                        refusal.withLock { $0 = true }
                        return onNotice(
                            .refused(AgentError(.gateTaken, "chunkgate at \(path) refuses this agent: it has one")))
                    }
                    wait = Self.backoffMilliseconds.lowerBound
                }
                // Said once: an agent that waits for its gate does not fill the log.
                if lastProblem != error.message {
                    logger.warning("no connection to chunkgate", metadata: ["error": "\(error)"])
                }
                lastProblem = error.message
            }
            let until = Monotonic.now.adding(milliseconds: wait)
            _ = isStopped.wait(until: until) { $0 ? true : nil }
            wait = min(wait * 2, Self.backoffMilliseconds.upperBound)
        }
    }

    private func connect(_ number: UInt64) throws(AgentError) -> GateConnection {
        let connection: GateConnection
        do throws(SystemError) {
            let socket = try PacketSocket.connect(path: path)
            try socket.setSendTimeout(seconds: 10)
            connection = GateConnection(number: number, socket: socket)
            try connection.sendHello(arena)
        } catch { throw AgentError(.gateAway, "\(error)", errno: error.errno) }
        switch try connection.receiveOne() {
        case .helloReply(let gap, let epoch):
            self.connection.withLock { $0 = connection }
            onNotice(.up(connection, integrityGap: gap, epoch: epoch))
            return connection
        case .reply(let errno, _, let message):
            connection.close()
            throw AgentError(
                errno == UInt32(EBUSY) ? .gateTaken : .gateRefused,
                "chunkgate at \(path) refuses this agent: \(message)", errno: Int32(clamping: errno))
        default:
            connection.close()
            throw AgentError(.gateProtocol, "chunkgate at \(path) did not answer hello")
        }
    }

    private func serve(_ connection: GateConnection) {
        let end = connection.receiveAll { event in onNotice(.event(connection, event)) }
        connection.close()
        self.connection.withLock { $0 = nil }
        if !isStopped.withLock({ $0 }) {
            logger.warning("connection to chunkgate ended", metadata: ["error": "\(end)"])
        }
        onNotice(.down(connection))
    }

    // MARK: - Requests

    /// Mounts and removals wait for the gate's disk; everything else is answered from memory.
    static let slowCall = Duration.seconds(120)
    static let quickCall = Duration.seconds(10)

    func call(
        _ request: GateProtocol.Request, descriptors: [File] = [], timeout: Duration
    ) async throws(AgentError) -> [GateProtocol.Event] {
        guard let connection = current else { throw GateConnection.away }
        return try await call(request, descriptors: descriptors, timeout: timeout, over: connection).events
    }

    private func call(
        _ request: GateProtocol.Request, descriptors: [File] = [], timeout: Duration, over connection: GateConnection
    ) async throws(AgentError) -> GateConnection.Reply {
        let reply = try await connection.call(request, descriptors: descriptors, timeout: timeout, on: sending)
        if case .reply(let errno, _, let message) = reply.events.last, errno != 0 {
            throw AgentError(.gateRefused, "chunkgate: \(message)", errno: Int32(clamping: errno))
        }
        return reply
    }

    static func unexpected(_ events: [GateProtocol.Event]) -> AgentError {
        AgentError(.gateProtocol, "chunkgate gave another kind of answer (\(events.count) frames)")
    }

    /// Opens an image, with descriptors (manifest, bootstrap, indexes) or, for one the gate has, without: then the
    /// errno is ENOENT when it has not.
    package func openImage(
        _ manifest: Digest, mount: Bool, blobCount: Int, descriptors: [File]
    ) async throws(AgentError) -> GateProtocol.ImageInfo {
        let request = GateProtocol.Request.openImage(manifest: manifest, mount: mount, blobCount: UInt32(blobCount))
        let events = try await call(request, descriptors: descriptors, timeout: Self.slowCall)
        guard case .image(let info) = events.last else { throw Self.unexpected(events) }
        return info
    }

    /// Unmounts; EBUSY while somebody uses it.
    package func closeImage(_ manifest: Digest) async throws(AgentError) {
        _ = try await call(.closeImage(manifest: manifest), timeout: Self.slowCall)
    }

    /// Which chunks of a blob are resident: bit n%8 of byte n/8.
    package func residency(_ blob: UInt32) async throws(AgentError) -> [UInt8] {
        let events = try await call(.residency(blob: blob), timeout: Self.quickCall)
        guard case .residencyBits(_, _, let bits) = events.last else { throw Self.unexpected(events) }
        return bits
    }

    /// A blob's backing file, for reading only; `blob` is a handle of this connection. What is not resident is zeros.
    package func blobFile(_ blob: UInt32, on connection: GateConnection) async throws(AgentError) -> File {
        try await file(.blobFile(blob: blob), over: connection)
    }

    /// An image's bootstrap, for reading only; ENOENT when the gate has not got the image.
    package func bootstrapFile(_ manifest: Digest) async throws(AgentError) -> File {
        try await file(.bootstrapFile(manifest: manifest))
    }

    /// The descriptor that comes beside the answer.
    func file(_ request: GateProtocol.Request, over connection: GateConnection? = nil) async throws(AgentError) -> File
    {
        guard let connection = connection ?? current else { throw GateConnection.away }
        let reply = try await call(request, timeout: Self.quickCall, over: connection)
        guard let file = reply.files.first else { throw Self.unexpected(reply.events) }
        return file
    }

    /// All images on the gate's disk.
    package func list() async throws(AgentError) -> [GateProtocol.ImageInfo] {
        let events = try await call(.list, timeout: Self.slowCall)
        guard case .end = events.last else { throw Self.unexpected(events) }
        return events.compactMap { if case .image(let info) = $0 { info } else { nil } }
    }

    package func counters() async throws(AgentError) -> [GateProtocol.Counter: UInt64] {
        let events = try await call(.stat, timeout: Self.quickCall)
        guard case .counters(let values) = events.last else { throw Self.unexpected(events) }
        return values
    }

    /// Hashes up to `GateProtocol.maxVerifyChunks` resident chunks on disk.
    package func verify(
        _ blob: UInt32, first: Int, count: Int
    ) async throws(AgentError) -> (checked: Int, absent: Int, bad: [Int]) {
        let events = try await call(
            .verify(blob: blob, first: UInt32(first), count: UInt32(count)), timeout: Self.slowCall)
        guard case .verified(_, let checked, let absent, let bad) = events.last else { throw Self.unexpected(events) }
        return (Int(checked), Int(absent), bad.map(Int.init))
    }

    /// Who is blocked on what, longest first; `GateProtocol.maxListedBlocked` of them when there may be more. Blob handles
    /// are those of the current connection.
    package func blocked() async throws(AgentError) -> [GateProtocol.BlockedReader] {
        let events = try await call(.listBlocked, timeout: Self.quickCall)
        guard case .blocked(let readers) = events.last else { throw Self.unexpected(events) }
        return readers
    }

    /// Removes an unmounted image; returns the bytes freed.
    package func removeImage(_ manifest: Digest) async throws(AgentError) -> UInt64 {
        let events = try await call(.removeImage(manifest: manifest), timeout: Self.slowCall)
        guard case .reply(_, let value, _) = events.last else { throw Self.unexpected(events) }
        return value
    }
}
