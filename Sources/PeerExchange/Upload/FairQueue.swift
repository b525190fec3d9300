import ChunkModel

/// Who waits for something scarce: the most urgent rank first, within a rank one of each peer in turn, within a peer in
/// order. Pure value; the order depends on what was called and nothing else.
struct FairQueue {
    struct Entry: Equatable {
        let id: UInt64
        let bytes: Int
    }

    private struct Lane {
        /// Peers with something waiting, the one whose turn it is first.
        var ring: [NodeName] = []
        var waiting: [NodeName: [Entry]] = [:]
    }

    private var lanes: [Lane] = PeerRank.allCases.map { _ in Lane() }
    private(set) var count = 0

    private static func lane(_ rank: PeerRank) -> Int {
        switch rank {
        case .demand: 0
        case .ahead: 1
        case .background: 2
        }
    }

    mutating func push(_ entry: Entry, _ peer: NodeName, _ rank: PeerRank) {
        let at = Self.lane(rank)
        if lanes[at].waiting[peer] == nil { lanes[at].ring.append(peer) }
        lanes[at].waiting[peer, default: []].append(entry)
        count += 1
    }

    /// Takes the next of a peer that may go now, which `mayGo` says of what `states` has for it. O(peers waiting).
    mutating func pop<State>(
        _ states: [NodeName: State], where mayGo: (State?) -> Bool
    ) -> (entry: Entry, peer: NodeName)? {
        for at in lanes.indices {
            guard let turn = lanes[at].ring.firstIndex(where: { mayGo(states[$0]) }) else { continue }
            let peer = lanes[at].ring.remove(at: turn)
            guard var entries = lanes[at].waiting[peer], !entries.isEmpty else { continue }
            let entry = entries.removeFirst()
            lanes[at].waiting[peer] = entries.isEmpty ? nil : entries
            if !entries.isEmpty { lanes[at].ring.append(peer) }
            count -= 1
            return (entry, peer)
        }
        return nil
    }

    /// Takes one out wherever it waits; false when it does not.
    mutating func remove(_ id: UInt64, _ peer: NodeName, _ rank: PeerRank) -> Bool {
        let at = Self.lane(rank)
        guard var entries = lanes[at].waiting[peer], let index = entries.firstIndex(where: { $0.id == id }) else {
            return false
        }
        entries.remove(at: index)
        lanes[at].waiting[peer] = entries.isEmpty ? nil : entries
        if entries.isEmpty { lanes[at].ring.removeAll { $0 == peer } }
        count -= 1
        return true
    }

    /// Peers that wait for something.
    var peers: Set<NodeName> { Set(lanes.flatMap(\.ring)) }
}

/// So many units a second, with a burst. Pure value; `now` is any monotonic clock. A taker may go into debt once, which
/// the next one waits for: so a slice is never cut to fit.
struct TokenBucket {
    private(set) var rate: Double
    private let burst: Double
    private var level: Double
    private var filled: Duration

    init(rate: Double, burst: Double, now: Duration) {
        self.rate = max(rate, 1)
        self.burst = max(burst, 1)
        level = self.burst
        filled = now
    }

    mutating func fill(now: Duration) {
        guard now > filled else { return }
        level = min(burst, level + (now - filled) / .seconds(1) * rate)
        filled = now
    }

    var mayTake: Bool { level > 0 }
    var isFull: Bool { level >= burst }

    mutating func take(_ amount: Int) { level -= Double(amount) }

    /// When something may be taken again, from the last `fill` on; at least a millisecond later.
    var readyAt: Duration { filled + max(.milliseconds(1), .seconds(max(0, 1 - level) / rate)) }
}
