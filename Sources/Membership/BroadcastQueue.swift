internal import ChunkModel

/// News to be gossiped. It holds what they are about, not what they say: that is looked up when a frame is built, so the
/// newest state goes out and an older one never does.
///
/// What was sent least goes first, of those the newest (as memberlist's TransmitLimitedQueue). What was sent often
/// enough is dropped.
struct BroadcastQueue {
    enum Subject: Hashable {
        case member(Int)
        case content(Int, WireID)
    }

    private struct Entry {
        let subject: Subject
        /// Tells an entry from a newer one about the same subject.
        let stamp: UInt64
    }

    /// By the number of times sent; the newest last.
    private var levels: [[Entry]] = []
    private var current: [Subject: UInt64] = [:]
    private var stamp: UInt64 = 0

    var isEmpty: Bool { current.isEmpty }
    var count: Int { current.count }

    func contains(_ subject: Subject) -> Bool { current[subject] != nil }

    /// Queues news about a subject, instead of what was queued about it, as if sent so many times.
    mutating func add(_ subject: Subject, sent: Int = 0) {
        if current[subject] == nil, current.count >= MembershipLimits.maxBroadcasts { dropMostSent() }
        stamp += 1
        current[subject] = stamp
        while levels.count <= sent { levels.append([]) }
        levels[sent].append(Entry(subject: subject, stamp: stamp))
        // Those replaced are dropped when they are met; a node without anybody to talk to never meets them.
        if levels[sent].count > 2 * current.count + 64 {
            levels[sent].removeAll { current[$0.subject] != $0.stamp }
        }
    }

    mutating func remove(_ subject: Subject) { current[subject] = nil }

    private mutating func dropMostSent() {
        for level in levels.indices.reversed() {
            // The oldest of a level is its first.
            while let entry = levels[level].first {
                levels[level].removeFirst()
                if current[entry.subject] == entry.stamp {
                    current[entry.subject] = nil
                    return
                }
            }
        }
    }

    /// Takes what fits into `bytes`. `item` gives the present news about a subject that was sent so many times, nil when
    /// there is none any more; `limit` is how often a piece of news is sent.
    mutating func take(bytes: Int, limit: Int, item: (Subject, Int) -> GossipItem?) -> [GossipItem] {
        guard !current.isEmpty else { return [] }
        var left = bytes
        var items: [GossipItem] = []
        var moved: [(level: Int, entry: Entry)] = []
        for level in levels.indices {
            var kept: [Entry] = []
            while let entry = levels[level].popLast() {
                guard current[entry.subject] == entry.stamp else { continue }
                guard let news = item(entry.subject, level) else {
                    current[entry.subject] = nil
                    continue
                }
                // A few that are too large are passed over, to fill what is left with smaller ones.
                guard news.byteBound <= left, items.count < MembershipLimits.maxItemsPerFrame else {
                    kept.append(entry)
                    if kept.count > 4 { break }
                    continue
                }
                left -= news.byteBound
                items.append(news)
                if level + 1 < limit {
                    moved.append((level + 1, entry))
                } else {
                    current[entry.subject] = nil
                }
            }
            levels[level].append(contentsOf: kept.reversed())
            if kept.count > 4 { break }
        }
        // Afterwards, so that nothing is taken twice for one frame.
        for (level, entry) in moved.reversed() {
            while levels.count <= level { levels.append([]) }
            levels[level].append(entry)
        }
        return items
    }
}
