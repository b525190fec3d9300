internal import ChunkModel

/// Anti-entropy: one number is compared; if it differs, 256 of them; then what is known in a few buckets that differ, in
/// 29 bytes a member; then only what one of the two lacks is sent. Nothing is kept between the steps.
extension Membership {
    mutating func startSync(_ now: Duration) {
        nextSync = now + jittered(configuration.syncInterval)
        replaceOnePartner()
        guard let slot = randomMember() else { return }
        statistics.syncs += 1
        awaitedSyncs = 1
        send(.syncDigest(root: table.root), to: slot)
    }

    /// Step 1 at the asked: silence when both know the same.
    mutating func handleSyncDigest(_ root: UInt64, from: NodeName) {
        guard root != table.root else { return }
        // The own record too: a newcomer knows only an address of us.
        answer(.syncBuckets(table.buckets), items: [.record(own)], to: from)
    }

    /// Whether gossip has settled here.
    func isQuiet(_ now: Duration) -> Bool { queue.isEmpty && now - lastChange >= configuration.quietTime }

    /// A digest that came with a probe: only looked at when nothing is under way at either side.
    mutating func handleProbeDigest(_ root: UInt64, from: NodeName, now: Duration) {
        guard root != table.root, isQuiet(now), now >= quietSyncNotBefore else { return }
        quietSyncNotBefore = now + quietSyncPause
        quietSyncPause = min(quietSyncPause * 2, configuration.syncInterval)
        handleSyncDigest(root, from: from)
    }

    /// Step 2 at the asker: says what it knows in some of the buckets that differ.
    mutating func handleSyncBuckets(_ theirs: [UInt64], from: NodeName) {
        guard theirs.count == MembershipLimits.bucketCount, awaitedSyncs > 0 else {
            statistics.refusedMessages += 1
            return
        }
        awaitedSyncs -= 1
        let differing = theirs.indices.filter { theirs[$0] != table.buckets[$0] }
        guard !differing.isEmpty else { return }
        statistics.syncsDifferent += 1
        var sizes = [Int](repeating: 0, count: MembershipLimits.bucketCount)
        for case let entry? in table.slots { sizes[StableHash.bucket(entry.record.nameHash)] += 1 }
        // From a random one on, so that several at once exchange different parts.
        let start = Int.random(in: 0..<differing.count, using: &random)
        var chosen = [Bool](repeating: false, count: MembershipLimits.bucketCount)
        var buckets: [UInt8] = []
        var total = 0
        for step in differing.indices {
            let bucket = differing[(start + step) % differing.count]
            guard total + sizes[bucket] <= Self.summaryEntries || total == 0 else { break }
            total += sizes[bucket]
            chosen[bucket] = true
            buckets.append(UInt8(bucket))
        }
        syncCoveredAll = buckets.count == differing.count
        var entries: [SummaryEntry] = []
        for slot in table.slots.indices {
            guard let entry = table[slot], chosen[StableHash.bucket(entry.record.nameHash)],
                entries.count < MembershipLimits.maxSummaryEntries
            else { continue }
            entries.append(
                SummaryEntry(
                    nameHash: entry.record.nameHash, incarnation: entry.record.incarnation,
                    content: table.contentDigest(slot), isGone: !entry.isLive))
        }
        answer(.syncSummary(buckets: buckets, entries: entries), to: from)
    }

    /// As many as one answer can be about when all differ: 56 KiB of records of 230 bytes and more.
    private static let summaryEntries = 256

    /// Step 3 at the asked: gives what the asker lacks, and says what it wants itself.
    mutating func handleSyncSummary(
        _ buckets: [UInt8], _ entries: [SummaryEntry], from: NodeName, now: Duration
    ) {
        guard entries.count <= MembershipLimits.maxSummaryEntries else {
            statistics.refusedMessages += 1
            return
        }
        var chosen = [Bool](repeating: false, count: MembershipLimits.bucketCount)
        for bucket in buckets { chosen[Int(bucket)] = true }
        var theirs: [UInt64: SummaryEntry] = [:]
        for entry in entries where chosen[StableHash.bucket(entry.nameHash)] { theirs[entry.nameHash] = entry }
        var budget = allowance(now)
        var items: [GossipItem] = []
        var wants: [UInt64] = []
        var isPartial = false
        let start = Int.random(in: 0..<table.slots.count, using: &random)
        for step in table.slots.indices {
            let slot = (start + step) % table.slots.count
            guard let entry = table[slot], chosen[StableHash.bucket(entry.record.nameHash)] else { continue }
            let their = theirs.removeValue(forKey: entry.record.nameHash)
            if wantsMore(of: slot, entry, than: their) { wants.append(entry.record.nameHash) }
            if !add(lacking(slot, entry, their), to: &items, &budget) { isPartial = true }
        }
        // Whom we do not know at all, in the order they were named.
        for entry in entries where !entry.isGone && theirs[entry.nameHash] != nil { wants.append(entry.nameHash) }
        spend(items)
        if wants.isEmpty, items.isEmpty, !isPartial { return }
        answer(
            .syncReply(
                wants: Array(wants.prefix(MembershipLimits.maxWants)),
                isPartial: isPartial || wants.count > MembershipLimits.maxWants),
            items: items, to: from)
    }

    /// Whether they know something of a member that is not known here. A claim that a living member is dead is looked
    /// into, as one in an answer is.
    private mutating func wantsMore(of slot: Int, _ entry: MemberTable.Entry, than their: SummaryEntry?) -> Bool {
        guard let their else { return false }
        if their.incarnation == entry.record.incarnation, their.isGone, entry.state == .alive, slot != 0,
            urgent.count < MembershipLimits.maxUrgentProbes, !urgent.contains(slot)
        {
            urgent.append(slot)
        }
        return their.incarnation > entry.record.incarnation
            || (their.incarnation == entry.record.incarnation && entry.isLive && !their.isGone
                && their.content != table.contentDigest(slot))
    }

    /// What somebody lacks who has `their` of a member.
    private func lacking(_ slot: Int, _ entry: MemberTable.Entry, _ their: SummaryEntry?) -> [GossipItem] {
        guard let their else { return entry.isLive ? everything(of: slot, entry) : [] }
        if their.incarnation > entry.record.incarnation { return [] }
        if their.incarnation < entry.record.incarnation { return everything(of: slot, entry) }
        if entry.isLive { return their.content == table.contentDigest(slot) ? [] : contentItems(of: slot, entry) }
        return their.isGone ? [] : accusation(of: slot).map { [$0] } ?? []
    }

    private func everything(of slot: Int, _ entry: MemberTable.Entry) -> [GossipItem] {
        switch entry.state {
        case .alive, .suspect: [.record(entry.record)] + contentItems(of: slot, entry)
        case .dead: [.record(entry.record)] + (accusation(of: slot).map { [$0] } ?? [])
        case .left: [.record(entry.record)]
        }
    }

    private func contentItems(of slot: Int, _ entry: MemberTable.Entry) -> [GossipItem] {
        table.content.all(slot).compactMap { contentItem(entry.record, $0.blob, $0.value).map { .content($0) } }
    }

    /// Step 4 at the asker: the items were taken already; gives what is wanted and goes on if there is more.
    mutating func handleSyncReply(
        _ wants: [UInt64], isPartial: Bool, learned: Int, from: NodeName, now: Duration
    ) {
        if !wants.isEmpty {
            let wanted = Set(wants.prefix(MembershipLimits.maxWants))
            var budget = allowance(now)
            var items: [GossipItem] = []
            var isCut = false
            for slot in table.slots.indices {
                guard let entry = table[slot], wanted.contains(entry.record.nameHash) else { continue }
                if !add(everything(of: slot, entry), to: &items, &budget) { isCut = true }
            }
            spend(items)
            if !items.isEmpty { answer(.syncReply(wants: [], isPartial: isCut), items: items, to: from) }
        }
        // With whomever: what was learned is known there too.
        if learned > 0 || !wants.isEmpty, isPartial || !syncCoveredAll {
            nextSync = min(nextSync, now + configuration.syncPause)
        }
    }

    // MARK: - Allowance

    /// Bytes that may be given out now: one frame, or what is left of this second's.
    private mutating func allowance(_ now: Duration) -> Int {
        let rate = Double(configuration.syncBytesPerSecond)
        let elapsed = Double((now - syncAllowanceAt).microseconds) / 1e6
        syncAllowance = min(rate, syncAllowance + rate * max(0, elapsed))
        syncAllowanceAt = now
        return min(MembershipLimits.maxItemBytesPerFrame, Int(max(0, syncAllowance)))
    }

    private mutating func spend(_ items: [GossipItem]) {
        syncAllowance -= Double(items.reduce(0) { $0 + $1.byteBound })
    }

    /// Adds all or nothing; false when there is no room for it.
    private func add(_ news: [GossipItem], to items: inout [GossipItem], _ budget: inout Int) -> Bool {
        let size = news.reduce(0) { $0 + $1.byteBound }
        guard size <= budget, items.count + news.count <= MembershipLimits.maxItemsPerFrame else { return false }
        budget -= size
        items += news
        return true
    }
}
