internal import ChunkModel

extension Membership {
    // MARK: - Frames

    mutating func receive(_ frame: GossipFrame, from: NodeName, now: Duration) {
        guard from != own.name else { return }
        if frame.items.count > MembershipLimits.maxItemsPerFrame
            || frame.messages.count > MembershipLimits.maxMessagesPerFrame
        {
            statistics.refusedMessages += 1
        }
        let messages = frame.messages.prefix(MembershipLimits.maxMessagesPerFrame)
        let isSync = messages.contains {
            switch $0 {
            case .syncReply, .syncBuckets: true
            default: false
            }
        }
        var learned = 0
        for item in frame.items.prefix(MembershipLimits.maxItemsPerFrame)
        where merge(item, from: from, isSync: isSync, now: now) {
            learned += 1
        }
        if !wantedNow.isEmpty {
            answer(.syncReply(wants: wantedNow, isPartial: false), to: from)
            wantedNow.removeAll(keepingCapacity: true)
        }
        if let slot = table.find(from) {
            noteContact(slot, now: now)
            // Whoever we think dead or dying hears it from us at once (`flush` adds the accusation).
            if accusation(of: slot) != nil { send(to: slot) }
        }
        let isProbe = messages.contains { if case .ping = $0 { true } else { false } }
        for message in messages {
            if case .syncDigest(let root) = message, isProbe {
                handleProbeDigest(root, from: from, now: now)
            } else {
                handle(message, from: from, learned: learned, now: now)
            }
        }
    }

    private mutating func handle(_ message: GossipMessage, from: NodeName, learned: Int, now: Duration) {
        switch message {
        case .ping(let number): answer(.ack(sequence: number), to: from)
        case .pingRequest(let number, let target): handlePingRequest(number, target: target, from: from, now: now)
        case .ack(let number): handleAck(number, from: from, now: now)
        case .nack(let number): handleNack(number, from: from)
        case .syncDigest(let root): handleSyncDigest(root, from: from)
        case .syncBuckets(let digests): handleSyncBuckets(digests, from: from)
        case .syncSummary(let buckets, let entries): handleSyncSummary(buckets, entries, from: from, now: now)
        case .syncReply(let wants, let isPartial):
            handleSyncReply(wants, isPartial: isPartial, learned: learned, from: from, now: now)
        }
    }

    /// Takes one piece of news; true when it was new.
    private mutating func merge(_ item: GossipItem, from: NodeName, isSync: Bool, now: Duration) -> Bool {
        switch item {
        case .record(let record): return merge(record, from: from, isSync: isSync, now: now)
        case .suspect(let name, let incarnation, let accuser):
            return accused(name, incarnation, by: accuser, from: from, saidDead: false, isSync: isSync, now: now)
        case .dead(let name, let incarnation, let accuser):
            return accused(name, incarnation, by: accuser, from: from, saidDead: true, isSync: isSync, now: now)
        case .announcement(let nameHash, let incarnation):
            want(nameHash, incarnation, from: from, now: now)
            return false
        case .content(let item): return merge(item, isSync: isSync, now: now)
        }
    }

    /// Asks for a record that is newer than the one known, but not everybody at the same time.
    private mutating func want(_ nameHash: UInt64, _ incarnation: UInt64, from: NodeName, now: Duration) {
        if let slot = table.find(hash: nameHash), let known = table[slot], known.record.incarnation >= incarnation {
            return
        }
        if let asked = wanted[nameHash], now - asked < configuration.gossipInterval { return }
        guard wantedNow.count < MembershipLimits.maxWants else { return }
        if wanted.count >= MembershipLimits.maxWanted {
            wanted = wanted.filter { now - $0.value < configuration.gossipInterval }
            guard wanted.count < MembershipLimits.maxWanted else { return }
        }
        wanted[nameHash] = now
        wantedNow.append(nameHash)
    }

    // MARK: - Members

    private mutating func merge(_ record: NodeRecord, from: NodeName, isSync: Bool, now: Duration) -> Bool {
        guard record.name != own.name else {
            mergeOwn(record, now: now)
            return false
        }
        guard let slot = table.find(record.name), let known = table[slot] else {
            return insert(record, isSync: isSync, now: now)
        }
        guard record.incarnation > known.record.incarnation else {
            // Its owner does not know how far its earlier life went.
            if record.incarnation < known.record.incarnation, from == record.name {
                send(items: [.record(known.record)], to: slot)
            }
            return false
        }
        suspicions[slot] = nil
        if record.boot != known.record.boot || record.hasLeft {
            output.directives.append(.contentVoid(record.name))
        }
        table.set(slot, record.hasLeft ? .left : .alive, record: record, now: now)
        if record.hasLeft { partners.removeAll { $0 == slot } }
        broadcast(.member(slot), isOldNews: isSync, now: now)
        emitChange(slot)
        return true
    }

    private mutating func insert(_ record: NodeRecord, isSync: Bool, now: Duration) -> Bool {
        guard !record.hasLeft else { return false }
        guard let slot = table.insert(record, now: now) else {
            statistics.refusedFull += 1
            return false
        }
        broadcast(.member(slot), isOldNews: isSync, now: now)
        emitChange(slot)
        return true
    }

    /// An accusation. One against an incarnation we do not know is not looked at: nobody can be made dead in advance.
    private mutating func accused(
        _ name: NodeName, _ incarnation: UInt64, by accuser: NodeName, from: NodeName, saidDead: Bool, isSync: Bool,
        now: Duration
    ) -> Bool {
        if name == own.name {
            if incarnation == own.incarnation, !hasLeft, leaveDeadline == nil {
                // Somebody could not reach us in time.
                changeHealth(by: 1)
                refute(exceeding: incarnation, now: now)
            }
            return false
        }
        guard accuser != name, let slot = table.find(name), let known = table[slot] else { return false }
        guard known.record.incarnation == incarnation else {
            // Refuted already: whoever says it has not heard.
            if known.record.incarnation > incarnation, known.state == .alive, !isSync, let teller = table.find(from) {
                send(items: [.record(known.record)], to: teller)
            }
            return false
        }
        // After a partition each side has the other's members as dead. Claims met in anti-entropy are looked into, not
        // believed: a probe tells the accused, who refutes it, or shows that it is dead indeed.
        if isSync, saidDead, known.state == .alive {
            if urgent.count < MembershipLimits.maxUrgentProbes, !urgent.contains(slot) { urgent.append(slot) }
            return false
        }
        let before = known.state
        accuse(slot, incarnation: incarnation, by: accuser, saidDead: saidDead, now: now)
        return table[slot]?.state != before
    }

    // MARK: - Content

    private mutating func merge(_ item: ContentItem, isSync: Bool, now: Duration) -> Bool {
        guard item.node != own.name else {
            mergeOwnContent(item, now: now)
            return false
        }
        guard let slot = table.find(item.node), let known = table[slot], known.state != .left,
            known.record.boot == item.version.boot
        else {
            statistics.refusedContent += 1
            return false
        }
        let old = table.content.value(slot, item.blob)
        if let old, old.counter >= item.version.counter { return false }
        if old == nil, item.isGone { return false }
        let value = ContentTable.Value(
            counter: item.version.counter, isGone: item.isGone, payload: ContentTable.Payload(item.payload))
        guard table.setContent(slot, item.blob, value, now: now) else {
            statistics.refusedContent += 1
            return false
        }
        broadcast(.content(slot, item.blob), isOldNews: isSync, now: now)
        output.directives.append(.content(item))
        return true
    }
}
