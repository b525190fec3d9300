package import ChunkModel

/// Who is there: SWIM with Lifeguard, and anti-entropy, as a value that decides and does nothing.
///
/// The shell hands in what happened (`handle`), does what the directives say, and comes back at `nextDeadline` with
/// `.tick` at the latest. The same events at the same times with the same seed give the same directives.
///
/// Sources: Das, Gupta, Motivala, "SWIM", DSN 2002; Dadgar, Phillips, Currey, "Lifeguard: local health awareness for more
/// accurate failure detection", 2017 (arXiv 1707.00788). What is different here, because a connection proves its peer's
/// name: a suspect that talks to us does not die while it does, it is told of its suspicion at once, and "dead" from others
/// is a confirmed suspicion, never a verdict.
///
/// Value type; not for several threads at once.
package struct Membership: Sendable {
    /// What happened.
    package enum Event: Sendable {
        /// Addresses (`ip:port`) where others may be: all that discovery knows now.
        case seeds([String])
        /// A frame came from the peer whose certificate has this name, as a request or as the answer to one. Proofs of
        /// its records were verified; records with a bad one were removed.
        case received(GossipFrame, from: NodeName)
        /// A frame to this peer could not be delivered.
        case unreachable(NodeName)
        /// The answer to `.sign`.
        case signed(NodeRecord)
        /// Own facts changed.
        case update(address: String, zone: String, version: String)
        /// This node has another certificate: what it says of itself is to be signed with that one.
        case certificateChanged
        /// This node has (or has no more) something of a blob.
        case publish(blob: WireID, isGone: Bool, payload: [UInt8])
        /// Say goodbye. `.departed` tells when others know.
        case leave
        case tick
    }

    /// What is to be done.
    package enum Directive: Equatable, Sendable {
        /// Send a frame. When it goes to whom the event being handled came from as a request, it is the answer.
        case send(GossipFrame, to: Destination)
        /// Sign this record of our own and hand it in as `.signed`.
        case sign(NodeRecord)
        /// A member is new, or has another state or record.
        case changed(Member)
        /// A member is no longer known.
        case forgotten(NodeName)
        /// News about content.
        case content(ContentItem)
        /// All content of this node is void: it began anew, left, or was forgotten.
        case contentVoid(NodeName)
        /// Somebody else's process speaks with our name and a certificate for it (or our clock went back).
        case conflict(NodeRecord)
        /// Our goodbye has been gossiped; the process may end.
        case departed
    }

    /// What was counted since the start, for metrics.
    package struct Statistics: Equatable, Sendable {
        package var probes = 0
        package var probesFailed = 0
        package var suspicions = 0
        package var deaths = 0
        package var refutations = 0
        package var syncs = 0
        package var syncsDifferent = 0
        /// Records not taken because the table is full.
        package var refusedFull = 0
        /// Content items not taken: unknown node or boot, or a bound.
        package var refusedContent = 0
        /// Frames cut or messages ignored because they break a rule of the protocol.
        package var refusedMessages = 0
    }

    package let configuration: MembershipConfiguration
    package internal(set) var statistics = Statistics()
    /// The own record as last signed.
    package internal(set) var own: NodeRecord

    var table: MemberTable
    var queue = BroadcastQueue()
    var random: SplitMix64
    var output = Output()

    // The own record.
    var pendingRecord: NodeRecord?
    /// The own record must get above this incarnation as soon as `recordNotBefore` allows.
    var mustExceed: UInt64?
    var recordNotBefore: Duration = .zero
    var contentCounter: UInt32 = 0
    var leaveDeadline: Duration?
    var hasDeparted = false

    // Failure detection.
    var localHealth = 0
    var sequence: UInt32
    var probe: Probe?
    var nextProbe: Duration
    var tour = Tour()
    var urgent: [Int] = []
    var relays: [Relay] = []
    var suspicions: [Int: Suspicion] = [:]
    /// No suspicion ends before this.
    var nextSuspicion: Duration = .seconds(Int64.max)

    // Gossip, anti-entropy, joining.
    var partners: [Int] = []
    var nextPartner = 0
    var nextGossip: Duration?
    var lastGossip: Duration = .zero
    var nextSync: Duration
    var awaitedSyncs = 0
    var lastDigest: UInt64 = 0
    var lastChange: Duration
    var quietSyncNotBefore: Duration = .zero
    var quietSyncPause: Duration
    /// Announced records that were asked for, and when.
    var wanted: [UInt64: Duration] = [:]
    /// Those to be asked for in the answer to the frame being handled.
    var wantedNow: [UInt64] = []
    var syncCoveredAll = true
    var syncAllowance: Double
    var syncAllowanceAt: Duration = .zero
    var seeds: [Seed] = []
    var nextRejoin: Duration
    var nextHousekeeping: Duration

    /// Begins with the own record, already signed, and a seed for the generator. `now` is any monotonic time; `known` are
    /// members remembered from an earlier run, taken as alive until they turn out not to be.
    package init(
        configuration: MembershipConfiguration, own: NodeRecord, known: [NodeRecord] = [], seed: UInt64, now: Duration
    ) {
        self.configuration = configuration
        self.own = own
        table = MemberTable(own: own, now: now)
        table.reserve(known.count)
        for record in known where !record.hasLeft && table.find(record.name) == nil {
            _ = table.insert(record, now: now)
        }
        random = SplitMix64(seed: seed)
        sequence = UInt32(truncatingIfNeeded: random.next())
        // Nodes that start together do not act together.
        nextProbe = now + configuration.probeInterval * Double.random(in: 0..<1, using: &random)
        nextSync = now + configuration.syncInterval * Double.random(in: 0..<1, using: &random)
        nextRejoin = now
        nextHousekeeping = now + Self.housekeepingInterval
        syncAllowance = Double(configuration.syncBytesPerSecond)
        syncAllowanceAt = now
        quietSyncPause = configuration.quietTime
        lastGossip = now - configuration.gossipInterval
        lastChange = now
        lastDigest = table.root
    }

    static let housekeepingInterval: Duration = .seconds(60)

    // MARK: - Acting

    /// Handles one event and whatever is due.
    package mutating func handle(_ event: Event, now: Duration) -> [Directive] {
        switch event {
        case .seeds(let addresses): setSeeds(addresses, now: now)
        case .received(let frame, let from): receive(frame, from: from, now: now)
        case .unreachable(let name): noteUnreachable(name, now: now)
        case .signed(let record): adopt(record, now: now)
        case .update(let address, let zone, let version):
            changeOwn(address: address, zone: zone, version: version, now: now)
        case .certificateChanged: signAnew(now: now)
        case .publish(let blob, let isGone, let payload):
            publish(blob, isGone: isGone, payload: payload, now: now)
        case .leave: leave(now: now)
        case .tick: break
        }
        runTimers(now)
        if table.root != lastDigest {
            lastDigest = table.root
            lastChange = now
            quietSyncPause = configuration.quietTime
        }
        return flush(now)
    }

    /// When the next `.tick` is due at the latest.
    package var nextDeadline: Duration {
        var next = min(nextRejoin, nextHousekeeping, nextSuspicion)
        if !hasLeft {
            next = min(next, nextSync, probe?.nextDeadline ?? nextProbe)
            if mustExceed != nil, pendingRecord == nil { next = min(next, recordNotBefore) }
        }
        if let nextGossip { next = min(next, nextGossip) }
        if let leaveDeadline, !hasDeparted { next = min(next, leaveDeadline) }
        for relay in relays { next = min(next, relay.nextDeadline) }
        return next
    }

    private mutating func runTimers(_ now: Duration) {
        if !hasLeft {
            runProbes(now)
            if now >= nextSync { startSync(now) }
            if now >= nextRejoin { rejoin(now) }
            if mustExceed != nil, pendingRecord == nil, now >= recordNotBefore { raiseIncarnation(now) }
        } else if now >= nextRejoin {
            nextRejoin = now + configuration.rejoinInterval
        }
        runRelays(now)
        if now >= nextSuspicion { endSuspicions(now) }
        if let due = nextGossip, now >= due { gossip(now) }
        if let leaveDeadline, !hasDeparted, now >= leaveDeadline || (hasLeft && queue.isEmpty) {
            hasDeparted = true
            output.directives.append(.departed)
        }
        if now >= nextHousekeeping { housekeep(now) }
    }

    // MARK: - Asking

    /// Whether this node said goodbye.
    package var hasLeft: Bool { table[0]?.state == .left }

    /// A member by name, this node included.
    package func member(_ name: NodeName) -> Member? { table.find(name).flatMap { member(at: $0) } }

    /// All members, this node included, ordered by name.
    package var members: [Member] {
        table.slots.indices.compactMap { member(at: $0) }.sorted { $0.record.name < $1.record.name }
    }

    /// Members by state, this node included.
    package var counts: (alive: Int, suspect: Int, dead: Int, left: Int) { table.counts }

    /// Equal on two nodes that know the same living members and content.
    package var digest: UInt64 { table.root }

    /// Lifeguard's local health multiplier: 0 is healthy, `maxLocalHealth` is not.
    package var localHealthScore: Int { localHealth }

    /// Changes waiting to be gossiped.
    package var queuedNews: Int { queue.count }

    /// Content items known, of all nodes.
    package var contentCount: Int { table.content.count }

    /// The content of one node, in no particular but a repeatable order.
    package func content(of name: NodeName) -> [ContentItem] {
        guard let slot = table.find(name), let boot = table[slot]?.record.boot else { return [] }
        return table.content.all(slot).compactMap { blob, value in
            ContentItem(
                node: name, blob: blob, version: ContentVersion(boot: boot, counter: value.counter),
                isGone: value.isGone, payload: value.payload.bytes)
        }
    }

    func member(at slot: Int) -> Member? {
        table[slot].map { entry in
            Member(
                record: entry.record, state: entry.state, since: .milliseconds(entry.sinceMilliseconds),
                roundTrip: entry.roundTripMicroseconds == 0 ? nil : .microseconds(Int64(entry.roundTripMicroseconds)))
        }
    }

    // MARK: - Shared by the parts

    func isLive(_ slot: Int) -> Bool { table[slot]?.isLive ?? false }

    mutating func emitChange(_ slot: Int) {
        if let member = member(at: slot) { output.directives.append(.changed(member)) }
    }

    /// How often a piece of news is sent.
    var sendLimit: Int {
        max(1, Int((configuration.retransmission * Logarithm.base10(table.liveCount + 1)).rounded(.up)))
    }

    /// Queues news and sees to it that they go out. Old news were asked for, so their sender had known them for a while
    /// and so have most: they are sent twice only, which still reaches all if they had reached nearly nobody.
    mutating func broadcast(_ subject: BroadcastQueue.Subject, isOldNews: Bool = false, now: Duration) {
        queue.add(subject, sent: isOldNews ? max(0, sendLimit - 2) : 0)
        guard nextGossip == nil, table.liveCount > 1 || hasLeft else { return }
        nextGossip = max(now + configuration.gossipDelay, lastGossip + configuration.gossipInterval)
    }

    /// A living member other than this node and those excluded, by chance.
    mutating func randomMember(except excluded: [Int] = [], where isWanted: (MemberTable.Entry) -> Bool = \.isLive)
        -> Int?
    {
        let count = table.slots.count
        guard count > 1 else { return nil }
        for _ in 0..<8 {
            let slot = Int.random(in: 1..<count, using: &random)
            if let entry = table[slot], isWanted(entry), !excluded.contains(slot) { return slot }
        }
        let start = Int.random(in: 1..<count, using: &random)
        for step in 0..<count {
            let slot = (start + step) % count
            if slot != 0, let entry = table[slot], isWanted(entry), !excluded.contains(slot) { return slot }
        }
        return nil
    }

    /// A time around `interval`, 20 % more or less.
    mutating func jittered(_ interval: Duration) -> Duration {
        interval * Double.random(in: 0.8..<1.2, using: &random)
    }

    private mutating func housekeep(_ now: Duration) {
        nextHousekeeping = now + Self.housekeepingInterval
        table.forgetContent(goneBefore: now - configuration.forgetAfter)
        guard table.counts.dead + table.counts.left > 0 else { return }
        let limit = (now - configuration.forgetAfter).milliseconds
        let gone = table.slots.indices.filter { slot in
            guard slot != 0, let entry = table[slot] else { return false }
            return !entry.isLive && entry.sinceMilliseconds < limit
        }
        for slot in gone {
            guard let name = table[slot]?.record.name else { continue }
            queue.remove(.member(slot))
            output.directives.append(.contentVoid(name))
            output.directives.append(.forgotten(name))
        }
        table.remove(gone)
        partners.removeAll { gone.contains($0) }
        urgent.removeAll { gone.contains($0) }
        relays.removeAll { gone.contains($0.target) }
        if let probe, gone.contains(probe.target) { self.probe = nil }
    }
}
