internal import ChunkModel

extension Membership {
    /// An address where others may be.
    struct Seed: Sendable {
        let address: String
        /// The member that was last seen to have this address.
        var slot: Int?
    }

    // MARK: - Gossip

    mutating func gossip(_ now: Duration, fanout: Int? = nil) {
        lastGossip = now
        fillPartners()
        guard !partners.isEmpty else {
            // A member that comes is news, and starts this again.
            nextGossip = nil
            return
        }
        // In turn, so that what is sent as often as there are partners reaches each of them.
        for _ in 0..<min(fanout ?? configuration.gossipFanout, partners.count) {
            nextPartner = (nextPartner + 1) % partners.count
            sendGossip(to: partners[nextPartner])
        }
        nextGossip = queue.isEmpty ? nil : now + configuration.gossipInterval
    }

    private mutating func fillPartners() {
        while partners.count < configuration.partners, let slot = randomMember(except: partners) {
            partners.append(slot)
        }
    }

    /// Over time every node gossips with every other, so that no odd graph lasts.
    mutating func replaceOnePartner() {
        guard partners.count >= configuration.partners else { return }
        partners.remove(at: Int.random(in: 0..<partners.count, using: &random))
    }

    // MARK: - Joining

    mutating func setSeeds(_ addresses: [String], now: Duration) {
        var kept = Array(Set(addresses)).sorted()
        kept.removeAll { $0.isEmpty || $0.utf8.count > MembershipLimits.maxAddressBytes || $0 == own.address }
        kept.shuffle(using: &random)
        seeds = kept.prefix(MembershipLimits.maxSeeds).map { Seed(address: $0) }
        if table.liveCount <= 1 { nextRejoin = min(nextRejoin, now) }
    }

    /// Looks for those who should be there: seeds that are no living member's, and the dead. So two halves of a cluster
    /// find each other again as long as either knows anybody of the other, and nobody stays dead for ever.
    mutating func rejoin(_ now: Duration) {
        guard table.liveCount > 1 else {
            nextRejoin = now + jittered(configuration.joinInterval)
            for seed in seeds.shuffled(using: &random).prefix(configuration.joinFanout) { greet(seed.address) }
            greetOneDead()
            return
        }
        nextRejoin = now + jittered(configuration.rejoinInterval)
        if !seeds.isEmpty {
            let at = Int.random(in: 0..<seeds.count, using: &random)
            if !isLivingMember(seed: at) { greet(seeds[at].address) }
        }
        greetOneDead()
    }

    private mutating func greet(_ address: String) {
        awaitedSyncs += 1
        sendOutside(
            GossipFrame(messages: [.syncDigest(root: table.root)], items: [.record(own)]),
            to: Destination(name: nil, address: address))
    }

    private mutating func greetOneDead() {
        guard table.counts.dead > 0, let slot = randomMember(where: { $0.state == .dead }) else { return }
        awaitedSyncs += 1
        send(.syncDigest(root: table.root), items: [.record(own)], to: slot)
    }

    private mutating func isLivingMember(seed at: Int) -> Bool {
        let address = seeds[at].address
        if let slot = seeds[at].slot, let entry = table[slot], entry.isLive, entry.record.address == address {
            return true
        }
        seeds[at].slot = table.slots.firstIndex { $0.map { $0.isLive && $0.record.address == address } ?? false }
        return seeds[at].slot != nil
    }
}
