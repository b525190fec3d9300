import Glibc
import HTTPTransfer
import Synchronization

/// The other side of `ControlServer`: what chunkctl uses. Thread-safe.
package final class ControlClient: Sendable {
    /// Bytes of an answer: 10,000 images at 1 KiB.
    static let maxReplyBytes = 16 << 20
    /// Bytes of one streamed line: an access trace of at most 2 MiB as JSON text, one byte more a line.
    static let maxLineBytes = 4 << 20

    private let socketPath: String
    private let transfer: TransferClient

    package init(socketPath: String) {
        self.socketPath = socketPath
        transfer = TransferClient()
    }

    package func mount(_ request: MountRequest) async throws(ControlError) -> MountReply {
        try await call(.post, "/v1/mounts", body: try ControlJSON.encode(request))
    }

    package func umount(_ request: UmountRequest) async throws(ControlError) -> UmountReply {
        try await call(.post, "/v1/umounts", body: try ControlJSON.encode(request))
    }

    package func images() async throws(ControlError) -> ImagesReply { try await call(.get, "/v1/images") }
    package func stat() async throws(ControlError) -> StatReply { try await call(.get, "/v1/stat") }
    package func peers() async throws(ControlError) -> PeersReply { try await call(.get, "/v1/peers") }
    package func faults() async throws(ControlError) -> FaultsReply { try await call(.get, "/v1/faults") }
    package func events(_ request: EventsRequest) async throws(ControlError) -> EventsReply {
        try await call(.post, "/v1/events", body: try ControlJSON.encode(request))
    }
    package func spans(_ request: SpansRequest) async throws(ControlError) -> SpansReply {
        try await call(.post, "/v1/spans", body: try ControlJSON.encode(request))
    }
    package func doctor() async throws(ControlError) -> DoctorReply { try await call(.get, "/v1/doctor") }
    package func version() async throws(ControlError) -> VersionReply { try await call(.get, "/v1/version") }

    package func pin(_ request: PinRequest) async throws(ControlError) -> PinReply {
        try await call(.post, "/v1/pins", body: try ControlJSON.encode(request))
    }

    package func collectGarbage(_ request: GarbageRequest) async throws(ControlError) -> GarbageReply {
        try await call(.post, "/v1/gc", body: try ControlJSON.encode(request))
    }

    package func explain(_ request: ExplainRequest) async throws(ControlError) -> ExplainReply {
        try await call(.post, "/v1/explain", body: try ControlJSON.encode(request))
    }

    /// `progress` as for `prefetch`.
    package func drain(
        _ request: DrainRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws(ControlError) -> DrainReply {
        try await stream("/v1/drain", body: try ControlJSON.encode(request), progress: progress)
    }

    /// A request that names nothing asks for the limits in force.
    package func limits(_ request: LimitsRequest = LimitsRequest()) async throws(ControlError) -> LimitsReply {
        if request.isEmpty { return try await call(.get, "/v1/limits") }
        return try await call(.post, "/v1/limits", body: try ControlJSON.encode(request))
    }

    /// `progress` is called on the transfer thread and must not block.
    package func prefetch(
        _ request: PrefetchRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws(ControlError) -> PrefetchReply {
        try await stream("/v1/prefetch", body: try ControlJSON.encode(request), progress: progress)
    }

    /// `progress` as for `prefetch`.
    package func verify(
        _ request: VerifyRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws(ControlError) -> VerifyReply {
        try await stream("/v1/verify", body: try ControlJSON.encode(request), progress: progress)
    }

    /// `progress` as for `prefetch`. Returns after `endTrace`.
    package func recordTrace(
        _ request: TraceRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws(ControlError) -> TraceReply {
        try await stream("/v1/traces", body: try ControlJSON.encode(request), progress: progress)
    }

    package func endTrace(_ request: TraceRequest) async throws(ControlError) -> TraceEndReply {
        try await call(.post, "/v1/traces/end", body: try ControlJSON.encode(request))
    }

    // MARK: - Exchanges

    private func call<Reply: Decodable>(
        _ method: TransferRequest.Method, _ path: String, body: [UInt8]? = nil
    ) async throws(ControlError) -> Reply {
        let result = try await perform(method, path, body, sink: .collecting(limit: Self.maxReplyBytes))
        guard result.head.status == 200 else { throw Self.error(of: result, path) }
        return try Self.reply(result.body, path)
    }

    private func stream<Reply: Codable & Sendable>(
        _ path: String, body: [UInt8], progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws(ControlError) -> Reply {
        let lines = LineCollector<Reply>(progress: progress)
        let sink = TransferSink(
            head: { head in
                head.status == 200 ? .deliver(limit: .max) : .collect(limit: Self.maxReplyBytes, truncating: false)
            },
            body: { lines.take($0) })
        let result = try await perform(.post, path, body, sink: sink)
        guard result.head.status == 200 else { throw Self.error(of: result, path) }
        return try lines.outcome(path)
    }

    private func perform(
        _ method: TransferRequest.Method, _ path: String, _ body: [UInt8]?, sink: TransferSink
    ) async throws(ControlError) -> TransferResult {
        let request = TransferRequest(
            method, url: "http://chunkd" + path, headers: body == nil ? [] : [("Content-Type", "application/json")],
            body: body.map { .bytes($0) } ?? .none, unixSocketPath: socketPath,
            // The server has its own deadlines; these only end what it forgot.
            timeouts: TransferTimeouts(
                connect: .seconds(5), firstByte: .seconds(600), progressWindow: .seconds(600), progressBytes: 1))
        do throws(TransferError) { return try await transfer.perform(request, sink: sink) } catch {
            throw explain(error)
        }
    }

    private func explain(_ error: TransferError) -> ControlError {
        switch error.code {
        case .connect, .connectTimeout:
            if access(socketPath, F_OK) != 0, errno == EACCES || errno == EPERM {
                return ControlError(.agentAway, "may not use \(socketPath)", hint: "run chunkctl as root")
            }
            if access(socketPath, F_OK) == 0, access(socketPath, W_OK) != 0 {
                return ControlError(.agentAway, "may not use \(socketPath)", hint: "run chunkctl as root")
            }
            let found = access(socketPath, F_OK) == 0 ? "nothing listens there" : "there is no such socket"
            return ControlError(
                .agentAway, "cannot reach chunkd at \(socketPath): \(found)",
                hint: "start chunkd, or name its socket with --socket or controlSocket")
        default:
            return ControlError(
                .agentAway, "chunkd at \(socketPath): \(error.message)", hint: "see chunkd's log")
        }
    }

    private static func error(of result: TransferResult, _ path: String) -> ControlError {
        let decoded: ErrorReply? = try? ControlJSON.decode(from: result.body, what: path)
        return decoded?.error
            ?? ControlError(
                .agentAway, "\(path): HTTP status \(result.head.status) without an explanation",
                hint: "is something else than chunkd listening there?")
    }

    private static func reply<Reply: Decodable>(_ bytes: [UInt8], _ path: String) throws(ControlError) -> Reply {
        do throws(ControlError) { return try ControlJSON.decode(from: bytes, what: "answer to \(path)") } catch {
            throw ControlError(.agentAway, error.message, hint: "are chunkctl and chunkd of the same version?")
        }
    }
}

/// Cuts a streamed body into lines and keeps the last word. Thread-safe.
private final class LineCollector<Reply: Codable & Sendable>: Sendable {
    private struct State {
        var buffer: [UInt8] = []
        var outcome: Result<Reply, ControlError>?
    }

    private let state = Mutex(State())
    private let progress: @Sendable (ProgressReport) -> Void

    init(progress: @escaping @Sendable (ProgressReport) -> Void) { self.progress = progress }

    func take(_ bytes: UnsafeRawBufferPointer) -> SinkDecision {
        var reports: [ProgressReport] = []
        let decision = state.withLock { state -> SinkDecision in
            for byte in bytes {
                if byte != UInt8(ascii: "\n") {
                    state.buffer.append(byte)
                    guard state.buffer.count <= ControlClient.maxLineBytes else {
                        state.outcome = .failure(ControlError(.agentAway, "a line of the answer is too long"))
                        return .stop
                    }
                    continue
                }
                do throws(ControlError) {
                    let line: StreamLine<Reply> = try ControlJSON.decode(from: state.buffer, what: "line of the answer")
                    if let report = line.progress { reports.append(report) }
                    if let reply = line.result { state.outcome = .success(reply) }
                    if let error = line.error { state.outcome = .failure(error) }
                } catch {
                    state.outcome = .failure(ControlError(.agentAway, error.message))
                    return .stop
                }
                state.buffer.removeAll(keepingCapacity: true)
            }
            return .continue
        }
        for report in reports { progress(report) }
        return decision
    }

    func outcome(_ path: String) throws(ControlError) -> Reply {
        guard let outcome = state.withLock({ $0.outcome }) else {
            throw ControlError(.agentAway, "\(path): chunkd ended the answer early", hint: "see chunkd's log")
        }
        return try outcome.get()
    }
}
