import ChunkResolution
import Testing

@Suite struct ReadAheadTests {
    private let chunk = UInt64(512 << 10)

    private func detector(chunks: Int = 4096) -> ReadAheadDetector {
        ReadAheadDetector(chunkCount: chunks, rawSize: UInt64(chunks) * chunk)
    }

    @Test func aSequentialReaderGetsAWindowThatGrowsUpToItsLimit() {
        var detector = detector()
        var ahead = 0
        var windows: [Int] = []
        for number in 0..<1000 {
            let wanted = detector.access(number)
            if wanted.isEmpty { continue }
            #expect(wanted.lowerBound == max(ahead, number + 1), "no gap and nothing twice")
            ahead = wanted.upperBound
            windows.append(ahead - number - 1)
        }
        #expect(Array(windows.prefix(6)) == [2, 4, 6, 9, 14, 21])
        #expect(windows.max() == 256, "128 MiB of 512 KiB chunks")
        #expect(ahead > 1000)
    }

    @Test func noMoreIsFetchedAheadThanWasReadInARow() {
        // Whoever reads files from end to end leaves the rest of the last window unread.
        for length in 1...200 {
            var detector = detector()
            let ahead = (100..<100 + length).reduce(0) { max($0, detector.access($1).upperBound) }
            #expect(ahead <= 100 + 2 * length, "after \(length) chunks")
        }
    }

    @Test func twoChunksInARowAreAFileAcrossABoundaryNotAReader() {
        var detector = detector()
        #expect(detector.access(10).isEmpty)
        #expect(detector.access(11).isEmpty)
        #expect(!detector.access(12).isEmpty)
    }

    @Test func randomReadsFetchNothing() {
        var detector = detector()
        var state: UInt64 = 42
        var wanted = 0
        for _ in 0..<2000 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            wanted += detector.access(Int(state >> 33) % 4096).count
        }
        #expect(wanted <= 4, "three random reads in a row by chance: found \(wanted)")
    }

    @Test func severalReadersAreFollowedAtOnce() {
        var detector = detector()
        var wanted = [0, 0, 0, 0]
        for step in 0..<100 {
            for reader in 0..<4 { wanted[reader] += detector.access(reader * 1000 + step).count }
        }
        #expect(wanted.allSatisfy { $0 >= 100 })
    }

    @Test func accessesALittleOutOfOrderAreStillOneReader() {
        var detector = detector()
        var wanted = 0
        for step in stride(from: 0, to: 64, by: 2) {
            for number in step < 8 ? [step, step + 1] : [step + 1, step] { wanted += detector.access(number).count }
        }
        #expect(wanted >= 64)
    }

    @Test func nothingIsWantedPastTheEnd() {
        var detector = detector(chunks: 20)
        var last = 0
        for number in 0..<20 { last = max(last, detector.access(number).upperBound) }
        #expect(last == 20)
    }
}

@Suite struct HydrationPacerTests {
    @Test func theRateIsKeptOverTime() {
        var pacer = HydrationPacer(bytesPerSecond: 1 << 20, largestChunk: 1 << 18, rest: .zero)
        var taken = 0
        for step in 0..<1000 {
            let now = Duration.milliseconds(step * 10)
            let allowed = pacer.allowance(pendingDemand: 0, now: now)
            let amount = min(allowed, 1 << 18)
            pacer.take(amount)
            taken += amount
        }
        // Ten seconds at 1 MiB/s, and the bucket that was full at the start.
        #expect(taken >= 10 << 20 && taken <= 11 << 20)
    }

    @Test func itYieldsToReadersAndRestsAfterThem() {
        var pacer = HydrationPacer(bytesPerSecond: nil, largestChunk: 1 << 20, rest: .milliseconds(20))
        #expect(pacer.allowance(pendingDemand: 1, now: .zero) == 0)
        #expect(pacer.allowance(pendingDemand: 0, now: .milliseconds(1)) == 0)
        #expect(pacer.allowance(pendingDemand: 0, now: .milliseconds(15)) == 0)
        #expect(pacer.allowance(pendingDemand: 0, now: .milliseconds(21)) == .max)
        #expect(pacer.allowance(pendingDemand: 3, now: .milliseconds(30)) == 0)
    }
}

@Suite struct SlotPoolTests {
    private func pool() -> SlotPool {
        var limits = SlotPool.Limits()
        limits.slots = 4
        limits.bytes = 4 << 20
        limits.demandReserveSlots = 1
        limits.demandReserveBytes = 1 << 20
        return SlotPool(limits)
    }

    @Test func aReaderFindsRoomThatNobodyElseMayTake() {
        var pool = pool()
        let first = pool.take(1 << 20, .readAhead) ?? .max
        let second = pool.take(1 << 20, .background) ?? .max
        let third = pool.take(1 << 20, .background) ?? .max
        #expect(Set([first, second, third]).count == 3 && ![first, second, third].contains(.max))
        let speculative = pool.take(4096, .readAhead)
        #expect(speculative == nil)
        let reader = pool.take(1 << 20, .demand)
        #expect(reader != nil)
        let late = pool.take(4096, .demand)
        #expect(late == nil, "the bytes are used up")
    }

    @Test func aChunkLargerThanTheBudgetGoesThroughAlone() {
        var pool = pool()
        let slot = pool.take(8 << 20, .background) ?? .max
        let second = pool.take(1, .demand)
        #expect(slot != .max && second == nil)
        pool.abandon(slot)
        #expect(pool.isIdle)
    }

    @Test func aSlotComesBackOnceWhoeverSaysSo() {
        var pool = pool()
        let slot = pool.take(100, .demand) ?? .max
        pool.giveBack(slot, connection: 1)
        #expect(!pool.isIdle, "it is being filled: nobody was told of it")
        pool.markSent(slot, connection: 1)
        pool.giveBack(slot, connection: 2)
        pool.abandon(slot)
        #expect(!pool.isIdle, "another connection's answer")
        pool.giveBack(slot, connection: 1)
        pool.giveBack(slot, connection: 1)
        pool.giveBack(77, connection: 1)
        #expect(pool.isIdle)
        let again = pool.take(100, .demand)
        #expect(again == slot, "last in, first out")
    }

    @Test func aConnectionThatEndedGivesBackWhatItHeld() {
        var pool = pool()
        let sent = pool.take(100, .demand) ?? .max
        let filling = pool.take(100, .demand) ?? .max
        pool.markSent(sent, connection: 1)
        pool.reclaim(connection: 1)
        pool.giveBack(sent, connection: 1)
        #expect(!pool.isIdle)
        pool.markSent(filling, connection: 2)
        pool.giveBack(filling, connection: 2)
        #expect(pool.isIdle)
    }
}
