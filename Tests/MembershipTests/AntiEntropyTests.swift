import ChunkModel
import Membership
import Testing

/// Comparing what two nodes know, and joining.
@Suite struct AntiEntropyTests {
    /// Lets two memberships talk until neither has anything to say to the other; how many frames and items that took.
    private func converse(_ a: inout Fixture, _ b: inout Fixture, first: [Membership.Directive]) throws
        -> (frames: Int, items: Int)
    {
        let names = (a.membership.own.name.text, b.membership.own.name.text)
        var pending = first.sent.filter { $0.to == names.1 }.map { (isForB: true, frame: $0.frame) }
        var frames = 0
        var items = 0
        while !pending.isEmpty {
            let (isForB, frame) = pending.removeFirst()
            frames += 1
            items += frame.items.count
            guard frames < 1_000 else { break }
            if isForB {
                let sent = try b.receive(frame.items, frame.messages, from: names.0).sent
                pending += sent.filter { $0.to == names.0 }.map { (false, $0.frame) }
            } else {
                let sent = try a.receive(frame.items, frame.messages, from: names.1).sent
                pending += sent.filter { $0.to == names.1 }.map { (true, $0.frame) }
            }
        }
        return (frames, items)
    }

    /// Runs `a` until it asks `b` to compare, with gossip and probes thrown away.
    private func comparison(_ a: inout Fixture) throws -> [Membership.Directive] {
        for _ in 0..<1_000 {
            a.now = max(a.now, a.membership.nextDeadline)
            let directives = try a.tickAnswering()
            // Not the digest that comes with a probe: that is not always answered.
            let hasDigest = directives.sent.contains { sent in
                if case .syncDigest? = sent.frame.messages.first { sent.frame.messages.count == 1 } else { false }
            }
            if hasDigest { return directives }
        }
        Issue.record("no comparison")
        return []
    }

    private func pair(_ count: Int) throws -> (Fixture, Fixture) {
        let others = (0..<count).map { "peer\($0)" }
        return (try Fixture("a", knows: ["b"] + others), try Fixture("b", knows: ["a"] + others))
    }

    @Test func theDigestDoesNotDependOnTheOrderOfNews() throws {
        let records = try (0..<50).map { try Fixture.record("peer\($0)", proof: 8) }
        var (forward, backward) = (try Fixture(), try Fixture())
        for record in records { _ = try forward.receive([.record(record)]) }
        for record in records.reversed() { _ = try backward.receive([.record(record)]) }
        #expect(forward.membership.digest == backward.membership.digest)
        let newer = try Fixture.record("peer7", 1_001)
        _ = try forward.receive([.record(newer)])
        #expect(forward.membership.digest != backward.membership.digest)
        _ = try backward.receive([.record(newer)])
        #expect(forward.membership.digest == backward.membership.digest)
    }

    @Test func anEqualDigestIsNotAnswered() throws {
        var (a, b) = try pair(1)
        let digest = GossipMessage.syncDigest(root: a.membership.digest)
        #expect(b.membership.digest == a.membership.digest)
        #expect(try b.receive([], [digest], from: "a").sent.isEmpty)
    }

    @Test func oneDifferenceAmongManyIsFoundAndOnlyItIsSent() throws {
        var (a, b) = try pair(2_000)
        let newer = try Fixture.record("peer1234", 1_001, boot: 1_000, proof: 700)
        _ = try b.receive([.record(newer)])
        _ = try b.runAnswering(until: .seconds(20))
        let before = a.membership.digest
        var first = try comparison(&a)
        // The partner is chosen by chance: say it to b.
        first = first.sent.map { .send($0.frame, to: Destination(name: b.membership.own.name, address: nil)) }
        let (frames, items) = try converse(&a, &b, first: first)
        #expect(a.membership.digest != before)
        #expect(a.membership.member(newer.name)?.record == newer)
        #expect(frames <= 5)
        // b's own record rides on its digests; news in b's queue may ride too.
        #expect(items <= 6)
    }

    @Test func aNewcomerLearnsAllFromOneNodeInBoundedFrames() throws {
        let count = 600
        var old = try Fixture("old")
        for number in 0..<count {
            _ = try old.receive([.record(Fixture.record("peer\(number)", proof: 700))])
        }
        _ = try old.runAnswering(until: .seconds(20))
        var new = try Fixture("new")
        var directives = new.handle(.seeds(["old:4710"]))
        #expect(directives.sent.map(\.to) == ["old:4710"])
        directives = directives.sent.map {
            .send($0.frame, to: Destination(name: old.membership.own.name, address: nil))
        }
        var rounds = 0
        while new.membership.counts.alive < count + 2, rounds < 100 {
            let (_, items) = try converse(&new, &old, first: directives)
            rounds += 1
            #expect(items < 4 * MembershipLimits.maxItemBytesPerFrame / 700)
            directives = try comparison(&new).sent.map {
                .send($0.frame, to: Destination(name: old.membership.own.name, address: nil))
            }
        }
        #expect(new.membership.counts.alive == count + 2)
        // 600 × 708 bytes in frames of 56 KiB are 8; a round is one frame, and not all are full.
        #expect(rounds <= 30)
        #expect(old.membership.member(new.membership.own.name)?.state == .alive)
    }

    @Test func aClaimOfDeathMetInAntiEntropyIsProbedNotBelieved() throws {
        var fixture = try Fixture(knows: (0..<5).map { "peer\($0)" })
        let victim = try Fixture.name("peer3")
        _ = try fixture.receive(
            [.dead(victim, incarnation: 1_000, accuser: Fixture.name("peer0"))],
            [.syncReply(wants: [], isPartial: false)], from: "peer0")
        #expect(try fixture.state("peer3") == .alive)
        let pinged = fixture.run(until: .milliseconds(1_000)).sent.filter { sent in
            sent.frame.messages.contains { if case .ping = $0 { true } else { false } }
        }
        #expect(pinged.first?.to == "peer3")
    }

    @Test func givingOutIsLimitedPerSecond() throws {
        var configuration = MembershipConfiguration()
        configuration.syncBytesPerSecond = 100_000
        var fixture = try Fixture(configuration: configuration)
        for number in 0..<300 { _ = try fixture.receive([.record(Fixture.record("peer\(number)", proof: 700))]) }
        _ = try fixture.runAnswering(until: .seconds(60))
        var given = 0
        for _ in 0..<50 {
            let summary = GossipMessage.syncSummary(buckets: (0...255).map { UInt8($0) }, entries: [])
            given += try fixture.receive([], [summary], from: "greedy").items.count
        }
        #expect((100...200).contains(given * 708 / 1_000))
    }

    @Test func messagesThatBreakTheProtocolAreIgnored() throws {
        var fixture = try Fixture(knows: ["peer"])
        // Not asked for, and of the wrong size.
        #expect(try fixture.receive([], [.syncBuckets([UInt64](repeating: 1, count: 256))]).sent.isEmpty)
        #expect(try fixture.receive([], [.syncBuckets([1, 2, 3])]).sent.isEmpty)
        let entry = SummaryEntry(nameHash: 1, incarnation: 1, content: 0, isGone: false)
        let long = [SummaryEntry](repeating: entry, count: MembershipLimits.maxSummaryEntries + 1)
        #expect(try fixture.receive([], [.syncSummary(buckets: [0], entries: long)]).sent.isEmpty)
        #expect(fixture.membership.statistics.refusedMessages == 3)
    }

    @Test func seedsAreAskedUntilSomebodyIsKnownAndAgainWhenTheyAreNoMembers() throws {
        var fixture = try Fixture()
        let seeds = ["seed1:4710", "seed2:4710", "own:4710"]
        var asked = fixture.handle(.seeds(seeds)).sent.map(\.to)
        asked += try fixture.runAnswering(until: .seconds(5)).sent.map(\.to)
        #expect(asked.count >= 10)
        #expect(Set(asked) == ["seed1:4710", "seed2:4710"])
        // seed1 is a member now; seed2 is still looked for, but not so often.
        _ = try fixture.receive([.record(Fixture.record("somebody", address: "seed1:4710"))])
        let outside = try fixture.runAnswering(until: .seconds(200)).sent.map(\.to).filter { $0.contains(":") }
        #expect(Set(outside) == ["seed2:4710"])
        #expect((3...18).contains(outside.count))
    }
}
