import ChunkModel
import Membership
import Testing

/// Whatever comes in whatever order: nothing traps, nothing grows without bound, and the table stays consistent.
@Suite struct HostileInputTests {
    private static let names = (0..<30).map { "peer\($0)" }

    private func frame(_ random: inout SplitMix64, own: NodeRecord) throws -> GossipFrame {
        var frame = GossipFrame()
        func name() throws -> NodeName {
            try Fixture.name(Self.names.randomElement(using: &random) ?? "x")
        }
        func incarnation() -> UInt64 {
            [1_000, 1_001, 1_002, 2_000, own.incarnation, UInt64.max].randomElement(using: &random) ?? 0
        }
        for _ in 0..<Int.random(in: 0...4, using: &random) {
            let number = UInt32.random(in: 0...5, using: &random)
            let entries = (0..<Int.random(in: 0...8, using: &random)).map { _ in
                SummaryEntry(
                    nameHash: random.next(), incarnation: incarnation(), content: random.next() & 1,
                    isGone: Bool.random(using: &random))
            }
            let messages: [GossipMessage] = [
                .ping(sequence: number), .ack(sequence: number), .nack(sequence: number),
                .pingRequest(sequence: number, target: try name()), .syncDigest(root: random.next()),
                .syncBuckets([UInt64](repeating: random.next(), count: 256)),
                .syncSummary(
                    buckets: (0..<20).map { _ in UInt8.random(in: 0...255, using: &random) }, entries: entries),
                .syncReply(wants: entries.map(\.nameHash), isPartial: Bool.random(using: &random)),
            ]
            if let message = messages.randomElement(using: &random) { frame.messages.append(message) }
        }
        for _ in 0..<Int.random(in: 0...6, using: &random) {
            let subject = Int.random(in: 0...9, using: &random) == 0 ? own.name : try name()
            let boots: [UInt64] = [1_000, 2_000, own.boot]
            let boot: UInt64 = boots.randomElement(using: &random) ?? 0
            let record = NodeRecord(
                name: subject, boot: boot, incarnation: max(boot, min(incarnation(), 1 << 49)), address: "x:1",
                hasLeft: Int.random(in: 0...5, using: &random) == 0)
            let content = ContentItem(
                node: subject, blob: try Fixture.blob(UInt8.random(in: 0...3, using: &random)),
                version: ContentVersion(boot: boot, counter: [1, 2, 3, UInt32.max].randomElement(using: &random) ?? 0),
                isGone: Bool.random(using: &random), payload: [1])
            let items: [GossipItem?] = [
                record.map { GossipItem.record($0) },
                GossipItem.announcement(nameHash: random.next(), incarnation: incarnation()),
                content.map { GossipItem.content($0) },
                .suspect(subject, incarnation: incarnation(), accuser: try name()),
                .dead(subject, incarnation: incarnation(), accuser: try name()),
            ]
            if let item = items.randomElement(using: &random) ?? nil { frame.items.append(item) }
        }
        return frame
    }

    @Test(arguments: 0..<8) func nothingTrapsAndTheStateStaysConsistent(_ run: Int) throws {
        let seed = UInt64(run) &+ UInt64.random(in: 0...UInt64.max - 8)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        var fixture = try Fixture(knows: Array(Self.names.prefix(10)))
        for step in 0..<3_000 {
            let event: Membership.Event
            switch Int.random(in: 0..<20, using: &random) {
            case 0:
                event = .publish(
                    blob: try Fixture.blob(UInt8(step & 3)), isGone: step & 8 == 0, payload: [UInt8(step & 7)])
            case 1: event = .seeds(["a:1", "b:1"])
            case 2: event = .unreachable(try Fixture.name(Self.names[step % 30]))
            case 3: event = .update(address: "own:\(step % 5)", zone: "z", version: "1")
            case 4, 5: event = .tick
            default:
                let from = try Fixture.name(Self.names[Int.random(in: 0..<30, using: &random)])
                event = .received(try frame(&random, own: fixture.membership.own), from: from)
            }
            fixture.now += .milliseconds(Int.random(in: 0...(step % 100 == 0 ? 400_000 : 400), using: &random))
            var directives = fixture.handle(event)
            while let record = directives.toSign { directives = fixture.handle(.signed(record)) }
            expectConsistent(fixture)
        }
    }

    private func expectConsistent(_ fixture: Fixture) {
        let membership = fixture.membership
        let members = membership.members
        let counts = membership.counts
        #expect(counts.alive == members.count { $0.state == .alive })
        #expect(counts.suspect == members.count { $0.state == .suspect })
        #expect(counts.dead == members.count { $0.state == .dead })
        #expect(counts.left == members.count { $0.state == .left })
        #expect(Set(members.map(\.record.name)).count == members.count)
        for member in members { #expect(membership.member(member.record.name) == member) }
        #expect(membership.member(membership.own.name)?.record == membership.own)
        #expect(membership.contentCount == members.reduce(0) { $0 + membership.content(of: $1.record.name).count })
        // A shell that sleeps until the deadline does not spin.
        #expect(membership.nextDeadline > fixture.now)
    }

    @Test func theTableIsBounded() throws {
        var fixture = try Fixture()
        for batch in 0..<17 {
            let records = try (0..<1_000).map { GossipItem.record(try Fixture.record("n\(batch)-\($0)")) }
            _ = try fixture.receive(records)
        }
        #expect(fixture.membership.counts.alive == MembershipLimits.maxMembers)
        #expect(fixture.membership.statistics.refusedFull == 17_001 - MembershipLimits.maxMembers)
        #expect(fixture.membership.queuedNews <= MembershipLimits.maxBroadcasts)
    }

    @Test func framesThatAreBuiltKeepTheirLimits() throws {
        var fixture = try Fixture()
        for batch in 0..<3 {
            let records = try (0..<1_000).map { GossipItem.record(try Fixture.record("n\(batch)-\($0)", proof: 4_000)) }
            _ = try fixture.receive(records)
        }
        for (_, frame) in fixture.run(until: .seconds(60)).sent {
            let bytes = frame.items.reduce(0) { sum, item in
                if case .record(let record) = item { sum + record.proof.count } else { sum }
            }
            #expect(bytes <= MembershipLimits.maxItemBytesPerFrame)
        }
    }
}
