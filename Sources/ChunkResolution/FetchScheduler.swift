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
        /// The gate's verdict on a fill or a copy, and who had sent those bytes; nil is the chunk's current source.
        case filled(ChunkKey, GateProtocol.FillStatus, errno: UInt32, from: FetchSource? = nil)
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
        /// Wrong bytes from a source, twice for a registry: said once a chunk. A peer is to be asked for nothing more.
        case quarantined(ChunkKey, FetchSource)
        /// Tell this peer that what it sent for the chunk was wrong, so that it looks at its disk.
        case complain(NodeName, ChunkKey)
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
        /// Until it is worth asking again where the chunk is.
        case pausing
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
        /// A peer was named as its source once.
        var knowsPeers = false
        var peerTries = 0
        /// No peer is asked from then on.
        var peersUntil = Duration.zero
        var hedgeAfter: Duration?
        var peerWait: Duration?
        /// A second range that brings the same chunk.
        var hedge: Hedge?
        /// Whom it was asked of since a reader waits, in order, each once.
        var asked: [FetchSource] = []
    }

    struct Hedge: Equatable {
        let range: UInt64
        let source: FetchSource
    }

    enum Timer {
        case retry(ChunkKey, serial: UInt64)
        case deadline(ChunkKey, serial: UInt64)
        case relocate(ChunkKey, serial: UInt64)
        case hedge(ChunkKey, serial: UInt64, range: UInt64)
        case peersOver(ChunkKey, serial: UInt64)
    }

    struct Range {
        var blob: BlobID
        var chunks: Swift.Range<Int>
        var rank: FetchRank
        var source: FetchSource
        /// Bytes it was charged to the limits with.
        var charged: Int
        let begun: Duration
    }

    /// Sources of one kind share their limits, and a queue a rank: who waits for the registry does not hold up who
    /// waits for a peer.
    enum Lane: Int, CaseIterable {
        case local
        case peer
        case registry

        init(_ source: FetchSource?) {
            switch source {
            case .local: self = .local
            case .peer: self = .peer
            case .registry, nil: self = .registry
            }
        }
    }

    static func queue(_ rank: FetchRank, _ lane: Lane) -> Int { rank.rawValue * Lane.allCases.count + lane.rawValue }
    static let queueCount = FetchRank.allCases.count * Lane.allCases.count

    static let inputOutputError: UInt32 = 5  // EIO
    static let noSpaceError: UInt32 = 28  // ENOSPC
    static let quotaError: UInt32 = 122  // EDQUOT

    package let limits: FetchLimits
    var layouts: [BlobID: BlobLayout] = [:]
    var states: [ChunkKey: State] = [:]
    /// One a rank and lane, first in first out; an entry whose serial is not the state's is skipped.
    var queues = [[(key: ChunkKey, serial: UInt64)]](repeating: [], count: queueCount)
    var queueHeads = [Int](repeating: 0, count: queueCount)
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
    var counts = [Int](repeating: 0, count: FetchRank.allCases.count)
    /// Bytes that may be asked for a second time.
    var hedgeTokens: Int
    var random: UInt64
    var rates = DownloadRates()
    /// When the first of the ranges may start that only a limit keeps from it.
    var rateOpensAt: Duration?
    /// Peers had their turn of what the limit of both lets through.
    var registryIsNext = false
    var out: [Directive] = []

    /// `seed` drives the jitter of back-offs and nothing else.
    package init(limits: FetchLimits = FetchLimits(), seed: UInt64 = 1) {
        self.limits = limits
        random = seed | 1
        hedgeTokens = limits.hedgeBurst
    }

    /// Makes a blob known, or replaces its layout. Events about unknown blobs fail.
    package mutating func register(_ blob: BlobID, _ layout: BlobLayout) { layouts[blob] = layout }

    package func isRegistered(_ blob: BlobID) -> Bool { layouts[blob] != nil }

    /// Readers' chunks that are not settled: hydration rests while there are any.
    package var pendingDemand: Int { counts[FetchRank.demand.rawValue] }
    /// Chunks nobody waits for that are not settled.
    package var pendingSpeculative: Int {
        counts[FetchRank.readAhead.rawValue] + pendingReplay + pendingBackground
    }
    /// Chunks of access traces that are not settled.
    package var pendingReplay: Int { counts[FetchRank.replay.rawValue] }
    /// Chunks other nodes asked for that are not settled.
    package var pendingRelayed: Int { counts[FetchRank.relayed.rawValue] }
    package var pendingBackground: Int { counts[FetchRank.background.rawValue] }
    package var rangesInFlight: Int { ranges.count }
    /// Nothing is wanted and nothing is on its way.
    package var isIdle: Bool { states.isEmpty && ranges.isEmpty }
    /// Blobs whose source has sent wrong bytes that were not put right since, ascending.
    package var quarantined: [BlobID] { quarantines.keys.sorted() }
    /// Whether the chunk is wanted or on its way already.
    package func isPending(_ key: ChunkKey) -> Bool { states[key] != nil }

    /// Who wants the chunk most; nil when nobody does.
    package func rank(of key: ChunkKey) -> FetchRank? { states[key]?.rank }

    /// Where a chunk is, for people who ask why it does not come; nil when nobody wants it. A chunk that waits for
    /// another of the same digest is where that one is.
    package func whereabouts(of key: ChunkKey) -> Whereabouts? {
        guard var state = states[key] else { return nil }
        if case .following(let leader) = state.phase, let leading = states[leader] { state = leading }
        let step: Whereabouts.Step =
            switch state.phase {
            case .locating, .following: .locating
            case .queued: .queued
            case .waiting: .backingOff
            case .pausing: .waitingForPeers
            case .copying: .copying
            case .fetching(let range): ranges[range] == nil ? .writing : .fetching
            case .makingRoom: .makingRoom
            }
        var begun: Duration?
        var source = state.sources.first
        if case .fetching(let id) = state.phase, let range = ranges[id] {
            (begun, source) = (range.begun, range.source)
        }
        return Whereabouts(
            step: step, source: source, begun: begun, second: state.hedge?.source, asked: state.asked,
            attempts: state.attempts)
    }

    /// When to send `tick`, at the latest; nil when nothing is timed.
    package var nextDeadline: Duration? {
        guard let rateOpensAt else { return timers.next }
        return min(rateOpensAt, timers.next ?? rateOpensAt)
    }

    /// Takes one event, returns what to do, in order.
    package mutating func handle(_ event: Event, now: Duration) -> [Directive] {
        out.removeAll(keepingCapacity: true)
        switch event {
        case .miss(let key): noteMiss(key, now)
        case .want(let keys, let rank, let repair):
            for key in keys { noteWanted(key, max(rank, .relayed), repair: repair, now) }
        case .located(let list): for located in list { noteLocated(located, now) }
        case .rangeEnded(let id, let delivered, let failure): noteRangeEnded(id, delivered, failure, now)
        case .undecodable(let key): noteMismatch(key, now)
        case .filled(let key, let status, let errno, let from): noteFilled(key, status, errno, from, now)
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
        let hasRoom =
            rank == .relayed
            ? pendingRelayed < limits.relayedChunks : pendingSpeculative < limits.speculativeChunks
        guard let layout = layouts[key.blob], layout.index.count > key.chunk, hasRoom else {
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
            if state.knowsPeers { startPeersTime(key, now) }
        }
        switch state.phase {
        // Its turn comes now, in the queue of its new rank: a reader does not sit out a prefetch's back-off.
        case .queued, .waiting: enqueue(key, atFront: false)
        case .following(let leader):
            if let leading = states[leader] { promote(leader, leading, to: rank, now) }
        case .fetching(let range): if rank == .demand { join(key, range, now) }
        case .pausing: locateAgain(key)
        case .locating, .copying, .makingRoom: break
        }
    }

    /// A reader came for a chunk that is on its way: it waits there, unless much else comes before it. Then it gets a
    /// range of its own, and whichever brings the chunk first settles it.
    private mutating func join(_ key: ChunkKey, _ id: UInt64, _ now: Duration) {
        armHedge(key, now)
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

    private mutating func noteLocated(_ located: LocatedChunk, _ now: Duration) {
        let key = located.key
        guard let state = states[key], state.phase == .locating else { return }
        if !state.knowsPeers, located.again != nil || located.sources.contains(where: { $0.peer != nil }) {
            states[key]?.knowsPeers = true
            startPeersTime(key, now)
        }
        let mayAskPeers = peersMayBeAsked(for: key, now)
        let sources = mayAskPeers ? located.sources : located.sources.filter { $0.peer == nil }
        states[key]?.sources = sources
        states[key]?.hedgeAfter = located.hedgeAfter
        states[key]?.peerWait = located.wait
        if mayAskPeers, let again = located.again { return pause(key, again, now) }
        if mayAskPeers, state.rank != .demand, state.peerTries >= limits.peerTries, sources.first?.peer != nil {
            // Nobody is blocked: not the registry, which others of the same mind would ask as well, but more slowly.
            states[key]?.peerTries = limits.peerTries / 2
            return pause(key, limits.peerPace, now)
        }
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
        states[key] = state
        let queue = Self.queue(state.rank, Lane(state.sources.first))
        if atFront, queueHeads[queue] > 0 {
            queueHeads[queue] -= 1
            queues[queue][queueHeads[queue]] = (key, state.serial)
        } else if atFront {
            queues[queue].insert((key, state.serial), at: 0)
        } else {
            queues[queue].append((key, state.serial))
        }
    }
}
