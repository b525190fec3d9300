import ChunkModel
import ChunkResolution
import Testing

/// Chunks of access traces: behind everybody who waits, before what nobody does.
@Suite struct ReplayTests {
    private let blob = BlobID(1)
    private func key(_ chunk: Int) -> ChunkKey { ChunkKey(blob, chunk) }

    private func scheduler(_ limits: FetchLimits = FetchLimits()) -> FetchScheduler {
        var scheduler = FetchScheduler(limits: limits, seed: 1)
        scheduler.register(blob, Blobs.layout(chunks: 256))
        return scheduler
    }

    private func plans(_ directives: [FetchScheduler.Directive]) -> [RangePlan] {
        directives.compactMap { if case .fetch(let plan) = $0 { plan } else { nil } }
    }

    private func want(_ scheduler: inout FetchScheduler, _ chunks: Range<Int>, _ rank: FetchRank) -> [RangePlan] {
        let event: FetchScheduler.Event =
            rank == .demand ? .miss(key(chunks.lowerBound)) : .want(chunks.map(key), rank, repair: false)
        let out = scheduler.handle(event, now: .zero)
        return plans(out + scheduler.handle(.located(chunks.map { LocatedChunk(key($0), [.registry]) }), now: .zero))
    }

    private func end(_ scheduler: inout FetchScheduler, _ plan: RangePlan) -> [RangePlan] {
        var out: [FetchScheduler.Directive] = []
        for chunk in plan.chunks { out += scheduler.handle(.filled(key(chunk), .resident, errno: 0), now: .zero) }
        return plans(
            out + scheduler.handle(.rangeEnded(id: plan.id, delivered: plan.chunks.count, failure: nil), now: .zero))
    }

    @Test func aTraceComesBehindReadAheadAndBeforeHydration() throws {
        var limits = FetchLimits()
        limits.speculativeRanges = 1
        var scheduler = scheduler(limits)
        let first = try #require(want(&scheduler, 0..<1, .background).first)
        #expect(want(&scheduler, 10..<12, .background).isEmpty)
        #expect(want(&scheduler, 20..<22, .replay).isEmpty)
        #expect(want(&scheduler, 30..<32, .readAhead).isEmpty)
        #expect(scheduler.pendingReplay == 2 && scheduler.pendingSpeculative == 7)
        let second = try #require(end(&scheduler, first).first)
        #expect(second.chunks == 30..<32)
        let third = try #require(end(&scheduler, second).first)
        #expect(third.chunks == 20..<22 && third.rank == .replay)
        #expect(end(&scheduler, third).map(\.chunks) == [10..<12])
    }

    @Test func itsRangesAreShort() {
        var scheduler = scheduler()
        #expect(want(&scheduler, 0..<64, .replay).map(\.chunks.count) == [16, 16, 16])
    }

    @Test func besideABlockedReaderOneRangeOfItIsUnderWay() throws {
        var scheduler = scheduler()
        let trace = want(&scheduler, 0..<96, .replay)
        #expect(trace.count == 3)
        let reader = try #require(want(&scheduler, 200..<201, .demand).first)
        // What is under way goes on; only the last of the three has a successor while the reader waits.
        #expect(end(&scheduler, trace[0]).isEmpty)
        #expect(end(&scheduler, trace[1]).isEmpty)
        let next = end(&scheduler, trace[2])
        #expect(next.map(\.chunks) == [48..<64])
        #expect(end(&scheduler, reader).map(\.chunks) == [64..<80, 80..<96])
    }

    @Test func aReaderOfAQueuedChunkOfItIsServedAtOnce() {
        var scheduler = scheduler()
        _ = want(&scheduler, 0..<96, .replay)
        let own = plans(scheduler.handle(.miss(key(90)), now: .zero))
        #expect(own.first?.chunks.lowerBound == 90 && own.first?.rank == .demand)
        #expect(scheduler.pendingDemand == 1 && scheduler.pendingReplay == 95)
    }

    @Test func itCountsAgainstTheLimitOfWhatNobodyWaitsFor() {
        var scheduler = scheduler()
        scheduler.setRates(DownloadLimits(prefetch: 1 << 20))
        let first = want(&scheduler, 0..<64, .replay)
        #expect(first.count == 1 && first.first?.chunks.count == 1, "half a second's worth, one chunk")
        #expect(scheduler.nextDeadline != nil)
        #expect(want(&scheduler, 100..<101, .readAhead).count == 1)
    }
}
