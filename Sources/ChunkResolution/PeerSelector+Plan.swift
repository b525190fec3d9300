package import ChunkModel
package import ContentIndex

extension PeerSelector {
    /// Which peers to ask for one chunk, best first; after them comes the registry.
    package struct Plan: Equatable, Sendable {
        /// `.peer` each.
        package var sources: [FetchSource] = []
        /// `.peer` each, to be asked only when the registry fails.
        package var lastResort: [FetchSource] = []
        package var hedgeAfter: Duration?
        package var again: Duration?
        /// How long a node that is to fetch may be waited for, chunk by chunk.
        package var wait: Duration?
        /// Nodes above that are not asked to fetch stand between the peers to ask and the registry: they are busy, or are
        /// asked for what they have.
        var isBelowOthers = false

        /// No peer.
        package init() {}

        /// With the copies on this node before the peers and the registry after them.
        package func located(_ key: ChunkKey, locals: [FetchSource] = []) -> LocatedChunk {
            LocatedChunk(
                key, locals + sources + [.registry] + lastResort, hedgeAfter: hedgeAfter,
                again: locals.isEmpty ? again : nil, wait: wait)
        }
    }

    /// Plans for chunks of one blob, one for each, in order. Those of one segment are asked of the same peers, so that
    /// they travel together.
    package mutating func plan(
        _ chunks: [(chunk: Int, rank: FetchRank)], of blob: WireID, layout: BlobLayout, index: ContentIndex,
        now: Duration
    ) -> [Plan] {
        var plans: [Plan] = []
        plans.reserveCapacity(chunks.count)
        /// Bytes given to peers by earlier runs of this call.
        var planned: [NodeName: Int] = [:]
        var at = 0
        while at < chunks.count {
            let segment = layout.segment(of: chunks[at].chunk)
            var end = at
            var bytes = 0
            while end < chunks.count, layout.segment(of: chunks[end].chunk) == segment {
                bytes += layout.index[chunks[end].chunk].size
                end += 1
            }
            let run = Run(
                blob: blob, segment: segment, chunk: chunks[at].chunk, chunkCount: layout.index.count, bytes: bytes)
            let plan = plan(run, planned, index, now)
            if let first = plan.sources.first?.peer { planned[first, default: 0] += bytes }
            var before = 0
            for (chunk, rank) in chunks[at..<end] {
                plans.append(timed(plan, rank, before))
                before += layout.index[chunk].size
            }
            at = end
        }
        return plans
    }

    /// Chunks of one segment that are wanted together.
    private struct Run {
        let blob: WireID
        let segment: UInt64
        /// The first of them, for all.
        let chunk: Int
        let chunkCount: Int
        let bytes: Int
    }

    private mutating func plan(
        _ run: Run, _ planned: [NodeName: Int], _ index: ContentIndex, _ now: Duration
    ) -> Plan {
        var plan = Plan()
        let above = above(run, index, now)
        let known = notes[.init(blob: run.blob, segment: run.segment)] ?? SegmentNotes()
        let free = above.filter { !known.isBusy($0, now) }
        let isWary = troubled.count >= limits.wary
        let holders = holders(run, known, planned, index, now, provenOnly: isWary)
        // Rather anybody than nobody, but not before the registry: what a liar costs here is multiplied by all below.
        if isWary, holders.isEmpty, above.isEmpty {
            let others = self.holders(run, known, planned, index, now).filter { $0.probability >= limits.likely }
            plan.lastResort = others.prefix(limits.holders).map { .peer($0.node, fetch: false) }
        }
        var certain = holders.filter { $0.probability >= limits.certain }
        if free.isEmpty, certain.isEmpty, known.absences < limits.maxAbsent {
            certain = holders.filter { $0.probability >= limits.likely }
        }
        let chosen = trusted(certain).prefix(limits.holders).map(\.node)
        // Nobody twice: who does not give what it has will not fetch it, and the second to be asked would be no other.
        let climbs = free.filter { !chosen.contains($0) }
        plan.sources = chosen.map { .peer($0, fetch: false) }
        plan.sources += climbs.prefix(limits.climbs).map { .peer($0, fetch: true) }
        if plan.sources.isEmpty, !above.isEmpty, let next = known.nextFree(now) { plan.again = next - now }
        if !free.isEmpty { plan.wait = limits.wait }
        plan.isBelowOthers = climbs.count < above.count
        return plan
    }

    /// Without all but one of those who never gave anything: when that one gives nothing, the second to be asked is of
    /// another kind. It is the first of those that failed least: in a partition many that were quick are gone.
    private func trusted(_ holders: [ContentIndex.Holder]) -> [ContentIndex.Holder] {
        func failures(_ holder: ContentIndex.Holder) -> Int { peers[holder.node]?.failures ?? 0 }
        let strangers = holders.filter { !isProven($0.node) }
        let fewest = strangers.map(failures).min()
        let stranger = strangers.first { failures($0) == fewest }
        return holders.filter { isProven($0.node) || $0 == stranger }
    }

    /// Whether the peer has given something.
    func isProven(_ peer: NodeName) -> Bool { (peers[peer]?.bytesServed ?? 0) > 0 }

    /// The nodes above this one, nearest first. Found once, until somebody comes or goes.
    private mutating func above(_ run: Run, _ index: ContentIndex, _ now: Duration) -> [NodeName] {
        let interest = index.interestVersion(of: run.blob)
        let known = notes[.init(blob: run.blob, segment: run.segment)]
        if let path = known?.path, path.interest == interest, path.troubles == troubles,
            path.nodes.allSatisfy({ isUsable($0, now: now) })
        {
            return path.nodes
        }
        let nodes = index.above(own, run.blob, segment: run.segment, fanOut: limits.fanOut) {
            isUsable($0, now: now) && known?.isPassed($0, now) != true
        }
        let current = troubles
        note(run.blob, run.segment, now) { $0.path = (nodes, interest, current) }
        return nodes
    }

    /// Who has it, by the time it would take. Times are told apart by factors of two only, and the rest is chance: a
    /// little difference must not send everybody to the same peer.
    private func holders(
        _ run: Run, _ known: SegmentNotes, _ planned: [NodeName: Int], _ index: ContentIndex, _ now: Duration,
        provenOnly: Bool = false
    ) -> [ContentIndex.Holder] {
        func mayBeAsked(_ name: NodeName) -> Bool {
            isUsable(name, now: now) && !known.isBusy(name, now)
                && (!provenOnly || isProven(name))
        }
        var candidates = index.holders(
            ofChunk: run.chunk, of: run.chunkCount, in: run.blob, for: own, now: now, where: mayBeAsked)
        for hint in known.hinted(now)
        where index.isLive(hint) && mayBeAsked(hint) && !candidates.contains(where: { $0.node == hint }) {
            candidates.append(.init(node: hint, probability: 0.9, isSameZone: index.isSameZone(hint, own)))
        }
        let key = Rendezvous.key(run.blob, segment: run.segment)
        let costs = candidates.map { holder -> (cost: Int, order: UInt64, holder: ContentIndex.Holder) in
            let record = peers[holder.node] ?? PeerRecord(limits)
            var time = record.expectedTime(bytes: run.bytes + planned[holder.node, default: 0])
            time /= max(0.01, holder.probability)
            if !holder.isSameZone { time *= limits.zoneFactor }
            let order = Rendezvous.score(Rendezvous.hash(of: holder.node) ^ ownHash, key)
            return (Self.octave(time), order, holder)
        }
        return costs.sorted { ($0.cost, $0.order, $0.holder.node) < ($1.cost, $1.order, $1.holder.node) }.map(\.holder)
    }

    /// The number of binary digits of a time in microseconds.
    private static func octave(_ seconds: Double) -> Int {
        let micros = UInt64(min(max(0, seconds * 1e6), 1e15))
        return UInt64.bitWidth - micros.leadingZeroBitCount
    }

    /// With the time after which a reader's chunk is asked of the next source as well; `before` bytes come first.
    private func timed(_ plan: Plan, _ rank: FetchRank, _ before: Int) -> Plan {
        guard rank == .demand, case .peer(let name, let fetch) = plan.sources.first else { return plan }
        // The second would be the registry, for everybody below whoever is slow.
        if plan.sources.count == 1, plan.isBelowOthers { return plan }
        let record = peers[name] ?? PeerRecord(limits)
        let first = Duration.seconds(fetch ? climb.p95 : record.firstByte.p95)
        let transfer = Duration.seconds(2 * Double(before + record.inFlight) / max(1, record.throughput))
        var plan = plan
        plan.hedgeAfter =
            fetch
            ? min(max(first, limits.minFetchHedge), limits.maxFetchHedge)
            : min(max(first, limits.minHedge), limits.maxHedge)
        plan.hedgeAfter? += min(transfer, limits.maxHedge)
        return plan
    }
}

extension BlobLayout {
    /// The rendezvous segment a chunk belongs to.
    package func segment(of chunk: Int) -> UInt64 {
        Rendezvous.segment(ofRawOffset: index[chunk].range.lowerBound)
    }
}

// MARK: - What is told of peers

extension PeerSelector {
    /// One peer as `chunkctl peers` shows it.
    package struct Status: Equatable, Sendable {
        package let peer: NodeName
        /// Time to its first byte.
        package let roundTrip: Duration
        /// Bytes a second.
        package let throughput: Double
        package let bytesInFlight: Int
        package let bytesServed: UInt64
        package let requests: UInt64
        package let failed: UInt64
        /// 1 is good, 0 is not asked.
        package let score: Double
        package let backOff: Duration?
        package let quarantineReason: String?
        package let quarantine: Duration?
    }

    /// What is known of a peer; nil when nothing is.
    package func status(of peer: NodeName, now: Duration) -> Status? {
        guard let record = peers[peer] else { return nil }
        let quarantine = record.quarantine.flatMap { now < $0.until ? $0 : nil }
        // The guess's time for a segment over this peer's: 1 for what is as good as expected or better.
        let guess = PeerRecord(limits).expectedTime(bytes: Int(Rendezvous.segmentBytes))
        let score = min(1, guess / max(1e-9, record.expectedTime(bytes: Int(Rendezvous.segmentBytes))))
        return Status(
            peer: peer, roundTrip: .seconds(record.firstByte.mean), throughput: record.throughput,
            bytesInFlight: record.inFlight, bytesServed: record.bytesServed, requests: record.requests,
            failed: record.failed, score: record.isUsable(now) ? score : 0,
            backOff: now < record.backOffUntil ? record.backOffUntil - now : nil,
            quarantineReason: quarantine?.reason, quarantine: quarantine.map { $0.until - now })
    }

    /// Peers something is known of, by name.
    package func statuses(now: Duration) -> [Status] {
        peers.keys.sorted().compactMap { status(of: $0, now: now) }
    }
}
