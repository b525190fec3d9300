/// What nodes said of one blob, ordered by node number, and what was learned exactly.
struct BlobTable: Sendable {
    /// 32 bytes: 10,000 nodes × 40 blobs = 12.8 MB.
    struct Entry: Sendable {
        var node: UInt32
        var state: ContentRecord.State
        var bucketCount: UInt8
        /// A gone record that outlived one sweep leaves with the next.
        var isOld = false
        var version: UInt64
        var low: UInt64
        var high: UInt64

        init(node: UInt32, version: UInt64, _ record: ContentRecord) {
            self.node = node
            self.version = version
            state = record.state
            bucketCount = UInt8(record.coverage.bucketCount)
            low = record.coverage.low
            high = record.coverage.high
        }

        var record: ContentRecord {
            ContentRecord(state, coverage: Coverage(bucketCount: Int(bucketCount), low: low, high: high))
        }
    }

    /// What a reply said of one node's residency.
    struct Exact: Sendable {
        let node: UInt32
        var window: ResidencyWindow
        var learned: Duration
    }

    private(set) var entries: [Entry] = []
    /// Grows when a node becomes interested or is no longer.
    private(set) var interest: UInt64 = 0
    /// Oldest first.
    private(set) var exact: [Exact] = []

    var isEmpty: Bool { entries.isEmpty && exact.isEmpty }

    /// Where the node's entry is, or would go.
    private func place(of node: UInt32) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].node < node { low = middle + 1 } else { high = middle }
        }
        return low
    }

    subscript(_ node: UInt32) -> Entry? {
        let at = place(of: node)
        return at < entries.count && entries[at].node == node ? entries[at] : nil
    }

    /// Puts a node's entry in place of its older one; true when it had none.
    mutating func put(_ entry: Entry) -> Bool {
        let at = place(of: entry.node)
        if at < entries.count, entries[at].node == entry.node {
            if (entries[at].state == .gone) != (entry.state == .gone) { interest += 1 }
            entries[at] = entry
            return false
        }
        interest += 1
        // By quarters, not by doubling: memory is what this structure is about.
        if entries.count == entries.capacity { entries.reserveCapacity(entries.count + max(4, entries.count / 4)) }
        entries.insert(entry, at: at)
        return true
    }

    /// Removes what one node said; true when it had said something.
    mutating func remove(_ node: UInt32) -> Bool {
        exact.removeAll { $0.node == node }
        let at = place(of: node)
        guard at < entries.count, entries[at].node == node else { return false }
        entries.remove(at: at)
        return true
    }

    /// Removes what nodes of this kind said.
    mutating func remove(where isRemoved: (UInt32) -> Bool) {
        entries.removeAll { isRemoved($0.node) }
        exact.removeAll { isRemoved($0.node) }
    }

    /// Removes gone records seen by an earlier sweep and marks the others; the nodes whose records went.
    mutating func sweepGone() -> [UInt32] {
        guard entries.contains(where: { $0.state == .gone }) else { return [] }
        let old = entries.filter { $0.state == .gone && $0.isOld }.map(\.node)
        entries.removeAll { $0.state == .gone && $0.isOld }
        for at in entries.indices where entries[at].state == .gone { entries[at].isOld = true }
        return old
    }

    // MARK: - Exact residency

    mutating func learn(_ fact: Exact, limit: Int) {
        exact.removeAll { $0.node == fact.node }
        if exact.count >= limit { exact.removeFirst() }
        exact.append(fact)
    }

    /// Notes one chunk in what is known of the node, if it lies there.
    mutating func amend(_ node: UInt32, _ chunk: Int, _ isResident: Bool, now: Duration) -> Bool {
        guard let at = exact.firstIndex(where: { $0.node == node }), exact[at].window.set(chunk, isResident) else {
            return false
        }
        exact[at].learned = now
        return true
    }

    mutating func expireExact(before time: Duration) { exact.removeAll { $0.learned < time } }
}
