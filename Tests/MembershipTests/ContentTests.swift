import ChunkModel
import Membership
import Testing

/// Statements about content: who may say what, and in which order they count.
@Suite struct ContentTests {
    @Test func ownContentIsGossipedWithARisingCounter() throws {
        var fixture = try Fixture(knows: ["a", "b"])
        var counters: [UInt32] = []
        for (payload, isGone) in [([UInt8(1)], false), ([2], false), ([], true), ([1], false)] {
            fixture.now += .seconds(1)
            let directives = fixture.handle(
                .publish(blob: try Fixture.blob(1), isGone: isGone, payload: payload))
            let later = fixture.run(until: fixture.now + .milliseconds(300))
            let items = (directives + later).items.compactMap { if case .content(let item) = $0 { item } else { nil } }
            let item = try #require(items.last)
            #expect(item.node == fixture.membership.own.name)
            #expect(item.isGone == isGone)
            #expect(item.payload == payload)
            counters.append(item.version.counter)
        }
        #expect(counters == [1, 2, 3, 4])
    }

    @Test func sayingTheSameAgainIsNoNews() throws {
        var fixture = try Fixture(knows: ["a"])
        _ = fixture.handle(.publish(blob: try Fixture.blob(1), isGone: false, payload: [1]))
        let digest = fixture.membership.digest
        _ = fixture.handle(.publish(blob: try Fixture.blob(1), isGone: false, payload: [1]))
        _ = fixture.handle(.publish(blob: try Fixture.blob(2), isGone: true, payload: []))
        #expect(fixture.membership.digest == digest)
        #expect(fixture.membership.content(of: fixture.membership.own.name).map(\.version.counter) == [1])
    }

    @Test func theHigherCounterCounts() throws {
        var fixture = try Fixture(knows: ["a"])
        let (old, new) = (try Fixture.content("a", 1, counter: 1), try Fixture.content("a", 1, counter: 2))
        #expect(try fixture.receive([.content(new)]).contains(.content(new)))
        #expect(try !fixture.receive([.content(old)]).contains(.content(old)))
        #expect(try !fixture.receive([.content(new)]).contains(.content(new)))
        #expect(fixture.membership.content(of: try Fixture.name("a")) == [new])
    }

    @Test func whatIsGoneStaysGoneUntilItIsForgotten() throws {
        var fixture = try Fixture(knows: ["a"])
        let before = fixture.membership.digest
        let there = try Fixture.content("a", 1, counter: 1)
        let gone = try Fixture.content("a", 1, counter: 2, isGone: true)
        // Of what was never there it is no news that it is gone.
        #expect(try !fixture.receive([.content(gone)]).contains(.content(gone)))
        _ = try fixture.receive([.content(there)])
        #expect(fixture.membership.digest != before)
        #expect(try fixture.receive([.content(gone)]).contains(.content(gone)))
        #expect(fixture.membership.digest == before)
        _ = try fixture.receive([.content(there)])
        #expect(fixture.membership.content(of: there.node).map(\.isGone) == [true])
        _ = fixture.run(until: .seconds(3_800))
        #expect(fixture.membership.contentCount == 0)
    }

    @Test func contentOfUnknownNodesAndOtherBootsIsRefused() throws {
        var fixture = try Fixture(knows: ["a"])
        _ = try fixture.receive([
            .content(Fixture.content("nobody", 1, counter: 1)),
            .content(Fixture.content("a", 1, boot: 999, counter: 1)),
            .content(Fixture.content("a", 1, boot: 1_001, counter: 1)),
        ])
        #expect(fixture.membership.contentCount == 0)
        #expect(fixture.membership.statistics.refusedContent == 3)
    }

    @Test func whatOthersSayInOurNameIsCorrected() throws {
        var fixture = try Fixture(knows: ["a"])
        fixture.now = .seconds(1)
        let own = fixture.membership.own.name
        _ = fixture.handle(.publish(blob: try Fixture.blob(1), isGone: false, payload: [9]))
        _ = try fixture.receive([
            .content(Fixture.content("own", 1, counter: 50, isGone: true)),
            .content(Fixture.content("own", 2, counter: 60)),
        ])
        let content = fixture.membership.content(of: own)
        let first = try #require(content.first { $0.blob == (try? Fixture.blob(1)) })
        #expect(first.payload == [9] && !first.isGone && first.version.counter > 50)
        let second = try #require(content.first { $0.blob == (try? Fixture.blob(2)) })
        #expect(second.isGone && second.version.counter > 60)
        let sent = fixture.run(until: .seconds(2)).items
        #expect(sent.contains(.content(first)) && sent.contains(.content(second)))
    }

    @Test func aForgedCounterAtItsEndMakesANewBoot() throws {
        var fixture = try Fixture(knows: ["a"])
        fixture.now = .seconds(1)
        let blob = try Fixture.blob(1)
        _ = fixture.handle(.publish(blob: blob, isGone: false, payload: [9]))
        let directives = try fixture.receive([.content(Fixture.content("own", 1, counter: .max))])
        let record = try #require(directives.toSign)
        #expect(record.boot == record.incarnation && record.incarnation == 1_001)
        _ = fixture.handle(.signed(record))
        let content = fixture.membership.content(of: record.name)
        #expect(content.map(\.version) == [ContentVersion(boot: 1_001, counter: 1)])
        #expect(content.map(\.payload) == [[9]])
        #expect(fixture.run(until: .seconds(2)).items.contains(.content(try #require(content.first))))
    }

    @Test func itemsOfOneNodeAreBounded() throws {
        var fixture = try Fixture(knows: ["a"])
        for number in 0..<1_000 {
            var bytes = [UInt8](repeating: 0, count: 32)
            bytes[0] = UInt8(number & 255)
            bytes[1] = UInt8(number >> 8)
            let blob = try #require(WireID(rawBytes: bytes))
            let item = try #require(
                try ContentItem(
                    node: Fixture.name("a"), blob: blob,
                    version: ContentVersion(boot: 1_000, counter: 1), payload: []))
            _ = try fixture.receive([.content(item)])
        }
        #expect(fixture.membership.contentCount == MembershipLimits.maxContentPerNode)
    }

    @Test func payloadsUpToTheLimitComeBackAsTheyWere() throws {
        for count in 0...MembershipLimits.maxContentPayload {
            var fixture = try Fixture(knows: ["a"])
            let item = try #require(
                try ContentItem(
                    node: Fixture.name("a"), blob: Fixture.blob(1), version: ContentVersion(boot: 1_000, counter: 1),
                    payload: (0..<count).map { UInt8(255 - $0) }))
            _ = try fixture.receive([.content(item)])
            #expect(fixture.membership.content(of: item.node) == [item])
        }
        #expect(
            try ContentItem(
                node: Fixture.name("a"), blob: Fixture.blob(1), version: ContentVersion(boot: 1, counter: 1),
                payload: [UInt8](repeating: 0, count: MembershipLimits.maxContentPayload + 1)) == nil)
    }
}
