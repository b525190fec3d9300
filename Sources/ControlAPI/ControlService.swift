/// What chunkd does for the clients of its control socket. `ControlServer` turns HTTP requests into these calls.
///
/// Calls come concurrently. A `ControlError` reaches the client as it is; any other error becomes `internal` with its
/// description. When the client goes away the task of the call is cancelled.
package protocol ControlService: Sendable {
    /// Resolves, fetches the bootstrap and the indexes, has the gate mount. Asking again is cheap and not an error.
    func mount(_ request: MountRequest) async throws -> MountReply
    /// The gate drops the image's mount when nobody else uses it.
    func umount(_ request: UmountRequest) async throws -> UmountReply
    func images() async throws -> ImagesReply
    func stat() async throws -> StatReply
    /// Returns when the image is complete. `progress` does not block and may be called from any thread.
    func prefetch(_ request: PrefetchRequest, progress: @escaping @Sendable (ProgressReport) -> Void) async throws
        -> PrefetchReply
    /// Returns when every resident chunk has been hashed. `progress` as for `prefetch`.
    func verify(_ request: VerifyRequest, progress: @escaping @Sendable (ProgressReport) -> Void) async throws
        -> VerifyReply
    func pin(_ request: PinRequest) async throws -> PinReply
    func collectGarbage(_ request: GarbageRequest) async throws -> GarbageReply
    /// Changes what the request names, until the agent's end; the limits in force.
    func limits(_ request: LimitsRequest) async throws -> LimitsReply
    func doctor() async throws -> DoctorReply
    /// The nodes of the cluster as seen from here.
    func peers() async throws -> PeersReply
    /// Who is blocked on what now, and what is done about it.
    func faults() async throws -> FaultsReply
    /// What happened lately.
    func events(_ request: EventsRequest) async throws -> EventsReply
    /// What was done for chunks that somebody waited for: docs/formats/spans.md.
    func spans(_ request: SpansRequest) async throws -> SpansReply
    /// Where chunks of an image, of a blob, or one chunk, would come from, and why.
    func explain(_ request: ExplainRequest) async throws -> ExplainReply
    /// Leaves the cluster: serves peers no more, fetches what mounted images lack, says goodbye. `progress` as for
    /// `prefetch`.
    func drain(_ request: DrainRequest, progress: @escaping @Sendable (ProgressReport) -> Void) async throws
        -> DrainReply
    /// Notes which chunks of an image are read first, until `endTrace`, the time limit, or the client goes away.
    /// `progress` as for `prefetch`; the first report says that it has begun.
    func recordTrace(_ request: TraceRequest, progress: @escaping @Sendable (ProgressReport) -> Void) async throws
        -> TraceReply
    /// Ends the recording that was begun with the same reference: its `recordTrace` returns.
    func endTrace(_ request: TraceRequest) async throws -> TraceEndReply
    func version() async throws -> VersionReply
}

/// An error of the control API, on both sides of the socket. JSON: `{"error":{"code","message","hint"}}`.
package struct ControlError: Error, Codable, Equatable, Sendable, CustomStringConvertible {
    /// Closed set; the raw value is on the wire and fit for a metric label.
    package enum Code: String, Codable, CaseIterable, Sendable {
        /// The request is not one this version understands. HTTP 400.
        case invalidRequest
        /// The peer of the socket is neither root nor the agent's user. HTTP 403.
        case forbidden
        /// No such image, tag or route. HTTP 404.
        case notFound
        /// The image is in a state that rules this out (mounted, another digest than pinned). HTTP 409.
        case conflict
        /// Request body over 64 KiB. HTTP 413.
        case tooLarge
        /// Too many requests at once. HTTP 429.
        case busy
        /// The reference is no image of ours, or the kernel or file system cannot carry it. HTTP 422.
        case unsupported
        /// Bytes do not match their digest. HTTP 502.
        case integrity
        /// The registry refused the credentials. HTTP 502.
        case unauthorized
        /// The registry, or another source, could not be reached. HTTP 502.
        case unreachable
        /// chunkgate does not answer. HTTP 503.
        case gateAway
        /// The cache is full and nothing can be evicted. HTTP 507.
        case noSpace
        /// Not done in time. HTTP 504.
        case deadline
        /// chunkd cannot be reached, or speaks another language. Client side only. HTTP 500.
        case agentAway
        /// A defect, or an error nobody gave a code. HTTP 500.
        case `internal`

        /// Status line of the answer.
        package var httpStatus: Int {
            switch self {
            case .invalidRequest: 400
            case .forbidden: 403
            case .notFound: 404
            case .conflict: 409
            case .tooLarge: 413
            case .unsupported: 422
            case .busy: 429
            case .agentAway, .internal: 500
            case .integrity, .unauthorized, .unreachable: 502
            case .gateAway: 503
            case .deadline: 504
            case .noSpace: 507
            }
        }
    }

    package var code: Code
    /// What, where, expected and found.
    package var message: String
    /// What to do; may be empty.
    package var hint: String

    package init(_ code: Code, _ message: String, hint: String = "") {
        self.code = code
        self.message = message
        self.hint = hint
    }

    package var description: String { hint.isEmpty ? message : "\(message); \(hint)" }

    private enum CodingKeys: String, CodingKey { case code, message, hint }

    /// A code of a newer server reads as `internal`.
    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        code = Code(rawValue: try container.decode(String.self, forKey: .code)) ?? .internal
        message = try container.decode(String.self, forKey: .message)
        hint = try container.decodeIfPresent(String.self, forKey: .hint) ?? ""
    }
}
