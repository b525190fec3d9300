import ChunkModel
import ControlAPI
import Foundation
import Synchronization

/// A service that answers from constants, fails when told to, and remembers what it was asked.
final class FakeService: ControlService {
    static let digest = Digest(hex: String(repeating: "ab", count: 32)) ?? never
    private static var never: Digest { fatalError("64 hexadecimal digits are a digest") }

    private let asked = Mutex<[String]>([])
    /// Signalled at each call of `mount`, and when the slow one is cancelled.
    private let mountCalled = DispatchSemaphore(value: 0)
    private let slowCancelled = DispatchSemaphore(value: 0)

    var calls: [String] { asked.withLock { $0 } }

    private func note(_ call: String) { asked.withLock { $0.append(call) } }

    /// Waits until `mount` has been called; false after 20 seconds.
    func mountWasCalled() async -> Bool { await signalled(mountCalled) }
    /// Waits until the slow mount has been cancelled; false after 20 seconds.
    func slowMountWasCancelled() async -> Bool { await signalled(slowCancelled) }

    private func signalled(_ semaphore: DispatchSemaphore) async -> Bool {
        await withCheckedContinuation { continuation in
            // Waiting blocks: not on the cooperative pool.
            Thread.detachNewThread {
                continuation.resume(returning: semaphore.wait(timeout: .now() + 20) == .success)
            }
        }
    }

    static let mountReply = MountReply(
        reference: "r.example/a:1", manifestDigest: digest, mountPath: "/var/lib/chunkd/gate/mounts/x",
        bootstrapBytes: 4096, rawBytes: 1 << 30, blobs: 1, chunks: 2048, residentChunks: 7, alreadyMounted: false,
        seconds: 0.125)

    static let stat: StatReply = {
        var stat = StatReply()
        stat.gateConnected = true
        stat.reads.bytesRead = .max
        stat.reads.missP99Seconds = 0.25
        stat.sources = [SourceStat(source: "registry/r.example", chunks: 3, bytes: 99, errors: 1, p50Seconds: 0.01)]
        stat.images = [
            ImageSummary(
                manifestDigest: digest, references: ["r.example/a:1"], mounted: true, tainted: false, pinned: false,
                quarantined: false, mountPath: "/m", bootstrapBytes: 1,
                blobs: [
                    BlobSummary(
                        digest: digest, rawBytes: 10, residentBytes: 5, chunks: 2, residentChunks: 1, graduated: false)
                ], lastUsedUnixSeconds: 1.5)
        ]
        stat.integrity.quarantined = [QuarantineStat(kind: "image", name: "a", reason: "mismatch")]
        stat.errors = [ReasonCount(reason: "timeout", count: 2)]
        return stat
    }()

    static let explained: ExplainReply = {
        var blob = ExplainedBlob(blob: digest, chunks: .max, residentChunks: 0, sharing: "public", chunk: 7)
        blob.segment = .max
        blob.holders = [ExplainedHolder(node: "b", zone: "", state: "partial", likelihood: 0.1, passedOver: "why")]
        blob.sources = [ExplainedSource("b", why: "has it")]
        return ExplainReply(subject: "r.example/a:1", kind: "image", blobs: [blob])
    }()

    func mount(_ request: MountRequest) async throws -> MountReply {
        note("mount \(request.reference) \(request.pinnedDigest?.short ?? "-")")
        mountCalled.signal()
        switch request.reference {
        case "missing": throw ControlError(.notFound, "no such image: missing", hint: "check the tag")
        case "defect": throw CocoaLikeError()
        case "slow":
            // A stream that never yields ends only when the task is cancelled.
            let (stream, continuation) = AsyncStream<Void>.makeStream()
            for await _ in stream {}
            continuation.finish()
            slowCancelled.signal()
            throw CancellationError()
        default: break
        }
        return Self.mountReply
    }

    func umount(_ request: UmountRequest) async throws -> UmountReply {
        note("umount")
        return UmountReply(manifestDigest: request.manifestDigest, released: true)
    }

    static let faults: FaultsReply = {
        var reader = BlockedReader(pid: .max, blockedSeconds: 1.5, chunk: .max, step: "fetching")
        reader.command = "odd \u{1} name"
        reader.blob = digest
        reader.asked = ["peer/b", "registry/r.example"]
        return FaultsReply(
            blocked: [reader, BlockedReader(pid: 0, blockedSeconds: 0, chunk: 0, step: "x")], isCut: true)
    }()

    static let event = NodeEvent(
        number: 7, unixSeconds: 1.5, kind: .peerQuarantined, subject: "b", detail: "wrong bytes", count: 3)

    func faults() async throws -> FaultsReply { Self.faults }

    func events(_ request: EventsRequest) async throws -> EventsReply {
        note("events \(request.after.map(String.init) ?? "all")")
        return EventsReply(events: [Self.event], last: 7, missed: 2)
    }

    func images() async throws -> ImagesReply { ImagesReply(images: Self.stat.images) }
    func stat() async throws -> StatReply { Self.stat }

    func prefetch(
        _ request: PrefetchRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> PrefetchReply {
        if request.reference == "missing" { throw ControlError(.notFound, "no such image: missing") }
        for done in 0...3 as ClosedRange<UInt64> {
            progress(
                ProgressReport(phase: "fetch", doneChunks: done, totalChunks: 3, doneBytes: done, totalBytes: 3))
        }
        if request.reference == "broken" {
            throw ControlError(.integrity, "chunk 7 has wrong bytes", hint: "tell them")
        }
        return PrefetchReply(
            reference: request.reference, manifestDigest: Self.digest, chunks: 3, filledChunks: 3, fetchedBytes: 3,
            seconds: 1)
    }

    func verify(
        _ request: VerifyRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> VerifyReply {
        let bad = (0..<2000).map { BadChunk(blob: Self.digest, chunk: $0, repaired: request.repair) }
        return VerifyReply(
            reference: request.reference, manifestDigest: Self.digest, checkedChunks: 2000, absentChunks: 0,
            badChunks: 2000, repairedChunks: request.repair ? 2000 : 0, bad: bad, seconds: 0.5)
    }

    func pin(_ request: PinRequest) async throws -> PinReply {
        PinReply(reference: request.reference, manifestDigest: Self.digest, pinned: request.pinned)
    }

    func collectGarbage(_ request: GarbageRequest) async throws -> GarbageReply {
        GarbageReply(
            dryRun: request.dryRun,
            removed: [GarbageItem(manifestDigest: Self.digest, references: [], freedBytes: 5)], freedBytes: 5)
    }

    func limits(_ request: LimitsRequest) async throws -> LimitsReply {
        note("limits" + (request.isEmpty ? "" : " changed"))
        var reply = LimitsReply()
        reply.uploadBytesPerSecond = 5
        reply.apply(request)
        return reply
    }

    func peers() async throws -> PeersReply {
        PeersReply(
            enabled: true, node: "a",
            peers: [PeerSummary(name: "b", state: "alive", zone: "z", address: "10.0.0.2:4710", version: "1")])
    }

    func spans(_ request: SpansRequest) async throws -> SpansReply {
        if let trace = request.trace, trace != Self.trace { return SpansReply(node: "a", version: "1.2.3", traces: []) }
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

    static let traceReply = TraceReply(
        reference: "a", manifestDigest: digest, trace: String(repeating: "0 17 3\n", count: 200_000), chunks: 3,
        bytes: .max,
        imageChunks: 5, residentBefore: 1, isFull: true, seconds: 0.5)

    func recordTrace(
        _ request: TraceRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> TraceReply {
        progress(.init(phase: "record", doneChunks: 1, totalChunks: 5, doneBytes: 1, totalBytes: 5))
        return Self.traceReply
    }

    func endTrace(_ request: TraceRequest) async throws -> TraceEndReply {
        note("end trace \(request.reference)")
        return TraceEndReply(ended: request.reference == "a")
    }

    func doctor() async throws -> DoctorReply {
        DoctorReply(checks: [DoctorCheck(name: "gate", status: .warn, found: "restarted", advice: "see its log")])
    }

    func version() async throws -> VersionReply {
        VersionReply(version: "1.2.3", gateProtocol: 1, gateConnected: true)
    }
}

struct CocoaLikeError: Error, CustomStringConvertible {
    var description: String { "something odd" }
}

extension FakeService {
    static let trace = TraceID(hex: String(repeating: "ab", count: 16))

    /// Every kind of value there is.
    static let spans: SpansReply = {
        guard let trace, let id = SpanID(hex: String(repeating: "1", count: 16)) else { fatalError("digits are an id") }
        let span = SpanRecord(
            spanId: id, parentSpanId: id, name: .ask, startUnixNanoseconds: 1_763_760_000_123_456_789,
            endUnixNanoseconds: .max, isError: true, result: "timeout", carrier: TraceContext(trace: trace, span: id),
            attributes: ["flag": .flag(true), "number": .number(-7), "text": .text("true")])
        return SpansReply(
            node: "a", version: "1", traces: [TraceRecord(traceId: trace, spans: [span], dropped: 2)], isCut: true)
    }()
}
