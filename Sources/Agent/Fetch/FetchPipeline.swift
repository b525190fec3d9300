import Catalogue
import ChunkModel
import ChunkResolution
import LinuxSystem
import Logging
import OCISpec
import RegistryClient
import Synchronization

/// Brings chunks to the gate: the shell around `FetchScheduler`. One thread owns all state and takes one input after
/// the other; bytes never pass through it.
///
/// Thread-safe: everything is a message to that thread.
package final class FetchPipeline: Sendable {
    /// What the thread is told.
    enum Input: Sendable {
        case gateUp(GateConnection)
        case gateDown
        case gate(connection: UInt64, GateProtocol.Event)
        /// The image's blobs as this connection has them. Without a description misses of a blob wait for one.
        case attach(connection: UInt64, [BlobAttachment])
        case describe(BlobKey, BlobDescription)
        /// Nobody can say how to fetch these: their readers are told at once.
        case refuse([BlobKey])
        case detach([BlobKey])
        case located([(ChunkKey, [ChunkPlace])])
        case rangeEnded(id: UInt64, delivered: Int, RangeEnd)
        case undecodable(ChunkKey)
        case roomMade(Bool)
        /// Other limits of what is fetched, from now on.
        case rates(DownloadLimits)
        case startBulk(BulkRequest)
        case stopBulk(UInt64)
        /// Note the first accesses of these blobs' chunks; nothing of them is fetched ahead meanwhile.
        case startRecording(UInt64, [BlobKey])
        case recorded(UInt64, @Sendable (Recorded) -> Void)
        case endRecording(UInt64)
        /// Another node waits for these chunks, maybe within a trace.
        case relay(BlobKey, [Int], TraceContext?)
        /// Another node waits, within a trace, for a chunk that may be on its way.
        case follow(BlobKey, Int, TraceContext)
        case repair(BlobKey, [Int], @Sendable (_ repaired: Set<Int>) -> Void)
        case query(@Sendable (Snapshot) -> Void)
        case handle(BlobKey, @Sendable (UInt32?) -> Void)
        case waits([GateProtocol.ChunkAddress], @Sendable ([GateProtocol.ChunkAddress: ChunkWait]) -> Void)
        case stop
    }

    /// A `BulkJob` to be.
    struct BulkRequest: Sendable {
        let id: UInt64
        let kind: BulkJob.Kind
        let spans: [Span]
        let delay: Duration
        var progress: (@Sendable (BulkJob.Outcome) -> Void)?
        var completion: (@Sendable (BulkJob.Outcome) -> Void)?
    }

    /// Chunks of one blob; nil is all of them.
    struct Span: Sendable {
        let blob: BlobKey
        let chunks: Range<Int>?

        init(_ blob: BlobKey, _ chunks: Range<Int>? = nil) {
            self.blob = blob
            self.chunks = chunks
        }
    }

    /// What a recording has so far.
    struct Recorded: Sendable {
        /// In order of first access; the number of the blob is that in `startRecording`.
        var runs: [AccessTrace.Run] = []
        var chunks = 0
        /// Raw bytes of the chunks.
        var bytes: UInt64 = 0
        /// There was more than a trace may hold.
        var isFull = false
    }

    /// What the engine says of itself.
    struct Snapshot: Sendable {
        var quarantined: [BlobKey] = []
        var pendingDemand = 0
        var pendingSpeculative = 0
        /// Blobs somebody read since the last snapshot.
        var used: [BlobKey] = []
    }

    /// What the engine works with.
    struct Parts: Sendable {
        let registry: RegistryClient
        let catalogue: Catalogue
        let metrics: AgentMetrics
        let logger: Logger
        let arena: Arena
        let slots: Slots
        let decoders: DecodePool
        let limits: FetchLimits
        let readAhead: ReadAheadDetector.Limits?
        let hydrationRate: UInt64?
        /// Evicts something unmounted; true when room was made.
        let makeRoom: @Sendable () async -> Bool
        /// Nil when this node has no peers.
        var peers: (any PeerFetcher)?
        let spans: SpanRecorder
    }

    private let inbox = Monitor(Inbox())
    private let nextBulk = Atomic<UInt64>(1)

    struct Inbox {
        var inputs: [Input] = []
        var isStopped = false
    }

    init() {}

    /// Starts the thread.
    func start(_ parts: Parts) throws(SystemError) {
        try Thread.start("fetch", stackSize: 512 << 10) { [self] in
            FetchEngine(parts, post: { [weak self] in self?.post($0) }).run(inbox)
        }
    }

    /// Sends a message. Never blocks.
    func post(_ input: Input) {
        inbox.update { inbox in
            if inbox.isStopped { return }
            inbox.inputs.append(input)
            if case .stop = input { inbox.isStopped = true }
        }
    }

    func snapshot() async -> Snapshot {
        await withCheckedContinuation { continuation in
            let isAccepted = inbox.update { inbox in
                if !inbox.isStopped { inbox.inputs.append(.query { continuation.resume(returning: $0) }) }
                return !inbox.isStopped
            }
            if !isAccepted { continuation.resume(returning: Snapshot()) }
        }
    }

    /// The gate's handle of a blob on the connection of this moment.
    func handle(of blob: BlobKey) async -> UInt32? {
        await withCheckedContinuation { continuation in
            let isAccepted = inbox.update { inbox in
                if !inbox.isStopped { inbox.inputs.append(.handle(blob) { continuation.resume(returning: $0) }) }
                return !inbox.isStopped
            }
            if !isAccepted { continuation.resume(returning: nil) }
        }
    }

    /// What is being done for chunks that readers wait for, by the gate's addresses of this moment.
    func waits(for addresses: [GateProtocol.ChunkAddress]) async -> [GateProtocol.ChunkAddress: ChunkWait] {
        await withCheckedContinuation { continuation in
            let isAccepted = inbox.update { inbox in
                if !inbox.isStopped { inbox.inputs.append(.waits(addresses) { continuation.resume(returning: $0) }) }
                return !inbox.isStopped
            }
            if !isAccepted { continuation.resume(returning: [:]) }
        }
    }

    /// Keeps fetching what the blobs lack at the hydration's rate, from `delay` on, until `stopBulk`.
    func hydrate(_ blobs: [BlobKey], after delay: Duration) -> UInt64 {
        let id = nextBulk.wrappingAdd(1, ordering: .relaxed).oldValue
        post(.startBulk(BulkRequest(id: id, kind: .hydration, spans: blobs.map { Span($0) }, delay: delay)))
        return id
    }

    /// Fetches what the blobs lack; returns when everything was tried. Cancelling stops asking for more.
    func prefetch(
        _ blobs: [BlobKey], progress: @escaping @Sendable (BulkJob.Outcome) -> Void
    ) async -> BulkJob.Outcome {
        await run(.prefetch, blobs.map { Span($0) }, progress: progress)
    }

    /// Fetches what is absent of these chunks, in order, beside their readers; returns and is cancelled as `prefetch`.
    func replay(_ spans: [Span]) async -> BulkJob.Outcome { await run(.replay, spans) }

    private func run(
        _ kind: BulkJob.Kind, _ spans: [Span], progress: (@Sendable (BulkJob.Outcome) -> Void)? = nil
    ) async -> BulkJob.Outcome {
        let id = nextBulk.wrappingAdd(1, ordering: .relaxed).oldValue
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let request = BulkRequest(
                    id: id, kind: kind, spans: spans, delay: .zero, progress: progress,
                    completion: { continuation.resume(returning: $0) })
                let isAccepted = inbox.update { inbox in
                    if !inbox.isStopped { inbox.inputs.append(.startBulk(request)) }
                    return !inbox.isStopped
                }
                if !isAccepted { continuation.resume(returning: BulkJob.Outcome()) }
                // The handler below may have run before the job was there to be stopped.
                if Task.isCancelled { post(.stopBulk(id)) }
            }
        } onCancel: {
            post(.stopBulk(id))
        }
    }

    /// Notes the order in which chunks of these blobs are first accessed, until `endRecording`.
    func record(_ blobs: [BlobKey]) -> UInt64 {
        let id = nextBulk.wrappingAdd(1, ordering: .relaxed).oldValue
        post(.startRecording(id, blobs))
        return id
    }

    /// What a recording has so far.
    func recorded(_ id: UInt64) async -> Recorded {
        await withCheckedContinuation { continuation in
            let isAccepted = inbox.update { inbox in
                if !inbox.isStopped { inbox.inputs.append(.recorded(id) { continuation.resume(returning: $0) }) }
                return !inbox.isStopped
            }
            if !isAccepted { continuation.resume(returning: Recorded()) }
        }
    }

    /// Fetches chunks that are on disk with wrong bytes; returns those that are right now.
    func repair(_ blob: BlobKey, _ chunks: [Int]) async -> Set<Int> {
        await withCheckedContinuation { continuation in
            let isAccepted = inbox.update { inbox in
                guard !inbox.isStopped else { return false }
                inbox.inputs.append(.repair(blob, chunks) { continuation.resume(returning: $0) })
                return true
            }
            if !isAccepted { continuation.resume(returning: []) }
        }
    }
}
