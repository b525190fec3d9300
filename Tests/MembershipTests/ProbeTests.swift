import ChunkModel
import Membership
import Testing

/// Probes, help from others, local health.
@Suite struct ProbeTests {
    /// Runs until a ping goes out; whom to, its number, and when.
    private func nextPing(_ fixture: inout Fixture) throws -> (to: String, sequence: UInt32) {
        for _ in 0..<100 {
            fixture.now = max(fixture.now, fixture.membership.nextDeadline)
            for (to, frame) in fixture.handle(.tick).sent {
                for case .ping(let sequence) in frame.messages { return (to, sequence) }
            }
        }
        throw Missing()
    }

    private struct Missing: Error {}

    @Test func everyMemberIsProbedOnceARound() throws {
        let others = (0..<40).map { "peer\($0)" }
        var fixture = try Fixture(knows: others)
        for _ in 0..<3 {
            var seen: [String] = []
            for _ in others {
                let (to, sequence) = try nextPing(&fixture)
                seen.append(to)
                _ = try fixture.receive([], [.ack(sequence: sequence)], from: to)
            }
            #expect(Set(seen) == Set(others))
        }
    }

    @Test func anAnswerGivesARoundTripAndGoodHealth() throws {
        var fixture = try Fixture(knows: ["peer"])
        let (to, sequence) = try nextPing(&fixture)
        fixture.now += .milliseconds(3)
        _ = try fixture.receive([], [.ack(sequence: sequence)], from: to)
        #expect(fixture.membership.member(try Fixture.name("peer"))?.roundTrip == .milliseconds(3))
        _ = fixture.run(until: fixture.now + .milliseconds(900))
        #expect(try fixture.state("peer") == .alive)
        #expect(fixture.membership.statistics.probesFailed == 0)
    }

    @Test func anAnswerFromSomebodyElseIsNone() throws {
        var fixture = try Fixture(knows: ["peer", "liar"])
        let (to, sequence) = try nextPing(&fixture)
        let other = to == "peer" ? "liar" : "peer"
        _ = try fixture.receive([], [.ack(sequence: sequence)], from: other)
        _ = try fixture.receive([], [.ack(sequence: sequence &+ 1)], from: to)
        _ = fixture.run(until: fixture.now + .milliseconds(1_100))
        #expect(try fixture.state(to) == .suspect)
    }

    @Test func othersAreAskedBeforeAMemberIsSuspected() throws {
        let others = (0..<9).map { "peer\($0)" }
        var fixture = try Fixture(knows: others)
        let (target, sequence) = try nextPing(&fixture)
        let directives = fixture.run(until: fixture.now + .milliseconds(600))
        let expected = GossipMessage.pingRequest(sequence: sequence, target: try Fixture.name(target))
        let asked = directives.sent.filter { $0.frame.messages.contains(expected) }.map(\.to)
        #expect(Set(asked).count == 3)
        #expect(!asked.contains(target))
        _ = try fixture.receive([], [.ack(sequence: sequence)], from: #require(asked.first))
        _ = fixture.run(until: fixture.now + .milliseconds(300))
        #expect(try fixture.state(target) == .alive)
        #expect(fixture.membership.statistics.probesFailed == 0)
    }

    @Test func anUnreachablePeerIsNotWaitedFor() throws {
        var fixture = try Fixture(knows: (0..<9).map { "peer\($0)" })
        let (target, sequence) = try nextPing(&fixture)
        let directives = fixture.handle(.unreachable(try Fixture.name(target)))
        let expected = GossipMessage.pingRequest(sequence: sequence, target: try Fixture.name(target))
        #expect(directives.sent.filter { $0.frame.messages.contains(expected) }.count == 3)
    }

    @Test func helpersThatSayNothingAreASignOfOwnTrouble() throws {
        var fixture = try Fixture(knows: (0..<9).map { "peer\($0)" })
        let (_, sequence) = try nextPing(&fixture)
        let first = fixture.run(until: fixture.now + .milliseconds(600))
        let asked = first.sent.filter { sent in
            sent.frame.messages.contains { if case .pingRequest = $0 { true } else { false } }
        }.map(\.to)
        // One of three says no: two are missing.
        _ = try fixture.receive([], [.nack(sequence: sequence)], from: #require(asked.first))
        _ = fixture.run(until: fixture.now + .milliseconds(450))
        #expect(fixture.membership.localHealthScore == 2)
        // Then all takes three times as long: the next probe has not failed after one interval.
        #expect(fixture.membership.statistics.probesFailed == 1)
        _ = fixture.run(until: fixture.now + .milliseconds(2_900))
        #expect(fixture.membership.statistics.probesFailed == 1)
        _ = fixture.run(until: fixture.now + .milliseconds(200))
        #expect(fixture.membership.statistics.probesFailed == 2)
    }

    @Test func localHealthStaysInItsBounds() throws {
        var fixture = try Fixture(knows: (0..<9).map { "peer\($0)" })
        _ = fixture.run(until: .seconds(200))
        #expect(fixture.membership.localHealthScore == fixture.membership.configuration.maxLocalHealth)
    }

    @Test func aPingIsPassedOnAndItsAnswerBack() throws {
        var fixture = try Fixture(knows: ["asker", "target"])
        let target = try Fixture.name("target")
        let directives = try fixture.receive([], [.pingRequest(sequence: 9, target: target)], from: "asker")
        let ping = try #require(directives.sent.first { $0.to == "target" }?.frame.messages.first)
        guard case .ping(let sequence) = ping else {
            Issue.record("not a ping: \(ping)")
            return
        }
        let back = try fixture.receive([], [.ack(sequence: sequence)], from: "target")
        #expect(back.sent.first?.to == "asker")
        #expect(back.sent.first?.frame.messages == [.ack(sequence: 9)])
    }

    @Test func whoAskedIsToldThatThereIsNoAnswer() throws {
        var fixture = try Fixture(knows: ["asker", "target"])
        _ = try fixture.receive([], [.pingRequest(sequence: 9, target: Fixture.name("target"))], from: "asker")
        let directives = fixture.run(until: .milliseconds(450))
        #expect(directives.sent.contains { $0.to == "asker" && $0.frame.messages.contains(.nack(sequence: 9)) })
        // Of a stranger at once.
        let stranger = try fixture.receive(
            [], [.pingRequest(sequence: 10, target: Fixture.name("nobody"))], from: "asker")
        #expect(stranger.sent.first?.frame.messages == [.nack(sequence: 10)])
    }

    @Test func probesForOthersAreBounded() throws {
        var fixture = try Fixture(knows: ["asker", "target"])
        var pings = 0
        for number in 0..<1_000 {
            let directives = try fixture.receive(
                [], [.pingRequest(sequence: UInt32(number), target: Fixture.name("target"))], from: "asker")
            pings += directives.sent.filter { $0.to == "target" }.count
        }
        #expect(pings == MembershipLimits.maxRelays)
    }
}
