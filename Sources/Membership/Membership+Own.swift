internal import ChunkModel

extension Membership {
    // MARK: - The own record

    /// An accusation is answered with a higher incarnation.
    mutating func refute(exceeding incarnation: UInt64, now: Duration) {
        statistics.refutations += 1
        exceed(incarnation, now: now)
    }

    /// The own record gets above `incarnation`, but not more often than the configuration says.
    private mutating func exceed(_ incarnation: UInt64, now: Duration) {
        if let pendingRecord, pendingRecord.incarnation > incarnation { return }
        pendingRecord = nil
        mustExceed = max(mustExceed ?? 0, incarnation)
        if now >= recordNotBefore { raiseIncarnation(now) }
    }

    mutating func raiseIncarnation(_ now: Duration) {
        guard let floor = mustExceed else { return }
        mustExceed = nil
        recordNotBefore = now + configuration.recordInterval
        propose(
            NodeRecord(
                name: own.name, boot: own.boot, incarnation: max(floor, own.incarnation) + 1, address: own.address,
                zone: own.zone, version: own.version, hasLeft: own.hasLeft))
    }

    /// Asks for a signature. Nil is a record beyond its limits: it is not made, and the old one stays.
    private mutating func propose(_ record: NodeRecord?) {
        guard let record else { return }
        pendingRecord = record
        output.directives.append(.sign(record))
    }

    mutating func adopt(_ record: NodeRecord, now: Duration) {
        guard record.name == own.name, record.incarnation > own.incarnation else { return }
        let content = record.boot == own.boot ? [] : table.content.all(0)
        if let pendingRecord, pendingRecord.incarnation <= record.incarnation { self.pendingRecord = nil }
        own = record
        table.set(0, record.hasLeft ? .left : .alive, record: record, now: now)
        broadcast(.member(0), now: now)
        // A new boot voids what was published: say it anew.
        for item in content where !item.value.isGone {
            contentCounter += 1
            setOwnContent(item.blob, isGone: false, payload: item.value.payload, now: now)
        }
        if record.hasLeft { gossip(now, fanout: configuration.partners) }
    }

    /// Somebody has a record of ours. One above our own is of an earlier life whose clock was ahead, or of somebody who
    /// has our name: both times ours must become the newer.
    mutating func mergeOwn(_ record: NodeRecord, now: Duration) {
        guard record.incarnation >= own.incarnation, record != own, record != pendingRecord else { return }
        if record.boot != own.boot, record.incarnation > mustExceed ?? 0,
            record.incarnation >= pendingRecord?.incarnation ?? 0
        {
            output.directives.append(.conflict(record))
        }
        exceed(record.incarnation, now: now)
    }

    mutating func changeOwn(address: String, zone: String, version: String, now: Duration) {
        guard !hasLeft, address != own.address || zone != own.zone || version != own.version else { return }
        let floor = max(own.incarnation, pendingRecord?.incarnation ?? 0, mustExceed ?? 0)
        mustExceed = nil
        propose(
            NodeRecord(
                name: own.name, boot: own.boot, incarnation: floor + 1, address: address, zone: zone,
                version: version))
    }

    /// The same record with a higher incarnation: whoever knows the new certificate only must be able to verify it.
    mutating func signAnew(now: Duration) {
        guard leaveDeadline == nil else { return }
        exceed(max(own.incarnation, pendingRecord?.incarnation ?? 0), now: now)
    }

    mutating func leave(now: Duration) {
        guard leaveDeadline == nil else { return }
        leaveDeadline = now + configuration.leaveLinger
        probe = nil
        let floor = max(own.incarnation, pendingRecord?.incarnation ?? 0, mustExceed ?? 0)
        mustExceed = nil
        propose(
            NodeRecord(
                name: own.name, boot: own.boot, incarnation: floor + 1, address: own.address, zone: own.zone,
                version: own.version, hasLeft: true))
    }

    // MARK: - Own content

    mutating func publish(_ blob: WireID, isGone: Bool, payload: [UInt8], now: Duration) {
        guard payload.count <= MembershipLimits.maxContentPayload else { return }
        let value = ContentTable.Payload(isGone ? [] : payload)
        if let known = table.content.value(0, blob), known.isGone == isGone, known.payload == value { return }
        if isGone, table.content.value(0, blob) == nil { return }
        contentCounter += 1
        setOwnContent(blob, isGone: isGone, payload: value, now: now)
    }

    private mutating func setOwnContent(
        _ blob: WireID, isGone: Bool, payload: ContentTable.Payload, now: Duration
    ) {
        let value = ContentTable.Value(counter: contentCounter, isGone: isGone, payload: payload)
        guard table.setContent(0, blob, value, now: now) else {
            statistics.refusedContent += 1
            return
        }
        broadcast(.content(0, blob), now: now)
    }

    /// Somebody has something in our name that we did not say: say what is true with a higher counter.
    mutating func mergeOwnContent(_ item: ContentItem, now: Duration) {
        guard item.version.boot == own.boot else { return }
        let known = table.content.value(0, item.blob)
        if let known, known.counter > item.version.counter { return }
        if let known, known.counter == item.version.counter, known.isGone == item.isGone,
            known.payload == ContentTable.Payload(item.payload)
        {
            return
        }
        guard item.version.counter < UInt32.max / 2 else {
            beginAnew(now)
            return
        }
        contentCounter = max(contentCounter, item.version.counter) + 1
        setOwnContent(
            item.blob, isGone: known?.isGone ?? true, payload: known?.payload ?? ContentTable.Payload([]), now: now)
    }

    /// A forged counter leaves no room above it: with a new boot id all that was said in our name is void.
    private mutating func beginAnew(_ now: Duration) {
        guard pendingRecord == nil, now >= recordNotBefore else { return }
        recordNotBefore = now + configuration.recordInterval
        contentCounter = 0
        let next = max(own.incarnation, mustExceed ?? 0) + 1
        mustExceed = nil
        propose(
            NodeRecord(
                name: own.name, boot: next, incarnation: next, address: own.address, zone: own.zone,
                version: own.version))
    }
}
