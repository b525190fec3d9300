import ChunkModel
import ChunkResolution
import Testing

/// What the scheduler does with sources that are peers.
@Suite struct PeerFetchTests {
    private let blob = BlobID(1)
    private func key(_ chunk: Int) -> ChunkKey { ChunkKey(blob, chunk) }
    private func peer(_ name: String, fetch: Bool = false) -> FetchSource { .peer(Self.name(name), fetch: fetch) }
    private static func name(_ text: String) -> NodeName {
        guard let name = NodeName(text) else { fatalError("a valid name") }
        return name
    }

    private func scheduler(_ limits: FetchLimits = FetchLimits(), chunks: Int = 256) -> FetchScheduler {
        var scheduler = FetchScheduler(limits: limits, seed: 1)
        scheduler.register(blob, Blobs.layout(chunks: chunks))
        return scheduler
    }

    private func plans(_ directives: [FetchScheduler.Directive]) -> [RangePlan] {
        directives.compactMap { if case .fetch(let plan) = $0 { plan } else { nil } }
    }

    private func miss(
        _ scheduler: inout FetchScheduler, _ chunk: Int, _ sources: [FetchSource], hedgeAfter: Duration? = nil,
        again: Duration? = nil, at now: Duration = .zero
    ) -> [RangePlan] {
        var out = scheduler.handle(.miss(key(chunk)), now: now)
        let located = LocatedChunk(key(chunk), sources, hedgeAfter: hedgeAfter, again: again)
        out += scheduler.handle(.located([located]), now: now)
        return plans(out)
    }

    @Test func neighboursFromOnePeerTravelTogetherUpToASegment() {
        var scheduler = scheduler()
        _ = scheduler.handle(.want((0..<40).map(key), .readAhead, repair: false), now: .zero)
        let located = (0..<40).map { LocatedChunk(key($0), [peer("a"), .registry]) }
        let started = plans(scheduler.handle(.located(located), now: .zero))
        // 16 × 512 KiB = 8 MiB.
        #expect(started.map(\.chunks) == [0..<16, 16..<32, 32..<40])
        #expect(started.allSatisfy { $0.source == peer("a") })
        #expect(started.map(\.wait) == [.zero, .zero, .zero])
    }

    @Test func aPeerIsAskedForRawBytesWhateverIsStored() throws {
        var scheduler = FetchScheduler(seed: 1)
        let index = Blobs.index(chunks: 4) { $0 }
        scheduler.register(blob, try #require(BlobLayout(index, frameSizes: [10, 10, 10, 10])))
        #expect(miss(&scheduler, 1, [peer("a"), .registry]).first?.stored == UInt64(512 << 10)..<UInt64(1 << 20))
        #expect(miss(&scheduler, 3, [.registry]).first?.stored == 30..<40)
    }

    @Test func whereAChunkIsCanBeAsked() {
        var scheduler = scheduler()
        let other = BlobID(2)
        scheduler.register(other, Blobs.layout(chunks: 1))
        #expect(scheduler.whereabouts(of: key(0)) == nil)
        let first = miss(&scheduler, 0, [peer("a"), .registry], at: .seconds(1))
        let asked = scheduler.whereabouts(of: key(0))
        #expect(asked?.step == .fetching && asked?.source == peer("a") && asked?.begun == .seconds(1))
        #expect(asked?.asked == [peer("a")])
        // One with the same content waits for it: it is where that one is.
        _ = scheduler.handle(.miss(ChunkKey(other, 0)), now: .seconds(2))
        #expect(scheduler.whereabouts(of: ChunkKey(other, 0)) == asked)
        _ = scheduler.handle(
            .rangeEnded(id: first[0].id, delivered: 0, failure: .transient(retryAfter: nil)), now: .seconds(3))
        #expect(scheduler.whereabouts(of: key(0))?.step == .locating)
        let second = plans(scheduler.handle(.located([LocatedChunk(key(0), [.registry])]), now: .seconds(4)))
        let now = scheduler.whereabouts(of: key(0))
        #expect(now?.source == .registry && now?.begun == .seconds(4) && now?.attempts == 1)
        #expect(now?.asked == [peer("a"), .registry])
        _ = scheduler.handle(
            .rangeEnded(id: second[0].id, delivered: 0, failure: .transient(retryAfter: nil)), now: .seconds(5))
        let waiting = scheduler.whereabouts(of: key(0))
        #expect(waiting?.step == .backingOff && waiting?.source == .registry && waiting?.begun == nil)
    }

    @Test func theNodeThatIsToFetchMayBeWaitedFor() {
        var scheduler = scheduler()
        let demand = miss(&scheduler, 0, [peer("a", fetch: true), .registry])
        #expect(demand.map(\.wait) == [.seconds(8)])
        _ = scheduler.handle(.want([key(9)], .background, repair: false), now: .zero)
        let background = scheduler.handle(
            .located([LocatedChunk(key(9), [peer("a", fetch: true), .registry])]), now: .zero)
        // Hydration holds no range idle.
        #expect(plans(background).map(\.wait) == [.seconds(2)])
    }

    @Test func whoWaitsForTheRegistryDoesNotHoldUpWhoWaitsForAPeer() {
        var limits = FetchLimits()
        limits.demandRanges = 1
        var scheduler = scheduler(limits)
        #expect(miss(&scheduler, 0, [.registry]).count == 1)
        #expect(miss(&scheduler, 50, [.registry]).isEmpty)
        #expect(miss(&scheduler, 100, [peer("a"), .registry]).map(\.chunks) == [100..<101])
    }

    @Test func anotherNodesWishComesBeforeReadAheadAndAfterReaders() {
        var limits = FetchLimits()
        limits.relayedRanges = 1
        var scheduler = scheduler(limits)
        _ = scheduler.handle(.want([key(0)], .relayed, repair: false), now: .zero)
        #expect(scheduler.pendingRelayed == 1)
        let first = scheduler.handle(.located([LocatedChunk(key(0), [.registry])]), now: .zero)
        #expect(plans(first).map(\.rank) == [.relayed])
        _ = scheduler.handle(.want([key(60)], .relayed, repair: false), now: .zero)
        #expect(plans(scheduler.handle(.located([LocatedChunk(key(60), [.registry])]), now: .zero)).isEmpty)
        _ = scheduler.handle(.want([key(90)], .readAhead, repair: false), now: .zero)
        let behind = scheduler.handle(.located([LocatedChunk(key(90), [.registry])]), now: .zero)
        #expect(plans(behind).isEmpty, "read-ahead is not started before what another node waits for")
        #expect(miss(&scheduler, 120, [.registry]).map(\.rank) == [.demand])
    }

    @Test func afterSoManyPeersTheRegistryIsAsked() {
        var limits = FetchLimits()
        limits.peerTries = 3
        var scheduler = scheduler(limits)
        var started = miss(&scheduler, 0, [peer("a"), .registry])
        var asked: [FetchSource] = []
        for _ in 0..<5 {
            guard let plan = started.first, plan.source != .registry else { break }
            asked.append(plan.source)
            let ended = scheduler.handle(
                .rangeEnded(id: plan.id, delivered: 0, failure: .transient(retryAfter: nil)), now: .zero)
            #expect(ended == [.locate(key(0))])
            started = plans(
                scheduler.handle(.located([LocatedChunk(key(0), [peer("b"), .registry])]), now: .zero))
        }
        #expect(asked == [peer("a"), peer("b"), peer("b")])
        #expect(started.first?.source == .registry)
    }

    @Test func busyPeersAreAwaitedOnlyForTheirPartOfTheDeadline() {
        var scheduler = scheduler()
        #expect(miss(&scheduler, 0, [.registry], again: .milliseconds(50)).isEmpty)
        #expect(scheduler.handle(.tick, now: .milliseconds(49)).isEmpty)
        #expect(scheduler.handle(.tick, now: .milliseconds(50)) == [.locate(key(0))])
        let busy = LocatedChunk(key(0), [.registry], again: .seconds(2))
        #expect(scheduler.handle(.located([busy]), now: .milliseconds(9900)).isEmpty)
        #expect(scheduler.handle(.tick, now: .seconds(10)) == [.locate(key(0))])
        let started = scheduler.handle(.located([busy]), now: .seconds(10))
        #expect(plans(started).map(\.source) == [.registry])
    }

    @Test func aReaderThatJoinsWhatIsPutOffHasItLocatedAtOnce() {
        var scheduler = scheduler()
        _ = scheduler.handle(.want([key(0)], .background, repair: false), now: .zero)
        _ = scheduler.handle(
            .located([LocatedChunk(key(0), [.registry], again: .seconds(2))]), now: .zero)
        #expect(scheduler.handle(.miss(key(0)), now: .milliseconds(1)) == [.locate(key(0))])
    }

    @Test(arguments: [(5, 3), (25, 10), (600, 10)])
    func aPeerThatTakesAllOfThePeersTimeIsJoinedByTheRegistry(deadline: Int, peersTime: Int) {
        var limits = FetchLimits()
        limits.deadline = .seconds(deadline)
        var scheduler = scheduler(limits)
        _ = miss(&scheduler, 0, [peer("a", fetch: true), .registry])
        let end = Duration.seconds(peersTime)
        #expect(scheduler.handle(.tick, now: end - .milliseconds(1)).isEmpty)
        let second = plans(scheduler.handle(.tick, now: end))
        #expect(second.map(\.source) == [.registry])
        let filled = scheduler.handle(.filled(key(0), .resident, errno: 0, from: .registry), now: end + .seconds(1))
        #expect(filled == [.cancel(range: 1), .settled(key(0), .demand, resident: true, source: .registry)])
    }

    @Test func wrongBytesFromAPeerNeverFailAReadWhileTheRegistryAnswers() {
        var scheduler = scheduler()
        var started = miss(&scheduler, 0, [peer("liar0"), .registry])
        for liar in 1...40 {
            guard let plan = started.first, let name = plan.source.peer else { break }
            let out = scheduler.handle(.filled(key(0), .mismatch, errno: 0, from: plan.source), now: .zero)
            #expect(out.prefix(2) == [.quarantined(key(0), plan.source), .complain(name, key(0))])
            #expect(!out.contains { if case .fail = $0 { true } else { false } })
            _ = scheduler.handle(.rangeEnded(id: plan.id, delivered: 1, failure: nil), now: .zero)
            started = plans(
                scheduler.handle(.located([LocatedChunk(key(0), [peer("liar\(liar)"), .registry])]), now: .zero))
        }
        #expect(started.map(\.source) == [.registry])
        let end = scheduler.handle(.filled(key(0), .resident, errno: 0, from: .registry), now: .zero)
        #expect(end == [.settled(key(0), .demand, resident: true, source: .registry)])
        #expect(scheduler.quarantined.isEmpty, "the registry did nothing wrong")
    }

    @Test func aLiarLosesEverythingItWasToBring() {
        var scheduler = scheduler()
        scheduler.register(BlobID(2), Blobs.layout(chunks: 8, firstContent: 1000))
        let other = ChunkKey(BlobID(2), 0)
        _ = miss(&scheduler, 0, [peer("liar"), .registry])
        _ = scheduler.handle(.miss(other), now: .zero)
        _ = scheduler.handle(.located([LocatedChunk(other, [peer("liar"), peer("b"), .registry])]), now: .zero)
        let out = scheduler.handle(.filled(key(0), .mismatch, errno: 0, from: peer("liar")), now: .zero)
        #expect(out.contains(.cancel(range: 1)))
        #expect(out.contains(.cancel(range: 2)), "its answer for another blob is not wanted either")
        #expect(out.contains(.locate(key(0))))
        let ended = scheduler.handle(.rangeEnded(id: 2, delivered: 0, failure: nil), now: .zero)
        #expect(ended == [.locate(other)])
    }

    @Test func theBlameGoesToWhoSentTheBytes() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0, [peer("slow"), peer("liar"), .registry], hedgeAfter: .milliseconds(100))
        let second = plans(scheduler.handle(.tick, now: .milliseconds(100)))
        #expect(second.map(\.source) == [peer("liar")])
        let out = scheduler.handle(.filled(key(0), .mismatch, errno: 0, from: peer("liar")), now: .milliseconds(110))
        #expect(out == [.quarantined(key(0), peer("liar")), .complain(Self.name("liar"), key(0)), .cancel(range: 2)])
        // The first is still waited for, and its bytes count.
        let good = scheduler.handle(.filled(key(0), .resident, errno: 0, from: peer("slow")), now: .milliseconds(120))
        #expect(good == [.settled(key(0), .demand, resident: true, source: peer("slow"))])
    }

    @Test func aSlowPeerIsHedgedOnceAndTheFirstRightBytesWin() {
        var scheduler = scheduler()
        #expect(miss(&scheduler, 0, [peer("a"), peer("b"), .registry], hedgeAfter: .milliseconds(100)).count == 1)
        #expect(scheduler.handle(.tick, now: .milliseconds(99)).isEmpty)
        let second = plans(scheduler.handle(.tick, now: .milliseconds(100)))
        #expect(second.map(\.source) == [peer("b")])
        #expect(plans(scheduler.handle(.tick, now: .milliseconds(500))).isEmpty)
        let filled = scheduler.handle(.filled(key(0), .resident, errno: 0, from: peer("b")), now: .milliseconds(600))
        #expect(filled == [.cancel(range: 1), .settled(key(0), .demand, resident: true, source: peer("b"))])
        // What the first still sends changes nothing.
        #expect(scheduler.handle(.filled(key(0), .resident, errno: 0, from: peer("a")), now: .seconds(1)).isEmpty)
    }

    @Test func whenTheFirstFailsTheSecondGoesOnAlone() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0, [peer("a"), peer("b"), .registry], hedgeAfter: .milliseconds(100))
        _ = scheduler.handle(.tick, now: .milliseconds(100))
        #expect(
            scheduler.handle(
                .rangeEnded(id: 1, delivered: 0, failure: .transient(retryAfter: nil)), now: .milliseconds(200)
            ).isEmpty)
        let last = scheduler.handle(
            .rangeEnded(id: 2, delivered: 0, failure: .transient(retryAfter: nil)), now: .milliseconds(300))
        #expect(last == [.locate(key(0))])
    }

    @Test func hedgesCostATenthOfWhatReadersAskOfPeersAndASmallReserve() {
        var limits = FetchLimits()
        limits.peerDemandRanges = 1000
        var scheduler = scheduler(limits, chunks: 4000)
        var first = 0
        var second = 0
        var now = Duration.zero
        for chunk in stride(from: 0, to: 4000, by: 4) {
            first +=
                miss(
                    &scheduler, chunk, [peer("a"), peer("b"), .registry], hedgeAfter: .milliseconds(10), at: now
                ).count
            now += .milliseconds(10)
            second += plans(scheduler.handle(.tick, now: now)).count
            _ = scheduler.handle(.filled(key(chunk), .resident, errno: 0, from: peer("a")), now: now)
            for id in UInt64(first + second - 1)...UInt64(first + second) where id > 0 {
                _ = scheduler.handle(.rangeEnded(id: id, delivered: 1, failure: nil), now: now)
            }
        }
        #expect(first == 1000)
        // Every one of them is slow: 8 × 512 KiB saved up, and one of ten.
        #expect(second > 90 && second <= 8 + 100, "\(second)")
    }

    @Test func nobodyIsHedgedForReadAhead() {
        var scheduler = scheduler()
        _ = scheduler.handle(.want([key(0)], .readAhead, repair: false), now: .zero)
        let located = LocatedChunk(key(0), [peer("a"), peer("b"), .registry], hedgeAfter: .milliseconds(10))
        _ = scheduler.handle(.located([located]), now: .zero)
        #expect(scheduler.handle(.tick, now: .seconds(1)).isEmpty)
        // A reader joins: from then on.
        #expect(scheduler.handle(.miss(key(0)), now: .seconds(1)) == [.hasten(range: 1)])
        #expect(plans(scheduler.handle(.tick, now: .milliseconds(1010))).map(\.source) == [peer("b")])
    }

    @Test func whenTheRegistryFailsPeersAreAskedAgain() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0, [peer("a"), .registry])
        _ = scheduler.handle(.rangeEnded(id: 1, delivered: 0, failure: .transient(retryAfter: nil)), now: .zero)
        _ = scheduler.handle(.located([LocatedChunk(key(0), [.registry])]), now: .zero)
        _ = scheduler.handle(.rangeEnded(id: 2, delivered: 0, failure: .permanent), now: .seconds(1))
        let again = scheduler.handle(.tick, now: .seconds(2))
        #expect(again == [.locate(key(0))])
        let started = scheduler.handle(.located([LocatedChunk(key(0), [peer("b"), .registry])]), now: .seconds(2))
        #expect(plans(started).map(\.source) == [peer("b")])
    }

    @Test func whoNobodyVouchesForIsAskedWhenTheRegistryHasFailed() {
        var scheduler = scheduler()
        let located = LocatedChunk(key(0), [.registry, peer("stranger")])
        var started = miss(&scheduler, 0, located.sources)
        var asked: [FetchSource] = []
        var now = Duration.zero
        var hasFailed = false
        // Neither gives anything: they take turns, with pauses, until the registry has had its attempts.
        for _ in 0..<100 where !hasFailed {
            asked += started.map(\.source)
            var out: [FetchScheduler.Directive] = []
            for plan in started {
                out += scheduler.handle(
                    .rangeEnded(id: plan.id, delivered: 0, failure: .transient(retryAfter: nil)), now: now)
            }
            if out.isEmpty {
                now += .seconds(1)
                out = scheduler.handle(.tick, now: now)
            }
            if out.contains(.locate(key(0))) { out += scheduler.handle(.located([located]), now: now) }
            hasFailed = out.contains { if case .fail = $0 { true } else { false } }
            started = plans(out)
        }
        #expect(asked.prefix(4) == [.registry, peer("stranger"), .registry, .registry])
        #expect(asked.count { $0 == .registry } <= FetchLimits().demandAttempts)
        #expect(asked.count { $0 == peer("stranger") } >= 3)
        #expect(hasFailed && scheduler.isIdle)
    }

    @Test func theRegistryIsAskedAgainWhenAStrangersTimeIsOver() {
        var limits = FetchLimits()
        limits.peerDemandRanges = 0
        var scheduler = scheduler(limits)
        _ = miss(&scheduler, 0, [.registry, peer("stranger")])
        let queued = scheduler.handle(
            .rangeEnded(id: 1, delivered: 0, failure: .transient(retryAfter: nil)), now: .seconds(1))
        #expect(queued.isEmpty)
        let over = scheduler.handle(.tick, now: .seconds(10))
        #expect(plans(over).map(\.source) == [.registry])
    }

    @Test func aChunkThatComesLateFromAPeerThatWasLeftStillCounts() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0, [peer("a"), .registry])
        _ = scheduler.handle(.rangeEnded(id: 1, delivered: 0, failure: .transient(retryAfter: nil)), now: .zero)
        let filled = scheduler.handle(.filled(key(0), .resident, errno: 0, from: peer("a")), now: .zero)
        #expect(filled == [.settled(key(0), .demand, resident: true, source: peer("a"))])
        #expect(scheduler.handle(.located([LocatedChunk(key(0), [.registry])]), now: .zero).isEmpty)
        #expect(scheduler.isIdle)
    }
}
