package import ChunkModel

/// Decides what is fetched when: single flight a chunk, readers before everything else, neighbours in one range.
///
/// A value that does no I/O and asks no clock: events go in with the time, directives come out, and the shell
/// performs them in order. Times are durations since any fixed moment of a monotonic clock. One user at a time.
///
/// A chunk lives in `states` from the first wish to its end (`settled`):
/// `locating → queued ⇄ waiting → copying | fetching → gone`, and `following` while another chunk of the same digest
/// is on its way, so that shared content is fetched once even when two images ask in the same instant.
package struct FetchScheduler {
    /// What happened.
    package enum Event: Equatable, Sendable {
        /// The gate holds a reader for this chunk.
        case miss(ChunkKey)
        /// Wanted, nobody waits. `repair`: it is on disk, wrongly.
        case want([ChunkKey], FetchRank, repair: Bool)
        /// Answers to `locate`. Chunks wanted together are best located together: only then do they travel together.
        case located([LocatedChunk])
        /// A range is over; its first `delivered` chunks were handed to the gate (or reported `undecodable`).
        case rangeEnded(id: UInt64, delivered: Int, failure: FetchFailure?)
        /// The stored bytes of this chunk, which was being fetched, are damaged.
        case undecodable(ChunkKey)
        /// The gate's verdict on a fill or a copy.
        case filled(ChunkKey, GateProtocol.FillStatus, errno: UInt32)
        /// The gate went away: everything asked of it is void. It will send its misses again.
        case gateLost
        /// Nobody needs these blobs any more.
        case forget(BlobID)
        /// The room asked for by `makeRoom` was made, or could not be.
        case roomMade(Bool)
        /// `nextDeadline` has come.
        case tick
    }

    /// What to do.
    package enum Directive: Equatable, Sendable {
        /// Say where the chunk may come from.
        case locate(ChunkKey)
        case copy(to: ChunkKey, from: ChunkKey)
        case fetch(RangePlan)
        /// End this range early; it still reports `rangeEnded`.
        case cancel(range: UInt64)
        /// A reader waits for this range now, which was begun for nobody.
        case hasten(range: UInt64)
        /// Readers of this chunk get this errno.
        case fail(ChunkKey, errno: UInt32, FailureReason)
        /// The chunk has left the scheduler. `resident` is false when it could not be had.
        case settled(ChunkKey, FetchRank, resident: Bool, source: FetchSource?)
        /// Wrong bytes from a source, twice for a registry: said once a chunk.
        case quarantined(ChunkKey, FetchSource)
        /// The blob's source is trusted again.
        case released(BlobID)
        /// The disk is full: evict something unmounted, then say `roomMade`.
        case makeRoom
    }

    /// Why a chunk could not be had; the raw value is a metric label.
    package enum FailureReason: String, CaseIterable, Sendable {
        case deadline
        case noSource = "no_source"
        case refused
        case attempts
        case mismatch
        case quarantined
        case write
        case noSpace = "no_space"
        case overload
        case unknownBlob = "unknown_blob"
    }

    enum Phase: Equatable {
        case locating
        case queued
        case waiting
        case following(ChunkKey)
        case copying
        case fetching(range: UInt64)
        case makingRoom
    }

    struct State {
        var rank: FetchRank
        var phase = Phase.locating
        var repair: Bool
        /// What is left to try; the first is current.
        var sources: [FetchSource] = []
        var attempts = 0
        /// The next fetch asks past caches, because the last bytes did not match.
        var bypassCaches = false
        /// Room was made for it once.
        var retriedWrite = false
        /// Tells entries of queues and timers that belong to an earlier turn of this chunk.
        var serial: UInt64
        var errno: UInt32 = FetchScheduler.inputOutputError
    }

    enum Timer {
        case retry(ChunkKey, serial: UInt64)
        case deadline(ChunkKey, serial: UInt64)
    }

    struct Range {
        var blob: BlobID
        var chunks: Swift.Range<Int>
        var rank: FetchRank
    }

    static let inputOutputError: UInt32 = 5  // EIO
    static let noSpaceError: UInt32 = 28  // ENOSPC
    static let quotaError: UInt32 = 122  // EDQUOT

    package let limits: FetchLimits
    var layouts: [BlobID: BlobLayout] = [:]
    var states: [ChunkKey: State] = [:]
    /// One a rank, first in first out; an entry whose serial is not the state's is skipped.
    var queues: [[(key: ChunkKey, serial: UInt64)]] = [[], [], []]
    var queueHeads = [0, 0, 0]
    var timers = TimerQueue<Timer>()
    var ranges: [UInt64: Range] = [:]
    /// The chunk on its way for each digest, and who waits to copy from it, in order.
    var leaders: [Digest: ChunkKey] = [:]
    var followers: [ChunkKey: [ChunkKey]] = [:]
    var quarantines: [BlobID: Quarantine] = [:]
    var copiesInFlight = 0
    var nextRange: UInt64 = 1
    var nextSerial: UInt64 = 1
    var waitingForRoom: [ChunkKey] = []
    var counts = [0, 0, 0]
    var random: UInt64
    var out: [Directive] = []

    /// `seed` drives the jitter of back-offs and nothing else.
    package init(limits: FetchLimits = FetchLimits(), seed: UInt64 = 1) {
        self.limits = limits
        random = seed | 1
    }

    /// Makes a blob known, or replaces its layout. Events about unknown blobs fail.
    package mutating func register(_ blob: BlobID, _ layout: BlobLayout) { layouts[blob] = layout }

    package func isRegistered(_ blob: BlobID) -> Bool { layouts[blob] != nil }

    /// Readers' chunks that are not settled: hydration rests while there are any.
    package var pendingDemand: Int { counts[FetchRank.demand.rawValue] }
    /// Chunks nobody waits for that are not settled.
    package var pendingSpeculative: Int { counts[1] + counts[2] }
    package var pendingBackground: Int { counts[FetchRank.background.rawValue] }
    package var rangesInFlight: Int { ranges.count }
    /// Nothing is wanted and nothing is on its way.
    package var isIdle: Bool { states.isEmpty && ranges.isEmpty }
    /// Blobs whose source has sent wrong bytes that were not put right since, ascending.
    package var quarantined: [BlobID] { quarantines.keys.sorted() }
    /// Whether the chunk is wanted or on its way already.
    package func isPending(_ key: ChunkKey) -> Bool { states[key] != nil }

    /// When to send `tick`, at the latest; nil when nothing is timed.
    package var nextDeadline: Duration? { timers.next }

    /// Takes one event, returns what to do, in order.
    package mutating func handle(_ event: Event, now: Duration) -> [Directive] {
        out.removeAll(keepingCapacity: true)
        switch event {
        case .miss(let key): noteMiss(key, now)
        case .want(let keys, let rank, let repair):
            for key in keys { noteWanted(key, max(rank, .readAhead), repair: repair, now) }
        case .located(let list): for located in list { noteLocated(located.key, located.sources, now) }
        case .rangeEnded(let id, let delivered, let failure): noteRangeEnded(id, delivered, failure, now)
        case .undecodable(let key): noteMismatch(key, now)
        case .filled(let key, let status, let errno): noteFilled(key, status, errno, now)
        case .gateLost: dropEverything()
        case .forget(let blob): forget(blob)
        case .roomMade(let made): noteRoom(made, now)
        case .tick: break
        }
        runTimers(now)
        dispatch(now)
        return out
    }

    // MARK: - Wishes

    private mutating func noteMiss(_ key: ChunkKey, _ now: Duration) {
        if let state = states[key] {
            promote(key, state, to: .demand, now)
            return
        }
        guard let layout = layouts[key.blob], layout.index.count > key.chunk else {
            out.append(.fail(key, errno: Self.inputOutputError, .unknownBlob))
            return
        }
        guard counts[0] < limits.demandChunks else {
            out.append(.fail(key, errno: Self.inputOutputError, .overload))
            return
        }
        add(key, .demand, repair: false, layout, now)
    }

    private mutating func noteWanted(_ key: ChunkKey, _ rank: FetchRank, repair: Bool, _ now: Duration) {
        if let state = states[key] {
            states[key]?.repair = state.repair || repair
            promote(key, state, to: rank, now)
            return
        }
        guard let layout = layouts[key.blob], layout.index.count > key.chunk,
            pendingSpeculative < limits.speculativeChunks
        else {
            out.append(.settled(key, rank, resident: false, source: nil))
            return
        }
        add(key, rank, repair: repair, layout, now)
    }

    private mutating func add(
        _ key: ChunkKey, _ rank: FetchRank, repair: Bool, _ layout: BlobLayout, _ now: Duration
    ) {
        let digest = layout.index[key.chunk].digest
        states[key] = State(rank: rank, repair: repair, serial: takeSerial())
        counts[rank.rawValue] += 1
        if rank == .demand { startDeadline(key, now) }
        if !repair, let leader = leaders[digest], leader != key, let leading = states[leader] {
            states[key]?.phase = .following(leader)
            followers[leader, default: []].append(key)
            promote(leader, leading, to: rank, now)
            return
        }
        leaders[digest] = key
        out.append(.locate(key))
    }

    /// A higher rank than it had: a reader joined.
    private mutating func promote(_ key: ChunkKey, _ state: State, to rank: FetchRank, _ now: Duration) {
        guard rank < state.rank else { return }
        counts[state.rank.rawValue] -= 1
        counts[rank.rawValue] += 1
        states[key]?.rank = rank
        if rank == .demand {
            states[key]?.attempts = 0
            startDeadline(key, now)
        }
        switch state.phase {
        // Its turn comes now, in the queue of its new rank: a reader does not sit out a prefetch's back-off.
        case .queued, .waiting: enqueue(key, atFront: false)
        case .following(let leader):
            if let leading = states[leader] { promote(leader, leading, to: rank, now) }
        case .fetching(let range): if rank == .demand { join(key, range) }
        case .locating, .copying, .makingRoom: break
        }
    }

    /// A reader came for a chunk that is on its way: it waits there, unless much else comes before it. Then it gets a
    /// range of its own, and whichever brings the chunk first settles it.
    private mutating func join(_ key: ChunkKey, _ id: UInt64) {
        guard let range = ranges[id], range.rank != .demand, let layout = layouts[key.blob] else { return }
        let front = range.chunks.first {
            states[ChunkKey(key.blob, $0)]?.phase == .fetching(range: id)
        }
        guard let front, layout.storedRange(of: front..<key.chunk).count > limits.joinBytes else {
            out.append(.hasten(range: id))
            return
        }
        enqueue(key, atFront: false)
    }

    private mutating func startDeadline(_ key: ChunkKey, _ now: Duration) {
        guard let serial = states[key]?.serial else { return }
        timers.add(.deadline(key, serial: serial), at: now + limits.deadline)
    }

    private mutating func noteLocated(_ key: ChunkKey, _ sources: [FetchSource], _ now: Duration) {
        guard let state = states[key], state.phase == .locating else { return }
        states[key]?.sources = sources
        guard !sources.isEmpty else { return give(up: key, .noSource) }
        enqueue(key, atFront: false)
    }

    // MARK: - Helpers

    mutating func takeSerial() -> UInt64 {
        nextSerial += 1
        return nextSerial
    }

    /// Puts a chunk into the queue of its rank.
    mutating func enqueue(_ key: ChunkKey, atFront: Bool) {
        guard var state = states[key] else { return }
        state.phase = .queued
        let rank = state.rank.rawValue
        states[key] = state
        if atFront, queueHeads[rank] > 0 {
            queueHeads[rank] -= 1
            queues[rank][queueHeads[rank]] = (key, state.serial)
        } else if atFront {
            queues[rank].insert((key, state.serial), at: 0)
        } else {
            queues[rank].append((key, state.serial))
        }
    }
}
