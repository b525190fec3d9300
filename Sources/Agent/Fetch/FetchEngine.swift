import Catalogue
import ChunkModel
import ChunkResolution
import Telemetry
import LinuxSystem
import OCISpec
import Logging

/// The state behind `FetchPipeline`, and its thread. Not thread-safe: `run` is the only user.
final class FetchEngine {
    let parts: FetchPipeline.Parts
    let post: @Sendable (FetchPipeline.Input) -> Void
    let start = Monotonic.now
    var scheduler: FetchScheduler
    var book = BlobBook()
    var gate: GateConnection?
    var pacer: HydrationPacer
    var jobs: [BulkJob] = []
    var repairs: [Repair] = []
    /// Recordings of first accesses, by their number.
    var recordings: [UInt64: (blobs: [BlobID], recorder: AccessRecorder)] = [:]
    /// Misses of handles nobody has described yet: an image's first read may overtake the reply that names it.
    var orphans: [UInt32: [Int]] = [:]
    var orphanCount = 0
    /// Running ranges, to cancel them.
    var ranges: [UInt64: (range: RangeFetch, task: Task<Void, Never>)] = [:]
    /// When readers' misses came.
    var missTimes: [ChunkKey: Duration] = [:]
    var spans = SpanTracker(seed: SpanRecorder.seed())
    /// Chunks to be looked up in the catalogue, collected over one turn.
    var toLocate: [ChunkKey] = []
    /// When the arena was last in use; nil once its pages are given back.
    var arenaUsed: Duration?
    var isMakingRoom = false

    /// Chunks being repaired for one caller.
    struct Repair {
        let blob: BlobID
        var outstanding: Set<Int>
        var repaired: Set<Int> = []
        let completion: @Sendable (Set<Int>) -> Void
    }

    /// Misses kept for handles not yet attached.
    static let maxOrphans = 65_536
    /// The arena's pages are given back after this long without a fetch.
    static let arenaRest = Duration.seconds(2)
    /// A hydration that could not get everything tries again after this long.
    static let hydrationPause = Duration.seconds(30)
    /// How often waiting bulk jobs are looked at.
    static let bulkInterval = Duration.milliseconds(20)

    init(_ parts: FetchPipeline.Parts, post: @escaping @Sendable (FetchPipeline.Input) -> Void) {
        self.parts = parts
        self.post = post
        scheduler = FetchScheduler(limits: parts.limits, seed: Monotonic.now.nanoseconds)
        pacer = HydrationPacer(bytesPerSecond: parts.hydrationRate, largestChunk: Limits.maxChunkSize)
    }

    /// Time since the engine's start, monotonic.
    var now: Duration { .nanoseconds(Int64(Monotonic.now.nanoseconds - start.nanoseconds)) }

    func run(_ inbox: Monitor<FetchPipeline.Inbox>) {
        while true {
            let deadline = nextWake().map { wake in
                Monotonic(nanoseconds: start.nanoseconds + UInt64(max(0, wake / .nanoseconds(1))))
            }
            let inputs: [FetchPipeline.Input] =
                inbox.wait(until: deadline) { inbox in
                    guard !inbox.inputs.isEmpty else { return nil }
                    defer { inbox.inputs = [] }
                    return inbox.inputs
                } ?? []
            for input in inputs {
                if case .stop = input { return end() }
                handle(input)
            }
            if let timed = scheduler.nextDeadline, timed <= now { perform(.tick) }
            flushLocates()
            runBulk()
            restArena()
        }
    }

    /// The next moment something is due without a message; nil is never.
    private func nextWake() -> Duration? {
        var wake = scheduler.nextDeadline
        if let used = arenaUsed { wake = min(wake ?? .seconds(1 << 30), used + Self.arenaRest) }
        for job in jobs where !job.isAtEnd && gate != nil {
            wake = min(wake ?? .seconds(1 << 30), max(job.notBefore, now + Self.bulkInterval))
        }
        return wake
    }

    private func restArena() {
        // Ranges take slots while they run only, and the scheduler starts them: idle stays idle until the next turn.
        if !scheduler.isIdle || !parts.slots.isIdle {
            arenaUsed = now
        } else if let used = arenaUsed, now - used >= Self.arenaRest {
            parts.arena.release()
            arenaUsed = nil
        }
        parts.slots.setDemandPending(scheduler.pendingDemand > 0)
        parts.metrics.pending["demand"].set(scheduler.pendingDemand)
        parts.metrics.pending["speculative"].set(scheduler.pendingSpeculative)
    }

    // MARK: - Inputs

    private func handle(_ input: FetchPipeline.Input) {
        switch input {
        case .gateUp(let connection): gate = connection
        case .gateDown: noteGateDown()
        case .gate(let number, let event): if number == gate?.number { noteGate(event) }
        case .attach(let number, let attachments): if number == gate?.number { attach(attachments) }
        case .describe(let key, let description): describe(key, description)
        case .refuse(let keys): for key in keys { refuse(key) }
        case .detach(let keys): for key in keys { detach(key) }
        case .located(let answers): noteLocated(answers)
        case .rangeEnded(let id, let delivered, let end):
            ranges[id] = nil
            spans.ended(
                range: id, delivered: delivered, result: end.word, isError: end.isError, now: SpanRecorder.now)
            perform(.rangeEnded(id: id, delivered: delivered, failure: end.failure))
        case .undecodable(let key):
            spans.spoiled(key, now: SpanRecorder.now)
            perform(.undecodable(key))
        case .roomMade(let made):
            isMakingRoom = false
            perform(.roomMade(made))
        case .rates(let limits):
            scheduler.setRates(limits)
            perform(.tick)
        case .startBulk(let request): startBulk(request)
        case .stopBulk(let id): stopBulk(id)
        case .startRecording(let id, let keys): startRecording(id, keys)
        case .recorded(let id, let answer): answer(recorded(id))
        case .endRecording(let id): recordings[id] = nil
        case .relay(let key, let chunks, let asker): relay(key, chunks, within: asker)
        case .follow(let key, let chunk, let asker): follow(key, chunk, within: asker)
        case .repair(let key, let chunks, let completion): repair(key, chunks, completion)
        case .query(let answer): answer(snapshot())
        case .waits(let addresses, let answer): answer(waits(for: addresses))
        case .handle(let key, let answer): answer(book.existing(key).flatMap { book[$0].handle })
        case .stop: break
        }
    }

    private func noteGateDown() {
        if let gate { parts.slots.reclaim(connection: gate.number) }
        gate = nil
        orphans = [:]
        orphanCount = 0
        toLocate = []
        missTimes = [:]
        record(spans.endAll(result: "gate_lost", now: SpanRecorder.now))
        perform(.gateLost)
        book.detachAll()
        for number in jobs.indices { jobs[number].restart(at: now) }
    }

    private func noteGate(_ event: GateProtocol.Event) {
        switch event {
        case .miss(let at): noteMiss(at.blob, Int(at.chunk))
        case .touched(let list):
            for at in list {
                guard let id = book.id(ofHandle: at.blob) else { continue }
                book[id].isUsed = true
                noteAccess(ChunkKey(id, Int(at.chunk)))
                readAhead(id, Int(at.chunk))
            }
        case .filled(let at, let slot, let status, let errno):
            let given = gate.flatMap { parts.slots.giveBack(slot, connection: $0.number) }
            guard let id = book.id(ofHandle: at.blob) else { return }
            if status == .resident { book[id].setResident(Int(at.chunk)) }
            noteFillSpan(ChunkKey(id, Int(at.chunk)), status, from: given)
            perform(.filled(ChunkKey(id, Int(at.chunk)), status, errno: errno, from: given?.source))
        case .residencyBits(let handle, _, let bits): noteLoss(handle, bits)
        case .helloReply, .reply, .image, .end, .counters, .verified, .snapshotUsage, .snapshots, .blocked: break
        }
    }

    /// The gate could not sync what it had: these are the chunks that are left.
    private func noteLoss(_ handle: UInt32, _ bits: [UInt8]) {
        guard let id = book.id(ofHandle: handle) else { return }
        book[id].residency = bits
        parts.peers?.attached(book[id].key, handle: handle, residency: bits)
        for number in jobs.indices
        where jobs[number].kind == .hydration && jobs[number].spans.contains(where: { $0.blob == id }) {
            jobs[number].restart(at: now + Self.hydrationPause)
        }
    }

    private func noteMiss(_ handle: UInt32, _ chunk: Int) {
        guard let id = book.id(ofHandle: handle) else {
            guard orphanCount < Self.maxOrphans else {
                gate?.send(.fail(at: .init(blob: handle, chunk: UInt32(chunk)), errno: FetchEngine.ioError))
                return
            }
            orphans[handle, default: []].append(chunk)
            orphanCount += 1
            return
        }
        book[id].isUsed = true
        noteAccess(ChunkKey(id, chunk))
        let entry = book[id]
        if entry.isRefused { return fail(ChunkKey(id, chunk), errno: Self.ioError, .unknownBlob) }
        guard entry.description != nil else {
            book[id].waiting.append(chunk)
            return
        }
        let key = ChunkKey(id, chunk)
        if missTimes[key] == nil {
            missTimes[key] = now
            follow(key)
        }
        perform(.miss(key))
        readAhead(id, chunk)
    }

    static let ioError: UInt32 = 5  // EIO

    /// A first access: what its reader will want next is asked for.
    private func readAhead(_ id: BlobID, _ chunk: Int) {
        guard let limits = parts.readAhead, book[id].description != nil, !isRecorded(id), !book[id].isTraced(chunk)
        else { return }
        if book[id].detector == nil {
            book[id].detector = ReadAheadDetector(
                chunkCount: book[id].chunkCount, rawSize: book[id].rawSize, limits: limits)
        }
        guard let wanted = book[id].detector?.access(chunk), !wanted.isEmpty else { return }
        let keys = wanted.map { ChunkKey(id, $0) }.filter { !book[id].isResident($0.chunk) && !scheduler.isPending($0) }
        guard !keys.isEmpty else { return }
        parts.metrics.readAheadChunks.increment(by: UInt64(keys.count))
        perform(.want(keys, .readAhead, repair: false))
    }

    // MARK: - Blobs

    private func attach(_ attachments: [BlobAttachment]) {
        for attachment in attachments {
            let id = book.attach(attachment)
            parts.peers?.attached(attachment.key, handle: attachment.handle, residency: book[id].residency)
            replay(orphansOf: attachment.handle, id)
        }
        flushLocates()
    }

    private func replay(orphansOf handle: UInt32, _ id: BlobID) {
        guard let chunks = orphans.removeValue(forKey: handle) else { return }
        orphanCount -= chunks.count
        for chunk in chunks { noteMiss(handle, chunk) }
    }

    private func describe(_ key: BlobKey, _ description: BlobDescription) {
        let id = book.id(of: key)
        book[id].description = description
        book[id].isRefused = false
        scheduler.register(id, description.layout)
        let waiting = book[id].waiting
        book[id].waiting = []
        guard let handle = book[id].handle else { return }
        for chunk in waiting { noteMiss(handle, chunk) }
    }

    private func refuse(_ key: BlobKey) {
        let id = book.id(of: key)
        guard book[id].description == nil else { return }
        book[id].isRefused = true
        let waiting = book[id].waiting
        book[id].waiting = []
        for chunk in waiting { fail(ChunkKey(id, chunk), errno: Self.ioError, .unknownBlob) }
    }

    private func detach(_ key: BlobKey) {
        guard let id = book.existing(key) else { return }
        perform(.forget(id))
        book.detach(id)
    }

    private func snapshot() -> FetchPipeline.Snapshot {
        var used: [BlobKey] = []
        for id in book.ids where book[id].isUsed {
            used.append(book[id].key)
            book[id].isUsed = false
        }
        return FetchPipeline.Snapshot(
            quarantined: scheduler.quarantined.filter { book.contains($0) }.map { book[$0].key },
            pendingDemand: scheduler.pendingDemand, pendingSpeculative: scheduler.pendingSpeculative, used: used)
    }

    private func end() {
        for running in ranges.values { running.task.cancel() }
        for job in jobs { job.completion?(job.outcome) }
        for repair in repairs { repair.completion(repair.repaired) }
    }
}
