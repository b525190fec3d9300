internal import ChunkModel

/// All members a node knows, itself in slot 0, and what anti-entropy compares. Slots are stable while a member is known.
///
/// Memory is what limits a view of 10,000 (and a simulation of 10,000 views): 24 bytes a member beside the shared
/// record, 16 at most in the index, 40 a content item.
struct MemberTable {
    struct Entry {
        var record: NodeRecord
        /// On the caller's clock.
        var sinceMilliseconds: Int64
        /// 0: not measured.
        var roundTripMicroseconds: UInt32
        var state: MemberState

        /// Alive for the purposes of digests: a suspicion is a local matter until it ends.
        var isLive: Bool { state == .alive || state == .suspect }
    }

    /// Nil where a member was forgotten.
    private(set) var slots: [Entry?]
    private var free: [Int] = []
    /// Open addressing with linear probing; a slot number, or `empty`. Always at most half full.
    private var index: [UInt32]
    private static let empty = UInt32.max

    private(set) var count = 1
    /// Members by state.
    private(set) var counts: (alive: Int, suspect: Int, dead: Int, left: Int) = (1, 0, 0, 0)
    /// The digest of all living members and their content: the sum of the buckets.
    private(set) var root: UInt64 = 0
    private(set) var buckets = [UInt64](repeating: 0, count: MembershipLimits.bucketCount)
    private(set) var content = ContentTable()

    init(own: NodeRecord, now: Duration) {
        slots = [Entry(record: own, sinceMilliseconds: now.milliseconds, roundTripMicroseconds: 0, state: .alive)]
        index = [UInt32](repeating: Self.empty, count: 16)
        insertIntoIndex(0, hash: own.nameHash)
        add(StableHash.member(own), to: own.nameHash)
    }

    /// Makes room at once for so many more.
    mutating func reserve(_ more: Int) {
        let wanted = min(count + more, MembershipLimits.maxMembers)
        slots.reserveCapacity(wanted)
        var size = index.count
        while size < wanted * 2 { size *= 2 }
        if size > index.count { rebuildIndex(size: size) }
    }

    var liveCount: Int { counts.alive + counts.suspect }

    subscript(slot: Int) -> Entry? { slot < slots.count ? slots[slot] : nil }

    // MARK: - Index

    func find(_ name: NodeName) -> Int? { find(hash: StableHash.name(name)) { $0.name == name } }

    /// The first member whose name has this hash.
    func find(hash: UInt64) -> Int? { find(hash: hash) { _ in true } }

    private func find(hash: UInt64, where isIt: (NodeRecord) -> Bool) -> Int? {
        var at = Int(truncatingIfNeeded: hash) & (index.count - 1)
        while index[at] != Self.empty {
            let slot = Int(index[at])
            if let record = slots[slot]?.record, record.nameHash == hash, isIt(record) { return slot }
            at = (at + 1) & (index.count - 1)
        }
        return nil
    }

    private mutating func insertIntoIndex(_ slot: Int, hash: UInt64) {
        var at = Int(truncatingIfNeeded: hash) & (index.count - 1)
        while index[at] != Self.empty { at = (at + 1) & (index.count - 1) }
        index[at] = UInt32(slot)
    }

    private mutating func rebuildIndex(size: Int) {
        index = [UInt32](repeating: Self.empty, count: size)
        for (slot, entry) in slots.enumerated() {
            if let entry { insertIntoIndex(slot, hash: entry.record.nameHash) }
        }
    }

    // MARK: - Changes

    private mutating func add(_ hash: UInt64, to nameHash: UInt64) {
        root &+= hash
        buckets[StableHash.bucket(nameHash)] &+= hash
    }

    private mutating func count(_ state: MemberState, _ change: Int) {
        switch state {
        case .alive: counts.alive += change
        case .suspect: counts.suspect += change
        case .dead: counts.dead += change
        case .left: counts.left += change
        }
    }

    /// What a member and its content add to the digests now.
    private func contribution(_ slot: Int, _ entry: Entry) -> UInt64 {
        entry.isLive ? StableHash.member(entry.record) &+ content.digest(slot, entry.record.nameHash) : 0
    }

    /// Adds a member whose name is not known. Nil when the table is full.
    mutating func insert(_ record: NodeRecord, now: Duration) -> Int? {
        guard count < MembershipLimits.maxMembers else { return nil }
        let entry = Entry(
            record: record, sinceMilliseconds: now.milliseconds, roundTripMicroseconds: 0, state: .alive)
        let slot: Int
        if let reused = free.popLast() {
            slots[reused] = entry
            slot = reused
        } else {
            slots.append(entry)
            slot = slots.count - 1
        }
        count += 1
        counts.alive += 1
        if count * 2 > index.count {
            rebuildIndex(size: index.count * 2)
        } else {
            insertIntoIndex(slot, hash: record.nameHash)
        }
        add(StableHash.member(record), to: record.nameHash)
        return slot
    }

    /// Gives a member a state, and a newer record when there is one. Content of an earlier boot is dropped.
    mutating func set(_ slot: Int, _ state: MemberState, record: NodeRecord? = nil, now: Duration) {
        guard var entry = self[slot] else { return }
        add(0 &- contribution(slot, entry), to: entry.record.nameHash)
        count(entry.state, -1)
        if let record {
            if record.boot != entry.record.boot || record.hasLeft { content.removeAll(of: slot) }
            entry.record = record
        }
        entry.state = state
        entry.sinceMilliseconds = now.milliseconds
        slots[slot] = entry
        count(state, 1)
        add(contribution(slot, entry), to: entry.record.nameHash)
    }

    mutating func setRoundTrip(_ slot: Int, microseconds: UInt32) {
        slots[slot]?.roundTripMicroseconds = microseconds
    }

    /// Forgets members. Expensive (the index is built anew), so for many at once.
    mutating func remove(_ gone: [Int]) {
        for slot in gone {
            guard let entry = self[slot] else { continue }
            add(0 &- contribution(slot, entry), to: entry.record.nameHash)
            content.removeAll(of: slot)
            count(entry.state, -1)
            slots[slot] = nil
            free.append(slot)
            count -= 1
        }
        if !gone.isEmpty { rebuildIndex(size: index.count) }
    }

    // MARK: - Content

    /// Notes a content item of a member; false when a bound forbids it.
    mutating func setContent(_ slot: Int, _ blob: WireID, _ value: ContentTable.Value, now: Duration) -> Bool {
        guard let entry = self[slot] else { return false }
        let hash = entry.record.nameHash
        var change: UInt64 = 0
        if let old = content.value(slot, blob), !old.isGone {
            change &-= StableHash.content(hash, blob, counter: old.counter)
        }
        guard content.set(slot, blob, value, now: now) else { return false }
        if !value.isGone { change &+= StableHash.content(hash, blob, counter: value.counter) }
        if entry.isLive { add(change, to: hash) }
        return true
    }

    /// Forgets what was said to be gone before that time.
    mutating func forgetContent(goneBefore time: Duration) { content.forget(goneBefore: time) }

    /// The digest of one member's content, as in a summary.
    func contentDigest(_ slot: Int) -> UInt64 {
        guard let entry = self[slot] else { return 0 }
        return content.digest(slot, entry.record.nameHash)
    }
}

extension Duration {
    /// Whole milliseconds.
    var milliseconds: Int64 {
        let parts = components
        return parts.seconds * 1_000 + parts.attoseconds / 1_000_000_000_000_000
    }

    /// Whole microseconds.
    var microseconds: Int64 {
        let parts = components
        return parts.seconds * 1_000_000 + parts.attoseconds / 1_000_000_000_000
    }
}
