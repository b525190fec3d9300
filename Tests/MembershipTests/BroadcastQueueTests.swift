import ChunkModel
@testable import Membership
import Testing

/// What is gossiped first, how often, and what is left out.
@Suite struct BroadcastQueueTests {
    private func item(_ subject: BroadcastQueue.Subject) -> GossipItem? {
        guard case .member(let slot) = subject else { return nil }
        return .announcement(nameHash: UInt64(slot), incarnation: 1)
    }

    private func take(_ queue: inout BroadcastQueue, count: Int = 100, limit: Int = 3) -> [UInt64] {
        queue.take(bytes: count * 24, limit: limit) { subject, _ in item(subject) }.compactMap { item in
            if case .announcement(let number, _) = item { number } else { nil }
        }
    }

    @Test func theNewestGoesFirstAndEachAsOftenAsTheLimit() {
        var queue = BroadcastQueue()
        for slot in 1...3 { queue.add(.member(slot)) }
        for _ in 0..<3 { #expect(take(&queue) == [3, 2, 1]) }
        #expect(queue.isEmpty)
        #expect(take(&queue).isEmpty)
    }

    @Test func whatWasSentLeastGoesBeforeWhatWasSentMore() {
        var queue = BroadcastQueue()
        queue.add(.member(1))
        #expect(take(&queue) == [1])
        queue.add(.member(2))
        #expect(take(&queue, count: 1) == [2])
        queue.add(.member(3), sent: 2)
        // 1 and 2 were sent once, 3 counts as sent twice.
        #expect(take(&queue) == [2, 1, 3])
        #expect(!queue.contains(.member(3)))
        #expect(take(&queue) == [2, 1])
    }

    @Test func newNewsAboutASubjectReplaceTheOld() {
        var queue = BroadcastQueue()
        queue.add(.member(1))
        queue.add(.member(1))
        #expect(take(&queue) == [1])
        queue.add(.member(1))
        // The count began anew.
        for _ in 0..<3 { #expect(take(&queue) == [1]) }
        #expect(queue.isEmpty)
    }

    @Test func nothingIsTakenTwiceForOneFrameNorMoreThanFits() {
        var queue = BroadcastQueue()
        for slot in 0..<50 { queue.add(.member(slot)) }
        let first = take(&queue, count: 20)
        let second = take(&queue, count: 20)
        #expect(first.count == 20 && Set(first).count == 20)
        #expect(Set(first).isDisjoint(with: second))
        #expect(Set(take(&queue, count: 50)).count == 50)
    }

    @Test func whatHasBecomeMeaninglessIsDropped() {
        var queue = BroadcastQueue()
        queue.add(.member(1))
        queue.add(.member(2))
        queue.remove(.member(2))
        let items = queue.take(bytes: 1_000, limit: 3) { _, _ in nil }
        #expect(items.isEmpty && queue.isEmpty)
    }

    @Test func theQueueIsBoundedAndDropsWhatWasSentMost() {
        var queue = BroadcastQueue()
        queue.add(.member(0), sent: 2)
        for slot in 1..<MembershipLimits.maxBroadcasts { queue.add(.member(slot)) }
        #expect(queue.contains(.member(0)))
        queue.add(.member(MembershipLimits.maxBroadcasts))
        #expect(queue.count == MembershipLimits.maxBroadcasts)
        #expect(!queue.contains(.member(0)))
        #expect(queue.contains(.member(MembershipLimits.maxBroadcasts)))
    }
}

/// The table against a plain model, under random changes.
@Suite struct MemberTableTests {
    @Test func theTableAndItsDigestsFollowAModel() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        var table = MemberTable(own: try Fixture.record("own"), now: .zero)
        var model: [String: (record: NodeRecord, state: MemberState)] = [:]
        for step in 0..<4_000 {
            let name = "n\(Int.random(in: 0..<200, using: &random))"
            let slot = table.find(try Fixture.name(name))
            #expect((slot == nil) == (model[name] == nil))
            if let slot, let known = model[name] {
                switch Int.random(in: 0..<4, using: &random) {
                case 0:
                    table.remove([slot])
                    model[name] = nil
                case 1:
                    let record = try Fixture.record(name, known.record.incarnation + 1, boot: 1)
                    table.set(slot, .alive, record: record, now: .seconds(step))
                    model[name] = (record, .alive)
                default:
                    let state = MemberState.allCases.randomElement(using: &random) ?? .alive
                    table.set(slot, state, now: .seconds(step))
                    model[name]?.state = state
                }
            } else {
                let record = try Fixture.record(name, UInt64(step) + 1, boot: 1)
                #expect(table.insert(record, now: .seconds(step)) != nil)
                model[name] = (record, .alive)
            }
        }
        var root = StableHash.member(try Fixture.record("own"))
        for (name, known) in model {
            let slot = try #require(table.find(try Fixture.name(name)))
            #expect(table[slot]?.record == known.record)
            #expect(table[slot]?.state == known.state)
            if known.state == .alive || known.state == .suspect { root &+= StableHash.member(known.record) }
        }
        #expect(table.count == model.count + 1)
        #expect(table.root == root)
        #expect(table.buckets.reduce(0, &+) == root)
    }

    @Test func aRoundOfProbesVisitsEverySlotOnce() {
        var random = SplitMix64(seed: 1)
        for slots in [1, 2, 3, 7, 64, 100, 1_009] {
            var tour = Membership.Tour()
            for _ in 0..<3 {
                let seen = (0..<slots).map { _ in tour.next(slots: slots, &random) }
                #expect(Set(seen) == Set(0..<slots))
            }
        }
    }

    /// A view of 10,000 members is mostly these.
    @Test func anEntryTakesTwentyFourBytes() {
        #expect(MemoryLayout<MemberTable.Entry?>.stride == 24)
        #expect(MemoryLayout<ContentTable.Value>.stride <= 40)
    }

    @Test func logarithmsAreExactAtPowersOfTwoAndNeverFarOff() {
        for exponent in 0..<20 { #expect(Logarithm.base2(1 << exponent) == Double(exponent)) }
        // log10 of 10, 100, 1,000, 10,000.
        for (value, logarithm) in [(10, 1.0), (100, 2.0), (1_000, 3.0), (10_000, 4.0)] {
            #expect(abs(Logarithm.base10(value) - logarithm) < 0.03)
        }
        #expect(Logarithm.base2(0) == 0 && Logarithm.base10(1) == 0)
    }
}
