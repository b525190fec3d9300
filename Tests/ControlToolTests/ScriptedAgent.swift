import ChunkModel
import ControlAPI
import Foundation
import Logging
import NIOPosix
import Synchronization

/// A control server whose answers a test sets.
final class ScriptedAgent: ControlService {
    static let digest = Digest(hex: String(repeating: "cd", count: 32)) ?? never

    private static var never: Digest { fatalError("64 hexadecimal digits are a digest") }

    let directory: String
    let socket: String
    private let server = Mutex<ControlServer?>(nil)
    private let mountPath: String
    private let calls = Mutex<[String]>([])
    private let gap: Bool
    /// What runs on the image, so that it is not to be unmounted.
    private let containers: String?

    var asked: [String] { calls.withLock { $0 } }

    init(mountPath: String = "/nonexistent/mnt", integrityGap: Bool = false, containers: String? = nil) async throws {
        directory = "/tmp/chunkctl-agent-\(UUID().uuidString.prefix(8))"
        socket = directory + "/control.sock"
        self.mountPath = mountPath
        gap = integrityGap
        self.containers = containers
        let started = try await ControlServer.start(
            path: socket, group: MultiThreadedEventLoopGroup.singleton, service: self,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        server.withLock { $0 = started }
    }

    func end() async {
        await server.withLock { $0 }?.stop()
        try? FileManager.default.removeItem(atPath: directory)
    }

    private func note(_ call: String) { calls.withLock { $0.append(call) } }

    private var image: ImageSummary {
        ImageSummary(
            manifestDigest: Self.digest, references: ["r.example/a:1"], mounted: true, tainted: gap, pinned: false,
            quarantined: false, mountPath: mountPath, bootstrapBytes: 4096,
            blobs: [
                BlobSummary(
                    digest: Self.digest, rawBytes: 1 << 30, residentBytes: 256 << 20, chunks: 2000, residentChunks: 500,
                    graduated: false)
            ])
    }

    static let explained: ExplainReply = {
        var blob = ExplainedBlob(blob: digest, chunks: 2000, residentChunks: 500, sharing: "manifest", chunk: 7)
        blob.wireID = digest.hex
        blob.trackers = ["b", "c"]
        blob.interestedNodes = 2
        blob.chunkDigest = digest
        blob.chunkBytes = 1 << 19
        blob.segment = 1
        blob.holders = [
            ExplainedHolder(node: "b", zone: "z", state: "partial", likelihood: 0.75),
            ExplainedHolder(
                node: "c", zone: "", state: "complete", likelihood: 1, passedOver: "quarantined: wrong_bytes"),
        ]
        blob.sources = [ExplainedSource("b", why: "has it"), ExplainedSource("registry/r.example", why: "then")]
        return ExplainReply(subject: "r.example/a:1", kind: "image", blobs: [blob])
    }()

    func mount(_ request: MountRequest) async throws -> MountReply {
        note("mount \(request.reference)")
        if request.reference == "missing" { throw ControlError(.notFound, "no image missing", hint: "check the tag") }
        return MountReply(
            reference: request.reference, manifestDigest: Self.digest, mountPath: mountPath, bootstrapBytes: 4096,
            rawBytes: 1 << 30, blobs: 1, chunks: 2000, residentChunks: 500, alreadyMounted: false, seconds: 0.1)
    }

    func umount(_ request: UmountRequest) async throws -> UmountReply {
        if let containers {
            throw ControlError(.conflict, "containers run on the image: snapshot \(containers)", hint: "stop them")
        }
        if request.dryRun == true { return UmountReply(manifestDigest: request.manifestDigest, released: false) }
        note("umount \(request.manifestDigest.short)")
        return UmountReply(manifestDigest: request.manifestDigest, released: true)
    }

    func images() async throws -> ImagesReply { ImagesReply(images: [image]) }

    func stat() async throws -> StatReply {
        var stat = StatReply()
        stat.gateConnected = true
        stat.reads.bytesRead = 3 << 20
        stat.reads.misses = 7
        stat.bytesFetched = 2 << 20
        stat.sources = [SourceStat(source: "registry/r.example", chunks: 7, bytes: 2 << 20, errors: 0)]
        stat.images = [image]
        stat.integrity.integrityGap = gap
        return stat
    }

    func prefetch(
        _ request: PrefetchRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> PrefetchReply {
        progress(.init(phase: "fetch", doneChunks: 1, totalChunks: 4, doneBytes: 1 << 20, totalBytes: 4 << 20))
        return PrefetchReply(
            reference: request.reference, manifestDigest: Self.digest, chunks: 4, filledChunks: 3,
            fetchedBytes: 3 << 20, seconds: 2)
    }

    func verify(
        _ request: VerifyRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> VerifyReply {
        let bad = [BadChunk(blob: Self.digest, chunk: 17, repaired: request.repair)]
        return VerifyReply(
            reference: request.reference, manifestDigest: Self.digest, checkedChunks: 9, absentChunks: 1, badChunks: 1,
            repairedChunks: request.repair ? 1 : 0, bad: bad, seconds: 1)
    }

    func pin(_ request: PinRequest) async throws -> PinReply {
        PinReply(reference: request.reference, manifestDigest: Self.digest, pinned: request.pinned)
    }

    func collectGarbage(_ request: GarbageRequest) async throws -> GarbageReply {
        GarbageReply(
            dryRun: request.dryRun,
            removed: [GarbageItem(manifestDigest: Self.digest, references: ["r.example/old:1"], freedBytes: 5 << 20)],
            freedBytes: 5 << 20)
    }

    func limits(_ request: LimitsRequest) async throws -> LimitsReply {
        note(request.isEmpty ? "limits" : "limits changed")
        if request.uploadBytesPerSecond != nil { throw ControlError(.conflict, "no peers", hint: "certificates") }
        var reply = LimitsReply()
        reply.registryBytesPerSecond = 100 << 20
        reply.apply(request)
        return reply
    }

    func peers() async throws -> PeersReply {
        PeersReply(
            enabled: true, node: "a",
            peers: [PeerSummary(name: "b", state: "alive", zone: "z", address: "10.0.0.2:4710", version: "1")])
    }

    func faults() async throws -> FaultsReply {
        if gap { return FaultsReply(blocked: []) }
        var reader = BlockedReader(pid: 4711, blockedSeconds: 12.4, chunk: 17, step: "fetching")
        reader.command = "llama"
        reader.container = Self.digest.hex
        reader.image = "r.example/a:1"
        reader.blob = Self.digest
        reader.source = "registry/r.example"
        reader.sourceSeconds = 0.25
        reader.attempts = 3
        reader.asked = ["peer/b", "registry/r.example"]
        return FaultsReply(
            blocked: [reader, BlockedReader(pid: 0, blockedSeconds: 0.1, chunk: 18, step: "describing")], isCut: true)
    }

    /// One more event at each call, four at most: then the agent has gone.
    func events(_ request: EventsRequest) async throws -> EventsReply {
        note("events \(request.after.map(String.init) ?? "all")")
        let all: [NodeEvent] = [
            NodeEvent(number: 1, unixSeconds: 1_763_760_000.9, kind: .mounted, subject: "r.example/a:1", detail: ""),
            NodeEvent(
                number: 2, unixSeconds: 1_763_760_001, kind: .peerQuarantined, subject: "b", detail: "wrong bytes",
                count: 3),
            NodeEvent(number: 3, unixSeconds: 1_763_760_002, kind: .peerLeft, subject: "c", detail: ""),
        ]
        let after = request.after ?? 0
        if after == 3 { throw ControlError(.agentAway, "chunkd has gone") }
        let upTo = after == 0 ? 2 : after + 1
        return EventsReply(events: all.filter { $0.number > after && $0.number <= upTo }, last: upTo)
    }

    func spans(_ request: SpansRequest) async throws -> SpansReply {
        if let wanted = request.trace, wanted != Self.missTrace {
            return SpansReply(node: "a", version: "1.2.3", traces: [])
        }
        return Self.spans
    }

    func explain(_ request: ExplainRequest) async throws -> ExplainReply {
        if request.subject == "missing" { throw ControlError(.notFound, "missing is nothing on this node") }
        return Self.explained
    }

    func drain(
        _ request: DrainRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> DrainReply {
        progress(.init(phase: "drain", doneChunks: 1, totalChunks: 4, doneBytes: 1, totalBytes: 4))
        return DrainReply(
            images: 1, filledChunks: 3, missingChunks: request.hydrate ? 1 : 0, announced: true, seconds: 0.5)
    }

    /// Until it is ended.
    private let traceEnds = AsyncStream.makeStream(of: Void.self)
    static let trace = "chunkd-trace 1.0\n"

    func recordTrace(
        _ request: TraceRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> TraceReply {
        note("trace \(request.reference)")
        if request.reference.contains("complete") {
            throw ControlError(.conflict, "all 5 chunks are here already", hint: "run chunkctl gc")
        }
        progress(.init(phase: "record", doneChunks: 0, totalChunks: 2000, doneBytes: 0, totalBytes: 1 << 30))
        for await _ in traceEnds.stream { break }
        try Task.checkCancellation()
        return TraceReply(
            reference: request.reference, manifestDigest: Self.digest, trace: Self.trace, chunks: 130, bytes: 64 << 20,
            imageChunks: 2000, residentBefore: 7, isFull: false, seconds: 1.5)
    }

    func endTrace(_ request: TraceRequest) async throws -> TraceEndReply {
        note("end \(request.reference)")
        traceEnds.continuation.yield()
        return TraceEndReply(ended: true)
    }

    func doctor() async throws -> DoctorReply {
        DoctorReply(checks: [
            DoctorCheck(name: "registry r.example", status: .fail, found: "no route", advice: "check the network")
        ])
    }

    func version() async throws -> VersionReply {
        VersionReply(version: "0.1.0", gateProtocol: 1, gateConnected: true)
    }
}

/// A miss of node a, for whom node b was asked and did not have the chunk.
extension ScriptedAgent {
    static let missTrace = TraceID(hex: String(repeating: "ab", count: 16)) ?? never(TraceID.self)

    private static func never<Value>(_: Value.Type) -> Value { fatalError("hexadecimal digits are an id") }
    private static func id(_ digit: String) -> SpanID {
        SpanID(hex: String(repeating: digit, count: 16)) ?? never(SpanID.self)
    }

    static let spans: SpansReply = {
        let start: Int64 = 1_763_760_000_123_000_000
        func at(_ milliseconds: Int64) -> Int64 { start + milliseconds * 1_000_000 }
        return SpansReply(
            node: "a", version: "1.2.3",
            traces: [
                TraceRecord(
                    traceId: missTrace,
                    spans: [
                        SpanRecord(
                            spanId: id("2"), parentSpanId: id("1"), name: .ask, startUnixNanoseconds: at(1),
                            endUnixNanoseconds: at(3), isError: false, result: "absent",
                            attributes: ["chunkd.source": .text("peer/b"), "chunkd.chunks": .number(1)]),
                        SpanRecord(
                            spanId: id("3"), parentSpanId: id("1"), name: .ask, startUnixNanoseconds: at(4),
                            endUnixNanoseconds: at(1604), isError: true, result: "timeout",
                            carrier: TraceContext(trace: missTrace, span: id("2")),
                            attributes: [
                                "chunkd.source": .text("registry/r.example"), "chunkd.chunks": .number(4),
                                "chunkd.hedge": .flag(true),
                            ]),
                        SpanRecord(
                            spanId: id("1"), parentSpanId: nil, name: .miss, startUnixNanoseconds: at(0),
                            endUnixNanoseconds: at(2000), isError: true, result: "deadline",
                            attributes: ["chunkd.chunk": .number(7), "chunkd.image.repository": .text("r.example/a")]),
                    ], dropped: 2)
            ])
    }()
}
