import ChunkModel
import ChunkResolution
import Testing

@Suite struct FetchSchedulerTests {
    private let blob = BlobID(1)
    private func key(_ chunk: Int) -> ChunkKey { ChunkKey(blob, chunk) }

    private func scheduler(_ limits: FetchLimits = FetchLimits(), chunks: Int = 256) -> FetchScheduler {
        var scheduler = FetchScheduler(limits: limits, seed: 1)
        scheduler.register(blob, Blobs.layout(chunks: chunks))
        return scheduler
    }

    /// Wants chunks and says they come from the registry; the plans that start.
    private func want(
        _ scheduler: inout FetchScheduler, _ chunks: Range<Int>, _ rank: FetchRank, at now: Duration = .zero
    ) -> [RangePlan] {
        var out = scheduler.handle(.want(chunks.map(key), rank, repair: false), now: now)
        out += scheduler.handle(.located(chunks.map { LocatedChunk(key($0), [.registry]) }), now: now)
        return plans(out)
    }

    private func miss(_ scheduler: inout FetchScheduler, _ chunk: Int, at now: Duration = .zero) -> [RangePlan] {
        let out = scheduler.handle(.miss(key(chunk)), now: now)
        return plans(out + scheduler.handle(.located([LocatedChunk(key(chunk), [.registry])]), now: now))
    }

    private func plans(_ directives: [FetchScheduler.Directive]) -> [RangePlan] {
        directives.compactMap { if case .fetch(let plan) = $0 { plan } else { nil } }
    }

    @Test func speculativeFetchesLeaveRangesForAReader() {
        var scheduler = scheduler()
        _ = want(&scheduler, 0..<200, .background)
        let started = miss(&scheduler, 250)
        #expect(started.map(\.chunks) == [250..<251])
        #expect(started.map(\.rank) == [.demand])
    }

    @Test func queuedNeighboursTravelInOneRangeUpToItsLimit() {
        var limits = FetchLimits()
        limits.speculativeRanges = 1
        limits.rangeBytes = 4 << 20
        var scheduler = scheduler(limits)
        #expect(want(&scheduler, 0..<20, .readAhead).map(\.chunks) == [0..<8])
        let next = plans(scheduler.handle(.rangeEnded(id: 1, delivered: 8, failure: nil), now: .zero))
        #expect(next.map(\.chunks) == [8..<16])
        #expect(next.first?.stored == UInt64(8 * 512 << 10)..<UInt64(16 * 512 << 10))
    }

    @Test func aMissTakesWhatItsReaderWillWantNextAlong() {
        var scheduler = scheduler()
        _ = scheduler.handle(.miss(key(0)), now: .zero)
        _ = scheduler.handle(.want((1..<9).map(key), .readAhead, repair: false), now: .zero)
        let out = scheduler.handle(.located((0..<9).map { LocatedChunk(key($0), [.registry]) }), now: .zero)
        #expect(plans(out).map(\.chunks) == [0..<9])
        #expect(plans(out).map(\.rank) == [.demand])
    }

    @Test func aReaderGoesBeforeEverythingQueued() {
        var limits = FetchLimits()
        limits.demandRanges = 1
        var scheduler = scheduler(limits)
        _ = miss(&scheduler, 0)
        #expect(miss(&scheduler, 100).isEmpty)
        // No read-ahead starts while a reader's chunk waits for a range.
        #expect(want(&scheduler, 1..<4, .readAhead).isEmpty)
        let next = plans(scheduler.handle(.rangeEnded(id: 1, delivered: 1, failure: nil), now: .zero))
        #expect(next.first?.chunks == 100..<101)
    }

    @Test func aReaderJoinsAPrefetchInFlight() {
        var scheduler = scheduler()
        #expect(want(&scheduler, 0..<1, .readAhead).count == 1)
        #expect(scheduler.handle(.miss(key(0)), now: .zero) == [.hasten(range: 1)])
        #expect(scheduler.pendingDemand == 1)
        let end = scheduler.handle(.filled(key(0), .resident, errno: 0), now: .zero)
        #expect(end == [.settled(key(0), .demand, resident: true, source: .registry)])
        #expect(scheduler.pendingDemand == 0)
    }

    @Test func aReaderFarBehindTheFrontOfALongRangeGetsOneOfItsOwn() {
        var limits = FetchLimits()
        limits.speculativeRanges = 1
        var scheduler = scheduler(limits)
        _ = want(&scheduler, 200..<201, .readAhead)
        _ = want(&scheduler, 0..<64, .background)
        _ = scheduler.handle(.filled(key(200), .resident, errno: 0), now: .zero)
        let long = plans(scheduler.handle(.rangeEnded(id: 1, delivered: 1, failure: nil), now: .zero))
        #expect(long.map(\.chunks) == [0..<64])
        // 8 × 512 KiB ahead of it: worth waiting for. 9 are not.
        #expect(scheduler.handle(.miss(key(8)), now: .zero) == [.hasten(range: 2)])
        let own = plans(scheduler.handle(.miss(key(50)), now: .zero))
        #expect(own.map(\.chunks) == [50..<51])
        // The front moves, and what was far is near.
        for chunk in 0..<30 { _ = scheduler.handle(.filled(key(chunk), .resident, errno: 0), now: .zero) }
        #expect(scheduler.handle(.miss(key(35)), now: .zero) == [.hasten(range: 2)])
        // Whichever brings it first settles it, and the other changes nothing.
        let first = scheduler.handle(.filled(key(50), .resident, errno: 0), now: .zero)
        #expect(first == [.settled(key(50), .demand, resident: true, source: .registry)])
        #expect(scheduler.handle(.filled(key(50), .resident, errno: 0), now: .zero).isEmpty)
        #expect(scheduler.handle(.rangeEnded(id: 3, delivered: 1, failure: nil), now: .zero).isEmpty)
        _ = scheduler.handle(
            .rangeEnded(id: 2, delivered: 30, failure: .transient(retryAfter: nil)), now: .zero)
        let again = plans(scheduler.handle(.tick, now: .seconds(1)))
        #expect(again.first?.chunks.lowerBound == 35 || again.first?.chunks.lowerBound == 30)
        #expect(!again.contains { $0.chunks.contains(50) })
    }

    @Test func aFailedRangeRetriesOnlyWhatItDidNotDeliver() {
        var limits = FetchLimits()
        limits.demandRanges = 1
        var scheduler = scheduler(limits)
        _ = miss(&scheduler, 9)
        for chunk in 0..<3 { _ = miss(&scheduler, chunk) }
        let range = plans(scheduler.handle(.rangeEnded(id: 1, delivered: 1, failure: nil), now: .zero))
        #expect(range.map(\.chunks) == [0..<3])
        let after = scheduler.handle(
            .rangeEnded(id: range.first?.id ?? 0, delivered: 1, failure: .transient(retryAfter: nil)), now: .zero)
        #expect(after.isEmpty)
        #expect(scheduler.nextDeadline ?? .zero >= .milliseconds(100))
        #expect(plans(scheduler.handle(.tick, now: .milliseconds(99))).isEmpty)
        #expect(plans(scheduler.handle(.tick, now: .milliseconds(130))).map(\.chunks) == [1..<3])
    }

    @Test func attemptsAreCappedAndThePermanentIsNotRetried() {
        var limits = FetchLimits()
        limits.demandAttempts = 3
        var scheduler = scheduler(limits)
        var now = Duration.zero
        var requests = miss(&scheduler, 0).count
        var failed: [FetchScheduler.Directive] = []
        for id in UInt64(1)...5 {
            failed += scheduler.handle(
                .rangeEnded(id: id, delivered: 0, failure: .transient(retryAfter: nil)), now: now)
            now += .seconds(1)
            requests += plans(scheduler.handle(.tick, now: now)).count
        }
        #expect(requests == 3)
        #expect(failed.first == .fail(key(0), errno: 5, .attempts))

        _ = miss(&scheduler, 1, at: now)
        let refused = scheduler.handle(.rangeEnded(id: 4, delivered: 0, failure: .permanent), now: now)
        #expect(refused.first == .fail(key(1), errno: 5, .refused))
        #expect(scheduler.isIdle)
    }

    @Test func aReaderIsToldAtTheDeadlineAndALateFetchStillCounts() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0)
        let late = scheduler.handle(.tick, now: .seconds(25))
        #expect(late == [.fail(key(0), errno: 5, .deadline)])
        let filled = scheduler.handle(.filled(key(0), .resident, errno: 0), now: .seconds(26))
        #expect(filled == [.settled(key(0), .readAhead, resident: true, source: .registry)])
    }

    @Test func aWishedDelayIsKeptWithinTheDeadline() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0)
        _ = scheduler.handle(
            .rangeEnded(id: 1, delivered: 0, failure: .transient(retryAfter: .seconds(2))), now: .zero)
        #expect(plans(scheduler.handle(.tick, now: .milliseconds(1999))).isEmpty)
        #expect(plans(scheduler.handle(.tick, now: .seconds(2))).count == 1)
    }

    @Test func whenTheGateGoesEverythingStartsAnew() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0)
        _ = miss(&scheduler, 5)
        // Chunk 5's range is over, its fill was never answered.
        _ = scheduler.handle(.rangeEnded(id: 2, delivered: 1, failure: nil), now: .zero)
        let lost = scheduler.handle(.gateLost, now: .zero)
        #expect(lost.contains(.cancel(range: 1)))
        #expect(!scheduler.isIdle, "range 1 still runs")
        _ = scheduler.handle(.rangeEnded(id: 1, delivered: 0, failure: .transient(retryAfter: nil)), now: .zero)
        #expect(scheduler.isIdle)
        #expect(miss(&scheduler, 0).count == 1, "a miss that is sent again is fetched again")
    }

    @Test func aFailedLeaderHandsOverToTheNextOfTheSameContent() {
        var scheduler = scheduler()
        scheduler.register(BlobID(2), Blobs.layout(chunks: 4))
        scheduler.register(BlobID(3), Blobs.layout(chunks: 4))
        let second = ChunkKey(BlobID(2), 0)
        let third = ChunkKey(BlobID(3), 0)
        _ = miss(&scheduler, 0)
        #expect(scheduler.handle(.miss(second), now: .zero).isEmpty)
        #expect(scheduler.handle(.miss(third), now: .zero).isEmpty)
        let after = scheduler.handle(.rangeEnded(id: 1, delivered: 0, failure: .permanent), now: .zero)
        #expect(after.contains(.locate(second)))
        _ = scheduler.handle(.located([LocatedChunk(second, [.registry])]), now: .zero)
        let filled = scheduler.handle(.filled(second, .resident, errno: 0), now: .zero)
        #expect(filled.contains(.copy(to: third, from: second)))
    }

    @Test func aBadLocalCopyFallsBackToTheRegistry() {
        var scheduler = scheduler()
        let place = ChunkKey(BlobID(7), 3)
        _ = scheduler.handle(.miss(key(0)), now: .zero)
        let copy = scheduler.handle(.located([LocatedChunk(key(0), [.local(place), .registry])]), now: .zero)
        #expect(copy == [.copy(to: key(0), from: place)])
        let fetch = scheduler.handle(.filled(key(0), .mismatch, errno: 0), now: .zero)
        #expect(plans(fetch).map(\.chunks) == [0..<1])
        #expect(scheduler.quarantined.isEmpty, "the registry did nothing wrong")
    }

    @Test func manyBadChunksStopEveryFetchOfTheBlobUntilTheTimeIsOver() {
        var scheduler = scheduler()
        var now = Duration.zero
        var range: UInt64 = 0
        for chunk in 0..<4 {
            for _ in 0..<2 {
                _ = miss(&scheduler, chunk, at: now)
                _ = scheduler.handle(.filled(key(chunk), .mismatch, errno: 0), now: now)
                range += 1
                _ = scheduler.handle(.rangeEnded(id: range, delivered: 1, failure: nil), now: now)
            }
        }
        #expect(scheduler.quarantined == [blob])
        #expect(miss(&scheduler, 50, at: now).isEmpty)
        #expect(scheduler.pendingDemand == 0, "refused at once, not parked")
        now += .seconds(61)
        #expect(miss(&scheduler, 50, at: now).count == 1)
    }

    @Test func damagedFramesAreAskedForOncePastCaches() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0)
        let again = plans(scheduler.handle(.undecodable(key(0)), now: .zero))
        #expect(again.map(\.bypassCaches) == [true])
        _ = scheduler.handle(.rangeEnded(id: 1, delivered: 1, failure: nil), now: .zero)
        let end = scheduler.handle(.undecodable(key(0)), now: .zero)
        #expect(end.contains(.fail(key(0), errno: 5, .mismatch)))
        _ = scheduler.handle(.rangeEnded(id: 2, delivered: 1, failure: nil), now: .zero)
        #expect(scheduler.isIdle)
    }

    @Test func overflowIsRefusedByName() {
        var limits = FetchLimits()
        limits.demandChunks = 2
        var scheduler = scheduler(limits)
        _ = miss(&scheduler, 0)
        _ = miss(&scheduler, 2)
        #expect(scheduler.handle(.miss(key(4)), now: .zero) == [.fail(key(4), errno: 5, .overload)])
        #expect(
            scheduler.handle(.miss(ChunkKey(BlobID(9), 0)), now: .zero)
                == [.fail(ChunkKey(BlobID(9), 0), errno: 5, .unknownBlob)])
    }

    @Test func aForgottenBlobLeavesNothingBehind() {
        var scheduler = scheduler()
        _ = miss(&scheduler, 0)
        _ = want(&scheduler, 10..<30, .background)
        _ = scheduler.handle(.forget(blob), now: .zero)
        for id in UInt64(1)...6 {
            _ = scheduler.handle(.rangeEnded(id: id, delivered: 0, failure: .permanent), now: .zero)
        }
        #expect(scheduler.isIdle)
        #expect(!scheduler.isRegistered(blob))
    }
}
