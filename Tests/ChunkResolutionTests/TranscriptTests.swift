import ChunkModel
import ChunkResolution
import Testing

@Suite struct TranscriptTests {
    private let blob = BlobID(1)
    private func key(_ chunk: Int) -> ChunkKey { ChunkKey(blob, chunk) }

    private func scheduler(_ limits: FetchLimits = FetchLimits(), chunks: Int = 32) -> FetchScheduler {
        var scheduler = FetchScheduler(limits: limits, seed: 1)
        scheduler.register(blob, Blobs.layout(chunks: chunks))
        return scheduler
    }

    @Test func aMissIsFetchedOnceAndTakesItsWantedNeighboursAlong() {
        var run = Transcript(scheduler())
        run.at(0, .want([key(1), key(2), key(4)], .readAhead, repair: false))
        run.at(0, .miss(key(0)))
        run.at(1, .located([LocatedChunk(key(0), [.registry])]))
        run.at(2, .miss(key(0)))
        run.at(3, .located([LocatedChunk(key(1), [.registry])]))
        run.at(3, .miss(key(1)))
        run.at(4, .filled(key(0), .resident, errno: 0))
        run.at(5, .rangeEnded(id: 1, delivered: 1, failure: nil))
        run.at(6, .filled(key(1), .resident, errno: 0))
        #expect(
            run.text == """
                0 ms: want b1.1 b1.2 b1.4 as readAhead
                  → locate b1.1
                  → locate b1.2
                  → locate b1.4
                0 ms: miss b1.0
                  → locate b1.0
                1 ms: located b1.0: registry
                  → fetch 1: b1 chunks 0..<1 from registry for demand
                2 ms: miss b1.0
                3 ms: located b1.1: registry
                  → fetch 2: b1 chunks 1..<2 from registry for readAhead
                3 ms: miss b1.1
                  → hasten 2
                4 ms: filled b1.0: resident
                  → settled b1.0 (demand): resident from registry
                5 ms: range 1 ended after 1
                6 ms: filled b1.1: resident
                  → settled b1.1 (demand): resident from registry
                """)
    }

    @Test func wrongBytesAreAskedForOncePastCachesThenFailAndHealWithTime() {
        var run = Transcript(scheduler())
        run.at(0, .miss(key(3)))
        run.at(0, .located([LocatedChunk(key(3), [.registry])]))
        run.at(10, .filled(key(3), .mismatch, errno: 0))
        run.at(11, .rangeEnded(id: 1, delivered: 1, failure: nil))
        run.at(20, .filled(key(3), .mismatch, errno: 0))
        run.at(21, .rangeEnded(id: 2, delivered: 1, failure: nil))
        // At once: no request is made. Its neighbour, for a reader: one is. For nobody: none.
        run.at(100, .miss(key(3)))
        run.at(100, .located([LocatedChunk(key(3), [.registry])]))
        run.at(110, .miss(key(4)))
        run.at(110, .located([LocatedChunk(key(4), [.registry])]))
        run.at(120, .want([key(5)], .background, repair: false))
        run.at(120, .located([LocatedChunk(key(5), [.registry])]))
        // After the quarantine's second the source is asked again, and has healed.
        run.at(1100, .miss(key(3)))
        run.at(1100, .located([LocatedChunk(key(3), [.registry])]))
        run.at(1110, .filled(key(3), .resident, errno: 0))
        #expect(
            run.text == """
                0 ms: miss b1.3
                  → locate b1.3
                0 ms: located b1.3: registry
                  → fetch 1: b1 chunks 3..<4 from registry for demand
                10 ms: filled b1.3: mismatch
                  → fetch 2: b1 chunks 3..<4 from registry for demand, past caches
                11 ms: range 1 ended after 1
                20 ms: filled b1.3: mismatch
                  → quarantined registry for b1.3
                  → fail b1.3 with errno 5: mismatch
                  → settled b1.3 (demand): not had
                21 ms: range 2 ended after 1
                100 ms: miss b1.3
                  → locate b1.3
                100 ms: located b1.3: registry
                  → fail b1.3 with errno 5: quarantined
                  → settled b1.3 (demand): not had
                110 ms: miss b1.4
                  → locate b1.4
                110 ms: located b1.4: registry
                  → fetch 3: b1 chunks 4..<5 from registry for demand
                120 ms: want b1.5 as background
                  → locate b1.5
                120 ms: located b1.5: registry
                  → settled b1.5 (background): not had
                1100 ms: miss b1.3
                  → locate b1.3
                1100 ms: located b1.3: registry
                  → fetch 4: b1 chunks 3..<4 from registry for demand
                1110 ms: filled b1.3: resident
                  → released b1
                  → settled b1.3 (demand): resident from registry
                """)
    }

    @Test func sharedContentIsFetchedOnceAndCopied() {
        var first = scheduler()
        first.register(BlobID(2), Blobs.layout(chunks: 4))  // the same first chunks
        var run = Transcript(first)
        run.at(0, .miss(key(0)))
        run.at(0, .located([LocatedChunk(key(0), [.registry])]))
        run.at(1, .miss(ChunkKey(BlobID(2), 0)))
        run.at(9, .filled(key(0), .resident, errno: 0))
        run.at(10, .filled(ChunkKey(BlobID(2), 0), .resident, errno: 0))
        #expect(
            run.text == """
                0 ms: miss b1.0
                  → locate b1.0
                0 ms: located b1.0: registry
                  → fetch 1: b1 chunks 0..<1 from registry for demand
                1 ms: miss b2.0
                9 ms: filled b1.0: resident
                  → settled b1.0 (demand): resident from registry
                  → copy b1.0 to b2.0
                10 ms: filled b2.0: resident
                  → settled b2.0 (demand): resident from local(b1.0)
                """)
    }

    @Test func aFullDiskIsGivenRoomOnceThenReadersAreTold() {
        var run = Transcript(scheduler())
        run.at(0, .miss(key(0)))
        run.at(0, .located([LocatedChunk(key(0), [.registry])]))
        run.at(1, .filled(key(0), .writeFailed, errno: 28))
        run.at(2, .rangeEnded(id: 1, delivered: 1, failure: nil))
        run.at(3, .roomMade(true))
        run.at(4, .filled(key(0), .writeFailed, errno: 28))
        #expect(
            run.text == """
                0 ms: miss b1.0
                  → locate b1.0
                0 ms: located b1.0: registry
                  → fetch 1: b1 chunks 0..<1 from registry for demand
                1 ms: filled b1.0: writeFailed errno 28
                  → make room
                2 ms: range 1 ended after 1
                3 ms: room made
                  → fetch 2: b1 chunks 0..<1 from registry for demand
                4 ms: filled b1.0: writeFailed errno 28
                  → fail b1.0 with errno 28: noSpace
                  → settled b1.0 (demand): not had
                """)
    }
}
