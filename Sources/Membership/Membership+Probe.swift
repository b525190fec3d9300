internal import ChunkModel

extension Membership {
    /// The probe under way.
    struct Probe: Sendable {
        let target: Int
        let name: NodeName
        let sequence: UInt32
        let started: Duration
        /// When others are asked, if the target has not answered.
        let helpAt: Duration
        /// When it has failed.
        let end: Duration
        var helpers: [NodeName] = []
        var nacks: [NodeName] = []
        var askedForHelp = false

        var nextDeadline: Duration { askedForHelp ? end : helpAt }
    }

    /// A probe on behalf of another.
    struct Relay: Sendable {
        let target: Int
        let name: NodeName
        let sequence: UInt32
        let requester: NodeName
        let requesterSequence: UInt32
        let nackAt: Duration
        let end: Duration
        var saidNo = false

        var nextDeadline: Duration { saidNo ? end : nackAt }
    }

    /// The order of probes: round by round, each round a walk over all slots with a random start and a random stride that
    /// has no divisor in common with their number, so that each comes once (SWIM section 4.3, without a list of 10,000).
    struct Tour: Sendable {
        private var size = 0
        private var stride = 1
        private var at = 0
        private var left = 0

        mutating func next(slots: Int, _ random: inout SplitMix64) -> Int {
            if left == 0 || size > slots {
                size = slots
                left = slots
                at = Int.random(in: 0..<slots, using: &random)
                repeat { stride = Int.random(in: 1...max(1, slots), using: &random) } while Self.gcd(stride, slots) != 1
            }
            left -= 1
            at = (at + stride) % size
            return at
        }

        private static func gcd(_ a: Int, _ b: Int) -> Int { b == 0 ? a : gcd(b, a % b) }
    }

    // MARK: - Probing

    mutating func runProbes(_ now: Duration) {
        if let probe, !probe.askedForHelp, now >= probe.helpAt { askForHelp() }
        if let probe, now >= probe.end { probeFailed(probe, now: now) }
        if probe == nil, now >= nextProbe { startProbe(now) }
    }

    /// Intervals and timeouts grow while this node seems to be the slow one.
    private var healthFactor: Double { Double(1 + localHealth) }

    private mutating func startProbe(_ now: Duration) {
        nextProbe = now + configuration.probeInterval * healthFactor
        guard let target = nextTarget(), let name = table[target]?.record.name else { return }
        statistics.probes += 1
        sequence &+= 1
        probe = Probe(
            target: target, name: name, sequence: sequence, started: now,
            helpAt: now + configuration.probeTimeout * healthFactor, end: nextProbe)
        send(.ping(sequence: sequence), to: target)
        if isQuiet(now) {
            awaitedSyncs = max(1, awaitedSyncs)
            send(.syncDigest(root: table.root), to: target)
        }
    }

    private mutating func nextTarget() -> Int? {
        while !urgent.isEmpty {
            let slot = urgent.remove(at: Int.random(in: 0..<urgent.count, using: &random))
            if isLive(slot) { return slot }
        }
        let slots = table.slots.count
        guard table.liveCount > 1 else { return nil }
        for _ in 0..<slots * 2 {
            let slot = tour.next(slots: slots, &random)
            if slot != 0, isLive(slot) { return slot }
        }
        return nil
    }

    private mutating func askForHelp() {
        guard var current = probe else { return }
        current.askedForHelp = true
        var asked: [Int] = [current.target]
        while current.helpers.count < configuration.indirectProbes,
            let helper = randomMember(except: asked, where: { $0.state == .alive }),
            let name = table[helper]?.record.name
        {
            asked.append(helper)
            current.helpers.append(name)
            send(.pingRequest(sequence: current.sequence, target: current.name), to: helper)
        }
        probe = current
    }

    private mutating func probeFailed(_ failed: Probe, now: Duration) {
        probe = nil
        statistics.probesFailed += 1
        // A helper that does not even say no: the fault may be here (Lifeguard, section III.A).
        let missing = failed.helpers.count - failed.nacks.count
        changeHealth(by: failed.helpers.isEmpty ? 1 : missing)
        guard let entry = table[failed.target], entry.record.name == failed.name, entry.isLive else { return }
        accuse(failed.target, incarnation: entry.record.incarnation, by: own.name, now: now)
    }

    mutating func changeHealth(by change: Int) {
        localHealth = min(max(0, localHealth + change), configuration.maxLocalHealth)
    }

    /// The peer cannot be reached at all: no use in waiting before others are asked.
    mutating func noteUnreachable(_ name: NodeName, now: Duration) {
        if let probe, probe.name == name, !probe.askedForHelp { askForHelp() }
    }

    // MARK: - Answers

    mutating func handleAck(_ number: UInt32, from: NodeName, now: Duration) {
        if let current = probe, current.sequence == number {
            let isDirect = from == current.name
            guard isDirect || current.helpers.contains(from) else { return }
            if isDirect { noteRoundTrip(current.target, now - current.started) }
            probe = nil
            changeHealth(by: -1)
        } else if let at = relays.firstIndex(where: { $0.sequence == number && $0.name == from }) {
            let relay = relays.remove(at: at)
            answer(.ack(sequence: relay.requesterSequence), to: relay.requester)
        }
    }

    mutating func handleNack(_ number: UInt32, from: NodeName) {
        guard let current = probe, current.sequence == number, current.helpers.contains(from),
            !current.nacks.contains(from)
        else { return }
        probe?.nacks.append(from)
    }

    /// Smoothed as TCP does it (RFC 6298, section 2: one eighth of the new value).
    private mutating func noteRoundTrip(_ slot: Int, _ time: Duration) {
        let sample = min(max(1, time.microseconds), Int64(UInt32.max))
        let old = Int64(table[slot]?.roundTripMicroseconds ?? 0)
        table.setRoundTrip(slot, microseconds: UInt32(old == 0 ? sample : max(1, (old * 7 + sample) / 8)))
    }

    // MARK: - Helping others

    mutating func handlePingRequest(_ number: UInt32, target: NodeName, from: NodeName, now: Duration) {
        if target == own.name {
            answer(.ack(sequence: number), to: from)
            return
        }
        guard let slot = table.find(target), relays.count < MembershipLimits.maxRelays else {
            answer(.nack(sequence: number), to: from)
            return
        }
        sequence &+= 1
        relays.append(
            Relay(
                target: slot, name: target, sequence: sequence, requester: from, requesterSequence: number,
                nackAt: now + configuration.probeTimeout * configuration.nackAfter,
                end: now + configuration.probeInterval * 2))
        send(.ping(sequence: sequence), to: slot)
    }

    mutating func runRelays(_ now: Duration) {
        guard !relays.isEmpty else { return }
        for index in relays.indices where !relays[index].saidNo && now >= relays[index].nackAt {
            relays[index].saidNo = true
            answer(.nack(sequence: relays[index].requesterSequence), to: relays[index].requester)
        }
        relays.removeAll { now >= $0.end }
    }
}
