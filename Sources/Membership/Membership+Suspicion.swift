internal import ChunkModel

extension Membership {
    /// A member that has some time to show that it lives.
    struct Suspicion: Sendable {
        let incarnation: UInt64
        let started: Duration
        let minimum: Duration
        let maximum: Duration
        /// How many accusers after the first make it end at its minimum; 0 when there are not so many members.
        let wantedConfirmations: Int
        /// Who says so, the latest last; the first is not a confirmation.
        var accusers: [NodeName]
        /// It was heard of directly: it does not end before this, though never after `maximum`.
        var notBefore: Duration = .zero
        /// Somebody says it is dead: as good as all confirmations.
        var isSaidDead = false
        /// When others were asked for the last time whether they know better; nil before.
        var lastAsked: Duration?

        /// Lifeguard, section III.B: from maximum to minimum with the logarithm of the confirmations.
        var deadline: Duration {
            let confirmations = min(accusers.count - 1, wantedConfirmations)
            guard !isSaidDead, confirmations < wantedConfirmations else { return max(started + minimum, notBefore) }
            let part = Logarithm.base2(confirmations + 1) / Logarithm.base2(wantedConfirmations + 1)
            return max(started + maximum - (maximum - minimum) * part, notBefore)
        }
    }

    /// Somebody had no answer from a member: begins or confirms a suspicion.
    mutating func accuse(_ slot: Int, incarnation: UInt64, by accuser: NodeName, saidDead: Bool = false, now: Duration)
    {
        guard slot != 0, let entry = table[slot], entry.record.incarnation == incarnation else { return }
        switch entry.state {
        case .alive: suspect(slot, incarnation: incarnation, by: accuser, saidDead: saidDead, now: now)
        case .suspect:
            guard var suspicion = suspicions[slot] else { return }
            if saidDead {
                guard !suspicion.isSaidDead else { return }
                suspicion.isSaidDead = true
            } else {
                guard suspicion.accusers.count < MembershipLimits.maxAccusers, !suspicion.accusers.contains(accuser)
                else { return }
                suspicion.accusers.append(accuser)
                broadcast(.member(slot), now: now)
            }
            suspicions[slot] = suspicion
            nextSuspicion = min(nextSuspicion, suspicion.deadline)
        case .dead, .left: return
        }
    }

    private mutating func suspect(
        _ slot: Int, incarnation: UInt64, by accuser: NodeName, saidDead: Bool, now: Duration
    ) {
        let members = table.liveCount
        let minimum =
            configuration.probeInterval * (configuration.suspicionMinimum * max(1, Logarithm.base10(members)))
        // The accused, the first accuser and this node do not confirm.
        let confirmations = members - 3 >= configuration.confirmations ? configuration.confirmations : 0
        let suspicion = Suspicion(
            incarnation: incarnation, started: now, minimum: minimum,
            maximum: minimum * configuration.suspicionMaximum, wantedConfirmations: confirmations,
            accusers: [accuser], isSaidDead: saidDead)
        suspicions[slot] = suspicion
        nextSuspicion = min(nextSuspicion, suspicion.deadline)
        statistics.suspicions += 1
        table.set(slot, .suspect, now: now)
        broadcast(.member(slot), now: now)
        emitChange(slot)
    }

    /// A suspect talked to us, and nobody else can speak in its name: it gets the time to hear of the suspicion.
    mutating func noteContact(_ slot: Int, now: Duration) {
        guard var suspicion = suspicions[slot] else { return }
        suspicion.notBefore = min(now + suspicion.minimum, suspicion.started + suspicion.maximum)
        suspicions[slot] = suspicion
    }

    /// Ends the suspicions whose time has come: those members are dead for us. Not before a few others were told and had
    /// the time to say that they know of a refutation: one that was lost on its way here must not kill.
    mutating func endSuspicions(_ now: Duration) {
        // In the order of slots: a dictionary's own differs from process to process.
        var ended: [Int] = []
        for (slot, suspicion) in suspicions where now >= suspicion.deadline { ended.append(slot) }
        ended.sort()
        for slot in ended {
            guard var suspicion = suspicions[slot] else { continue }
            if suspicion.lastAsked == nil, table.liveCount > 2 {
                suspicion.lastAsked = now
                suspicion.notBefore = now + configuration.probeInterval
                suspicions[slot] = suspicion
                askWhetherItLives(slot)
                continue
            }
            suspicions[slot] = nil
            statistics.deaths += 1
            table.set(slot, .dead, now: now)
            partners.removeAll { $0 == slot }
            broadcast(.member(slot), now: now)
            emitChange(slot)
        }
        nextSuspicion = suspicions.values.lazy.map(\.deadline).min() ?? .seconds(Int64.max)
    }

    private mutating func askWhetherItLives(_ slot: Int) {
        guard let accusation = accusation(of: slot) else { return }
        var asked = [slot]
        while asked.count <= configuration.indirectProbes,
            let other = randomMember(except: asked, where: { $0.state == .alive })
        {
            asked.append(other)
            send(items: [accusation], to: other)
        }
    }
}
