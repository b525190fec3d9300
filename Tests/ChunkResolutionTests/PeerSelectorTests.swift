import ChunkModel
import ChunkResolution
import ContentIndex
import Testing

@Suite struct PeerSelectorTests {
    private static let blob: WireID = {
        guard let id = WireID(rawBytes: (0..<32).map { UInt8($0) }) else { fatalError("32 bytes are an id") }
        return id
    }()
    private var blob: WireID { Self.blob }
    private let layout = Blobs.layout(chunks: 64)

    private func node(_ number: Int) -> NodeName {
        guard let name = NodeName("node-\(number)") else { fatalError("a valid name") }
        return name
    }

    /// Nodes 1...count, registered; `complete` have everything.
    private func index(_ count: Int, complete: [Int] = [], zone: (Int) -> String = { _ in "" }) -> ContentIndex {
        var index = ContentIndex()
        for number in 1...count {
            index.setMember(node(number), zone: zone(number), now: .zero)
            let state: ContentRecord.State = complete.contains(number) ? .complete : .registered
            _ = index.apply(node(number), blob, version: 1, ContentRecord(state), now: .zero)
        }
        return index
    }

    private func sources(
        _ selector: inout PeerSelector, _ index: ContentIndex, chunk: Int = 0, at now: Duration = .zero
    ) -> [FetchSource] {
        selector.plan([(chunk, .demand)], of: blob, layout: layout, index: index, now: now).first?.sources ?? []
    }

    /// The nodes in the order of segment 0.
    private func order(_ index: ContentIndex, segment: UInt64 = 0) -> [NodeName] {
        index.rendezvous(blob, segment: segment, limit: 100)
    }

    @Test func theTopAsksTheRegistryAndTheOthersClimb() {
        let index = index(30)
        let order = order(index)
        for (rank, name) in order.enumerated() {
            var selector = PeerSelector(own: name)
            let sources = sources(&selector, index)
            guard rank > 0 else {
                #expect(sources.isEmpty)
                continue
            }
            #expect(sources.first == .peer(order[(rank - 1) / 4], fetch: true))
            #expect(sources.last == .peer(order[0], fetch: true))
        }
    }

    @Test func whoHasItIsAskedBeforeTheNodeAbove() {
        let index = index(8, complete: [3])
        let low = order(index).last { $0 != node(3) } ?? node(1)
        var selector = PeerSelector(own: low)
        let sources = sources(&selector, index)
        #expect(sources.first == .peer(node(3), fetch: false))
        #expect(sources.dropFirst().allSatisfy { if case .peer(_, fetch: true) = $0 { true } else { false } })
        #expect(sources.count > 1)
    }

    @Test func whoHasItAndIsAboveIsAskedOnceAndTheRegistryIsNoSecondThen() throws {
        // The top has everything.
        let order = order(index(8))
        let index = index(8, complete: (1...8).filter { node($0) == order[0] })
        for (rank, name) in order.enumerated().dropFirst() {
            var selector = PeerSelector(own: name)
            let plan = try #require(
                selector.plan([(0, .demand)], of: blob, layout: layout, index: index, now: .zero).first)
            let asked = plan.sources.compactMap(\.peer)
            #expect(asked.first == order[0])
            #expect(Set(asked).count == asked.count, "a second time: \(asked)")
            #expect((plan.hedgeAfter == nil) == (asked.count == 1), "rank \(rank): \(plan)")
        }
    }

    @Test func whoMayHaveItIsAskedOnlyWhenNobodyIsAboveAndNotForLong() {
        var index = index(8)
        let order = order(index)
        // Half or more of every bucket: 32 of 64 chunks cannot say so; 128 chunks can.
        let layout = Blobs.layout(chunks: 128, size: 4096)
        let half = ContentRecord(residency: [UInt8](repeating: 0x55, count: 16), chunkCount: 128)
        for name in order.dropFirst(4) { _ = index.apply(name, blob, version: 2, half, now: .zero) }
        func first(_ selector: inout PeerSelector) -> FetchSource? {
            selector.plan([(0, .demand)], of: blob, layout: layout, index: index, now: .zero).first?.sources.first
        }
        var lower = PeerSelector(own: order[3])
        #expect(first(&lower) == .peer(order[0], fetch: true))
        var top = PeerSelector(own: order[0])
        for _ in 0..<2 {
            guard case .peer(let name, fetch: false) = first(&top) else {
                Issue.record("the top asks those who may have it")
                return
            }
            top.noteEnded(name, bytes: 1, of: blob, segment: 0, fetch: false, .absent, now: .zero)
        }
        #expect(first(&top) == nil, "two had not got it: the registry")
    }

    @Test func chunksOfOneSegmentHaveOnePlan() {
        let index = index(8, complete: [1, 2, 3, 4])
        var selector = PeerSelector(own: node(8))
        let plans = selector.plan(
            (0..<32).map { ($0, .readAhead) }, of: blob, layout: layout, index: index, now: .zero)
        #expect(plans.count == 32)
        #expect(Set(plans[0..<16].map(\.sources)).count == 1)
        #expect(Set(plans[16..<32].map(\.sources)).count == 1)
        #expect(plans.allSatisfy { $0.hedgeAfter == nil })
    }

    @Test func whatIsAskedOfAPeerMakesOthersLookBetter() {
        let index = index(3, complete: [1, 2])
        var selector = PeerSelector(own: node(3))
        guard case .peer(let first, _) = sources(&selector, index).first else {
            Issue.record("there are holders")
            return
        }
        selector.noteStarted(first, bytes: 64 << 20, now: .zero)
        let other = first == node(1) ? node(2) : node(1)
        #expect(sources(&selector, index).first == .peer(other, fetch: false))
        selector.noteEnded(
            first, bytes: 64 << 20, of: blob, segment: 0, fetch: false, .cancelled(silence: .zero), now: .zero)
        #expect(sources(&selector, index).first == .peer(first, fetch: false))
    }

    @Test func theOwnZoneComesFirstUnlessItIsMuchSlower() {
        let index = index(3, complete: [1, 2], zone: { $0 == 2 ? "b" : "a" })
        var selector = PeerSelector(own: node(3))
        #expect(sources(&selector, index).first == .peer(node(1), fetch: false))
        for _ in 0..<20 {
            selector.noteStarted(node(1), bytes: 1 << 20, now: .zero)
            selector.noteEnded(
                node(1), bytes: 1 << 20, of: blob, segment: 0, fetch: false,
                .served(bytes: 1 << 20, firstByte: .seconds(1), elapsed: .seconds(3)), now: .zero)
        }
        #expect(sources(&selector, index).first == .peer(node(2), fetch: false))
    }

    @Test func ofThoseWhoNeverGaveAnythingOneThatDidNotFailIsAskedHoweverFar() {
        let index = index(3, complete: [1, 2])
        var selector = PeerSelector(own: node(3))
        selector.noteRoundTrip(node(1), .milliseconds(1), now: .zero)
        selector.noteRoundTrip(node(2), .seconds(1), now: .zero)
        func holder(_ now: Duration) -> FetchSource? { sources(&selector, index, at: now).first }
        #expect(holder(.zero) == .peer(node(1), fetch: false))
        selector.noteEnded(node(1), bytes: 1, of: blob, segment: 0, fetch: false, .failed, now: .zero)
        // Its back-off is over.
        #expect(holder(.seconds(1)) == .peer(node(2), fetch: false))
        selector.noteEnded(node(2), bytes: 1, of: blob, segment: 0, fetch: false, .failed, now: .seconds(1))
        #expect(holder(.seconds(2)) == .peer(node(1), fetch: false))
    }

    @Test func failuresBackOffAndDouble() {
        var selector = PeerSelector(own: node(2))
        func fail(_ now: Duration) {
            selector.noteEnded(node(1), bytes: 1, of: blob, segment: 0, fetch: false, .failed, now: now)
        }
        fail(.zero)
        #expect(!selector.isUsable(node(1), now: .milliseconds(249)))
        #expect(selector.isUsable(node(1), now: .milliseconds(250)))
        fail(.seconds(1))
        #expect(!selector.isUsable(node(1), now: .milliseconds(1499)))
        #expect(selector.isUsable(node(1), now: .milliseconds(1500)))
        selector.noteEnded(
            node(1), bytes: 1, of: blob, segment: 0, fetch: false,
            .served(bytes: 1, firstByte: .milliseconds(1), elapsed: .milliseconds(1)), now: .seconds(2))
        fail(.seconds(3))
        #expect(selector.isUsable(node(1), now: .milliseconds(3250)), "it starts small again")
    }

    @Test func aLiarIsOutForAllBlobsAndLongerEachTime() throws {
        let index = index(2, complete: [1])
        var selector = PeerSelector(own: node(2))
        selector.quarantine(node(1), reason: "wrong_bytes", now: .zero)
        #expect(sources(&selector, index).isEmpty)
        #expect(sources(&selector, index, at: .seconds(599)).isEmpty)
        let status = try #require(selector.status(of: node(1), now: .seconds(10)))
        #expect(status.quarantineReason == "wrong_bytes")
        #expect(status.quarantine == .seconds(590))
        #expect(status.score == 0)
        #expect(sources(&selector, index, at: .seconds(600)) == [.peer(node(1), fetch: false)])
        selector.quarantine(node(1), reason: "wrong_bytes", now: .seconds(600))
        #expect(!selector.isUsable(node(1), now: .seconds(1799)))
        #expect(selector.isUsable(node(1), now: .seconds(1800)))
        selector.quarantine(node(1), reason: "wrong_bytes", now: .seconds(1800))
        selector.release(node(1))
        #expect(selector.isUsable(node(1), now: .seconds(1800)))
    }

    @Test func aQuarantinedNodeIsNotInTheTree() {
        let index = index(10)
        let order = order(index)
        var selector = PeerSelector(own: order[1])
        #expect(sources(&selector, index) == [.peer(order[0], fetch: true)])
        selector.quarantine(order[0], reason: "wrong_bytes", now: .zero)
        #expect(sources(&selector, index).isEmpty, "next in order: it asks the registry itself")
    }

    @Test func afterAFewHaveLiedOnlyWhoGaveSomethingIsBelieved() {
        let index = index(20, complete: Array(1...20))
        let order = order(index)
        var selector = PeerSelector(own: order[19])
        #expect(sources(&selector, index).first?.peer != nil)
        for liar in order[10...11] { selector.quarantine(liar, reason: "wrong_bytes", now: .zero) }
        guard case .peer(_, fetch: false) = sources(&selector, index).first else {
            Issue.record("two are not enough")
            return
        }
        selector.quarantine(order[12], reason: "wrong_bytes", now: .zero)
        #expect(sources(&selector, index).allSatisfy { if case .peer(_, fetch: true) = $0 { true } else { false } })
        let honest = order[13]
        selector.noteEnded(
            honest, bytes: 9, of: blob, segment: 3, fetch: true,
            .served(bytes: 9, firstByte: .milliseconds(1), elapsed: .milliseconds(2)), now: .zero)
        let holders = sources(&selector, index).filter { if case .peer(_, fetch: false) = $0 { true } else { false } }
        #expect(holders == [.peer(honest, fetch: false)])
    }

    @Test func theTopAsksThoseWhoNeverGaveAnythingOnlyAfterTheRegistry() throws {
        let index = index(20, complete: Array(1...20))
        let order = order(index)
        var selector = PeerSelector(own: order[0])
        for liar in order[1...3] { selector.quarantine(liar, reason: "wrong_bytes", now: .zero) }
        let plan = try #require(
            selector.plan([(0, .demand)], of: blob, layout: layout, index: index, now: .zero).first)
        #expect(plan.sources.isEmpty, "everybody below waits for what the top waits for")
        #expect(plan.lastResort.count == 3)
        for source in plan.lastResort { #expect(try !order[0...3].contains(#require(source.peer))) }
        let located = plan.located(ChunkKey(BlobID(1), 0))
        #expect(located.sources == [.registry] + plan.lastResort)
    }

    @Test func ofThoseWhoNeverGaveAnythingOnlyOneIsNamed() throws {
        let index = index(20, complete: Array(1...20))
        let order = order(index)
        var selector = PeerSelector(own: order[19])
        func holders() -> [NodeName] {
            sources(&selector, index).compactMap { if case .peer(let name, fetch: false) = $0 { name } else { nil } }
        }
        #expect(holders().count == 1, "when it gives nothing, the node above is next")
        let first = try #require(holders().first)
        for name in order[5...7] where name != first {
            selector.noteEnded(
                name, bytes: 9, of: blob, segment: 3, fetch: false,
                .served(bytes: 9, firstByte: .milliseconds(5), elapsed: .milliseconds(6)), now: .zero)
        }
        #expect(holders().count == 3)
    }

    @Test func aSecondSourceDoesNotHideThatTheFirstGaveNothing() {
        let index = index(30)
        let order = order(index)
        var selector = PeerSelector(own: order[1])
        func end(_ outcome: PeerSelector.Outcome, at now: Duration) {
            selector.noteEnded(order[0], bytes: 1, of: blob, segment: 0, fetch: true, outcome, now: now)
        }
        end(.cancelled(silence: .milliseconds(999)), at: .seconds(1))
        #expect(sources(&selector, index) == [.peer(order[0], fetch: true)])
        end(.served(bytes: 1, firstByte: .milliseconds(1), elapsed: .milliseconds(1)), at: .seconds(2))
        end(.cancelled(silence: .seconds(1)), at: .milliseconds(2500))
        #expect(sources(&selector, index) == [.peer(order[0], fetch: true)], "it gave something else meanwhile")
        end(.cancelled(silence: .seconds(1)), at: .seconds(3))
        #expect(sources(&selector, index, at: .seconds(3)).isEmpty)
        #expect(!selector.isUsable(order[0], now: .seconds(12)))
    }

    @Test func aNodeThatAnswersInTimeIsNeverTakenForSilent() {
        let limits = PeerSelector.Limits()
        #expect(limits.wait + .milliseconds(200) <= limits.silence)
        #expect(limits.silence <= limits.minFetchHedge)
    }

    @Test func whoGaveSomethingIsGivenMoreTime() {
        var selector = PeerSelector(own: node(1))
        #expect(selector.noteStarted(node(2), bytes: 1, now: .zero) == .milliseconds(1500))
        selector.noteEnded(
            node(2), bytes: 1, of: blob, segment: 0, fetch: false,
            .served(bytes: 1, firstByte: .milliseconds(1), elapsed: .milliseconds(1)), now: .zero)
        #expect(selector.noteStarted(node(2), bytes: 1, now: .zero) == .seconds(3))
        #expect(selector.noteStarted(node(2), bytes: 1, wait: .milliseconds(750), now: .zero) == .milliseconds(1750))
    }

    @Test func theRegistryIsNoSecondSourceForWhoIsBelowABusyNode() throws {
        let index = index(30)
        let order = order(index)
        var selector = PeerSelector(own: order[9])
        func plan() throws -> PeerSelector.Plan {
            try #require(selector.plan([(0, .demand)], of: blob, layout: layout, index: index, now: .zero).first)
        }
        #expect(try plan().hedgeAfter != nil, "the second is a node above")
        selector.noteEnded(
            order[2], bytes: 1, of: blob, segment: 0, fetch: true, .busy(retryAfter: .seconds(1), holders: []),
            now: .zero)
        #expect(try plan().sources == [.peer(order[0], fetch: true)])
        #expect(try plan().hedgeAfter == nil, "all below a top that is slow would ask the registry")
        var second = PeerSelector(own: order[1])
        let direct = second.plan([(0, .demand)], of: blob, layout: layout, index: index, now: .zero).first
        #expect(direct?.hedgeAfter != nil, "who is next to the top may")
    }

    @Test func hintsOfABusyNodeAreAskedWhileItIsAndThenItselfAgain() throws {
        let index = index(30)
        let order = order(index)
        var selector = PeerSelector(own: order[1])
        selector.noteEnded(
            order[0], bytes: 1, of: blob, segment: 0, fetch: true,
            .busy(retryAfter: .milliseconds(50), holders: [order[7], order[1]]), now: .zero)
        #expect(sources(&selector, index) == [.peer(order[7], fetch: false)], "itself is no hint")
        selector.noteEnded(order[7], bytes: 1, of: blob, segment: 0, fetch: false, .absent, now: .milliseconds(1))
        let plan = try #require(
            selector.plan([(0, .demand)], of: blob, layout: layout, index: index, now: .milliseconds(10)).first)
        #expect(plan.sources.isEmpty)
        #expect(plan.again == .milliseconds(40))
        #expect(sources(&selector, index, at: .milliseconds(50)) == [.peer(order[0], fetch: true)])
    }

    @Test func aNodeThatIsBusyForEverIsPassedOverInTheEnd() {
        let index = index(30)
        let order = order(index)
        var selector = PeerSelector(own: order[1])
        var now = Duration.zero
        var asked = 0
        while now < .seconds(60), sources(&selector, index, at: now) == [.peer(order[0], fetch: true)] {
            asked += 1
            selector.noteEnded(
                order[0], bytes: 1, of: blob, segment: 0, fetch: true, .busy(retryAfter: .zero, holders: []), now: now)
            now += .milliseconds(1)
            while let again = selector.plan([(0, .demand)], of: blob, layout: layout, index: index, now: now)
                .first?.again
            { now += again }
        }
        #expect(asked >= 3 && asked < 20, "\(asked)")
        #expect(now >= .seconds(2) && now < .seconds(5), "\(now)")
        #expect(sources(&selector, index, at: now).isEmpty)
        // Another segment, another chance.
        let other = self.order(index, segment: 1)
        if other[0] == order[0] {
            var second = PeerSelector(own: other[1])
            #expect(sources(&second, index, chunk: 16) == [.peer(order[0], fetch: true)])
        }
    }

    @Test func aSilentNodeIsPassedOverAtOnce() {
        let index = index(30)
        let order = order(index)
        var selector = PeerSelector(own: order[1])
        selector.noteEnded(order[0], bytes: 1, of: blob, segment: 0, fetch: true, .stalled, now: .zero)
        #expect(sources(&selector, index).isEmpty)
        #expect(!selector.isUsable(order[0], now: .seconds(9)))
    }

    @Test func whoIsNotAMemberIsNotAskedWhateverAHintSays() {
        let index = index(4)
        let order = order(index)
        var selector = PeerSelector(own: order[1])
        selector.noteEnded(
            order[0], bytes: 1, of: blob, segment: 0, fetch: true,
            .busy(retryAfter: .seconds(1), holders: [node(99)]), now: .zero)
        #expect(sources(&selector, index).isEmpty)
    }

    @Test func thePathFollowsTheMembers() {
        var index = index(30)
        let order = order(index)
        var selector = PeerSelector(own: order[9])
        #expect(sources(&selector, index).first == .peer(order[2], fetch: true))
        index.forget(order[2], now: .zero)
        #expect(sources(&selector, index).first == .peer(order[1], fetch: true))
        index.setMember(order[2], zone: "", now: .zero)
        #expect(sources(&selector, index).first == .peer(order[2], fetch: true))
    }

    @Test func peersAreBoundedAndTheQuarantinedGoLast() {
        var limits = PeerSelector.Limits()
        limits.peers = 3
        var selector = PeerSelector(own: node(1), limits: limits)
        selector.quarantine(node(2), reason: "wrong_bytes", now: .zero)
        for number in 3...9 { selector.noteRoundTrip(node(number), .milliseconds(1), now: .seconds(number)) }
        #expect(selector.statuses(now: .seconds(9)).map(\.peer) == [node(2), node(8), node(9)])
    }
}
