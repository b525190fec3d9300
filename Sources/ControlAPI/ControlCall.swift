/// A request of the control API, decoded: the routing table, free of HTTP machinery and I/O.
package enum ControlCall: Equatable, Sendable {
    case mount(MountRequest)
    case umount(UmountRequest)
    case images
    case stat
    case prefetch(PrefetchRequest)
    case verify(VerifyRequest)
    case pin(PinRequest)
    case collectGarbage(GarbageRequest)
    case limits(LimitsRequest)
    case doctor
    case peers
    case faults
    case events(EventsRequest)
    case spans(SpansRequest)
    case explain(ExplainRequest)
    case drain(DrainRequest)
    case recordTrace(TraceRequest)
    case endTrace(TraceRequest)
    case version

    /// Bytes of a request body.
    package static let maxBodyBytes = 64 << 10

    /// Finds the call for a method, path and body; `invalidRequest` or `notFound` otherwise.
    package init(method: String, path: String, body: [UInt8]) throws(ControlError) {
        switch (method, path) {
        case ("POST", "/v1/mounts"): self = .mount(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/umounts"): self = .umount(try Self.decode(body, \.apiVersion))
        case ("GET", "/v1/images"): self = .images
        case ("GET", "/v1/stat"): self = .stat
        case ("POST", "/v1/prefetch"): self = .prefetch(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/verify"): self = .verify(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/pins"): self = .pin(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/gc"): self = .collectGarbage(try Self.decode(body, \.apiVersion))
        case ("GET", "/v1/limits"): self = .limits(LimitsRequest())
        case ("POST", "/v1/limits"): self = .limits(try Self.decode(body, \.apiVersion))
        case ("GET", "/v1/doctor"): self = .doctor
        case ("GET", "/v1/peers"): self = .peers
        case ("GET", "/v1/faults"): self = .faults
        case ("GET", "/v1/events"): self = .events(EventsRequest())
        case ("POST", "/v1/events"): self = .events(try Self.decode(body, \.apiVersion))
        case ("GET", "/v1/spans"): self = .spans(SpansRequest())
        case ("POST", "/v1/spans"): self = .spans(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/explain"): self = .explain(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/drain"): self = .drain(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/traces"): self = .recordTrace(try Self.decode(body, \.apiVersion))
        case ("POST", "/v1/traces/end"): self = .endTrace(try Self.decode(body, \.apiVersion))
        case ("GET", "/v1/version"): self = .version
        default:
            throw ControlError(
                .notFound, "no route \(method.prefix(16)) \(path.prefix(64))",
                hint: "this chunkd speaks \(ControlVersion.current); is chunkctl of another version?")
        }
    }

    private static func decode<Request: Decodable>(
        _ body: [UInt8], _ apiVersion: KeyPath<Request, String?>
    ) throws(ControlError) -> Request {
        let request: Request = try ControlJSON.decode(from: body, what: "request")
        if let version = request[keyPath: apiVersion], version != ControlVersion.current {
            throw ControlError(
                .invalidRequest,
                "apiVersion: expected \(ControlVersion.current), found \(version.prefix(32))")
        }
        return request
    }

    /// A bounded name, for logs and metric labels.
    package var name: String {
        switch self {
        case .mount: "mount"
        case .umount: "umount"
        case .images: "images"
        case .stat: "stat"
        case .prefetch: "prefetch"
        case .verify: "verify"
        case .pin: "pin"
        case .collectGarbage: "gc"
        case .limits: "limits"
        case .doctor: "doctor"
        case .peers: "peers"
        case .faults: "faults"
        case .events: "events"
        case .spans: "spans"
        case .explain: "explain"
        case .drain: "drain"
        case .recordTrace: "trace"
        case .endTrace: "trace_end"
        case .version: "version"
        }
    }

    /// Whether the answer is NDJSON with progress, without a deadline.
    var isStreamed: Bool {
        switch self {
        case .prefetch, .verify, .drain, .recordTrace: true
        default: false
        }
    }

    /// Has the service do it. The bytes are the answer's body, or its last line.
    func perform(
        on service: any ControlService, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws(ControlError) -> [UInt8] {
        do {
            switch self {
            case .mount(let request): return try ControlJSON.encode(try await service.mount(request))
            case .umount(let request): return try ControlJSON.encode(try await service.umount(request))
            case .images: return try ControlJSON.encode(try await service.images())
            case .stat: return try ControlJSON.encode(try await service.stat())
            case .prefetch(let request):
                return try ControlJSON.encode(
                    StreamLine(result: try await service.prefetch(request, progress: progress)))
            case .verify(let request):
                return try ControlJSON.encode(StreamLine(result: try await service.verify(request, progress: progress)))
            case .pin(let request): return try ControlJSON.encode(try await service.pin(request))
            case .collectGarbage(let request):
                return try ControlJSON.encode(try await service.collectGarbage(request))
            case .limits(let request): return try ControlJSON.encode(try await service.limits(request))
            case .doctor: return try ControlJSON.encode(try await service.doctor())
            case .peers: return try ControlJSON.encode(try await service.peers())
            case .faults: return try ControlJSON.encode(try await service.faults())
            case .events(let request): return try ControlJSON.encode(try await service.events(request))
            case .spans(let request): return try ControlJSON.encode(try await service.spans(request))
            case .explain(let request): return try ControlJSON.encode(try await service.explain(request))
            case .drain(let request):
                return try ControlJSON.encode(StreamLine(result: try await service.drain(request, progress: progress)))
            case .recordTrace(let request):
                return try ControlJSON.encode(
                    StreamLine(result: try await service.recordTrace(request, progress: progress)))
            case .endTrace(let request): return try ControlJSON.encode(try await service.endTrace(request))
            case .version: return try ControlJSON.encode(try await service.version())
            }
        } catch let error as ControlError {
            throw error
        } catch is CancellationError {
            throw ControlError(.deadline, "\(name) was cancelled")
        } catch {
            throw ControlError(.internal, "\(name): \(error)")
        }
    }
}
