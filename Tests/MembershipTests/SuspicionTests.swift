import ChunkModel
import Membership
import Testing

/// What a node believes of others, and how it defends itself.
@Suite struct SuspicionTests {
    private static let others = (0..<9).map { "peer\($0)" }

    @Test func anAccusationIsRefutedWithAHigherIncarnation() throws {
        var fixture = try Fixture(knows: Self.others)
        let own = fixture.membership.own
        fixture.now = .seconds(10)
        let directives = try fixture.receive([
            .suspect(own.name, incarnation: own.incarnation, accuser: Fixture.name("peer1"))
        ])
        let record = try #require(directives.toSign)
        #expect(record.incarnation == own.incarnation + 1)
        #expect(record.boot == own.boot)
        #expect(fixture.membership.localHealthScore == 1)
        let signed = try #require(record.signed(proof: [1, 2, 3]))
        _ = fixture.handle(.signed(signed))
        #expect(fixture.membership.own == signed)
        fixture.now += .seconds(1)
        let sent = fixture.handle(.tick)
        #expect(sent.items.contains(.record(signed)))
    }

    @Test func refutationsAreNotMoreFrequentThanConfigured() throws {
        var fixture = try Fixture(knows: Self.others)
        var signatures = 0
        for step in 0..<1_000 {
            fixture.now = .milliseconds(step * 10)
            let own = fixture.membership.own
            var pending = try fixture.receive([
                .dead(own.name, incarnation: own.incarnation, accuser: Fixture.name("peer1"))
            ])
            while let record = pending.toSign {
                signatures += 1
                pending = fixture.handle(.signed(record))
            }
        }
        // Ten seconds, one in half a second.
        #expect((10...21).contains(signatures))
    }

    @Test func anAccusationAgainstAnotherIncarnationIsIgnored() throws {
        var fixture = try Fixture(knows: Self.others)
        let victim = try Fixture.name("peer3")
        let accuser = try Fixture.name("peer1")
        for incarnation in [999, 1_001, UInt64.max] {
            _ = try fixture.receive([
                .suspect(victim, incarnation: incarnation, accuser: accuser),
                .dead(victim, incarnation: incarnation, accuser: accuser),
                .dead(fixture.membership.own.name, incarnation: incarnation, accuser: accuser),
            ])
        }
        #expect(try fixture.state("peer3") == .alive)
        #expect(fixture.membership.own.incarnation == 1_000)
        #expect(fixture.membership.statistics.refutations == 0)
    }

    @Test func deadFromOthersIsASuspicionThatLastsItsMinimum() throws {
        var fixture = try Fixture(knows: Self.others)
        _ = try fixture.receive([.dead(Fixture.name("peer3"), incarnation: 1_000, accuser: Fixture.name("peer1"))])
        #expect(try fixture.state("peer3") == .suspect)
        // Ten members: 4 × log10(10) × 1 s = 4 s (the logarithm here is up to 3 % low).
        _ = fixture.run(until: .milliseconds(3_800))
        #expect(try fixture.state("peer3") == .suspect)
        // And a second in which others may object.
        _ = fixture.run(until: .milliseconds(5_100))
        #expect(try fixture.state("peer3") == .dead)
    }

    @Test func confirmationsShortenASuspicionFromMaximumToMinimum() throws {
        // 4 s × 6, and with 1, 2, 3 of 3 confirmations (log2 by linear interpolation: 1, 1.5, 2 of 2).
        let expected: [Double] = [24, 14, 9, 4]
        for (confirmations, seconds) in expected.enumerated() {
            var fixture = try Fixture(knows: Self.others)
            for accuser in 0...confirmations {
                _ = try fixture.receive([
                    .suspect(
                        Fixture.name("peer8"), incarnation: 1_000, accuser: Fixture.name("peer\(accuser)"))
                ])
            }
            _ = fixture.run(until: .seconds(seconds * 0.94))
            #expect(try fixture.state("peer8") == .suspect, "\(confirmations) confirmations")
            _ = fixture.run(until: .seconds(seconds * 1.01 + 1))
            #expect(try fixture.state("peer8") == .dead, "\(confirmations) confirmations")
        }
    }

    @Test func theSameAccuserTwiceIsNoConfirmation() throws {
        var fixture = try Fixture(knows: Self.others)
        for _ in 0..<10 {
            _ = try fixture.receive([
                .suspect(Fixture.name("peer8"), incarnation: 1_000, accuser: Fixture.name("peer1"))
            ])
        }
        _ = fixture.run(until: .seconds(20))
        #expect(try fixture.state("peer8") == .suspect)
    }

    @Test func aSuspectThatTalksIsToldAndDoesNotDie() throws {
        var fixture = try Fixture(knows: Self.others)
        let victim = try Fixture.name("peer8")
        for accuser in 0..<4 {
            _ = try fixture.receive([
                .suspect(victim, incarnation: 1_000, accuser: Fixture.name("peer\(accuser)"))
            ])
        }
        // Four accusers: it would be dead after four seconds.
        for second in 1...10 {
            _ = fixture.run(until: .seconds(second))
            let answer = try fixture.receive([], [.ping(sequence: 7)], from: "peer8")
            let frame = try #require(answer.sent.first { $0.to == "peer8" }?.frame)
            #expect(frame.messages == [.ack(sequence: 7)])
            guard case .suspect(victim, 1_000, _)? = frame.items.first else {
                Issue.record("the suspect is not told: \(frame)")
                return
            }
        }
        #expect(try fixture.state("peer8") == .suspect)
        // But not for ever, if it never refutes.
        for second in 11...32 {
            _ = fixture.run(until: .seconds(second))
            _ = try fixture.receive([], [.ping(sequence: 7)], from: "peer8")
        }
        #expect(try fixture.state("peer8") == .dead)
    }

    @Test func theDeadAreToldAndComeBackWithAHigherIncarnation() throws {
        var fixture = try Fixture(knows: Self.others)
        let victim = try Fixture.name("peer8")
        _ = try fixture.receive([.dead(victim, incarnation: 1_000, accuser: Fixture.name("peer1"))])
        _ = fixture.run(until: .seconds(10))
        #expect(try fixture.state("peer8") == .dead)
        let answer = try fixture.receive([], [.ping(sequence: 1)], from: "peer8")
        #expect(answer.items.first == .dead(victim, incarnation: 1_000, accuser: fixture.membership.own.name))
        // Its old record does not revive it, a newer one does.
        _ = try fixture.receive([.record(Fixture.record("peer8", 1_000))])
        #expect(try fixture.state("peer8") == .dead)
        let back = try fixture.receive([.record(Fixture.record("peer8", 1_001, boot: 1_000))])
        #expect(back.states == ["peer8@1001 alive"])
    }

    @Test func aRestartedNodeTakesOverItsNameAndItsContentIsVoid() throws {
        var fixture = try Fixture(knows: Self.others)
        _ = try fixture.receive([.content(Fixture.content("peer1", 1, counter: 1))])
        #expect(fixture.membership.contentCount == 1)
        let directives = try fixture.receive([.record(Fixture.record("peer1", 2_000, address: "elsewhere:4710"))])
        #expect(directives.contains(.contentVoid(try Fixture.name("peer1"))))
        #expect(fixture.membership.contentCount == 0)
        #expect(fixture.membership.member(try Fixture.name("peer1"))?.record.address == "elsewhere:4710")
        // Content of the old boot comes late.
        _ = try fixture.receive([.content(Fixture.content("peer1", 1, counter: 2))])
        #expect(fixture.membership.contentCount == 0)
    }

    @Test func aNodeWhoseClockWentBackGoesAboveItsOldRecord() throws {
        var old = try Fixture("old", knows: ["own"])
        // `own` was known at 1,000 and greets with 400: it is shown its old record.
        let stale = try Fixture.record("own", 400)
        let answer = try old.receive([.record(stale)], from: "own")
        #expect(answer.sent.first?.to == "own")
        #expect(answer.items.contains(.record(try Fixture.record("own", 1_000))))

        var own = try Fixture("own")
        let newer = try Fixture.record("own", 5_000)
        let directives = try own.receive([.record(newer)])
        #expect(directives.contains(.conflict(newer)))
        #expect(directives.toSign?.incarnation == 5_001)
        #expect(directives.toSign?.boot == 1_000)
    }

    @Test func whoLeftIsNotRevivedByOldNewsNorAccused() throws {
        var fixture = try Fixture(knows: Self.others)
        let gone = try Fixture.record("peer2", 1_001, boot: 1_000, hasLeft: true)
        let directives = try fixture.receive([.record(gone)])
        #expect(directives.states == ["peer2@1001 left"])
        _ = try fixture.receive([
            .record(Fixture.record("peer2", 1_000)),
            .suspect(gone.name, incarnation: 1_001, accuser: Fixture.name("peer1")),
        ])
        #expect(try fixture.state("peer2") == .left)
        // Forgotten after an hour; then its goodbye is no news.
        let later = fixture.run(until: .seconds(3_800))
        #expect(later.contains(.forgotten(gone.name)))
        _ = try fixture.receive([.record(gone)])
        #expect(try fixture.state("peer2") == nil)
    }

    @Test func aDepartingNodeTellsOthersAndThenMayEnd() throws {
        var fixture = try Fixture(knows: Self.others)
        fixture.now = .seconds(1)
        let record = try #require(fixture.handle(.leave).toSign)
        #expect(record.hasLeft)
        let told = fixture.handle(.signed(record))
        // Four times log10 of ten.
        #expect(Set(told.sent.filter { $0.frame.items.contains(.record(record)) }.map(\.to)).count == 4)
        #expect(fixture.membership.hasLeft)
        // Not even an accusation brings it back.
        let accused = try fixture.receive([
            .suspect(record.name, incarnation: record.incarnation, accuser: Fixture.name("peer1"))
        ])
        #expect(accused.toSign == nil)
        let later = fixture.run(until: .seconds(5))
        #expect((told + accused + later).filter { $0 == .departed }.count == 1)
    }
}
