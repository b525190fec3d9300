import ChunkResolution
import Testing

@Suite struct RateLimitTests {
    /// Bytes that start within `seconds` when somebody always wants the next request.
    private func run(_ limit: inout RateLimit, request: Int, seconds: Int, forReader: Bool = false) -> Int {
        var now = Duration.zero
        var bytes = 0
        while now < .seconds(seconds) {
            if let opens = limit.opensAt(forReader: forReader), opens > now {
                now = opens
                continue
            }
            limit.charge(request, now: now)
            bytes += request
        }
        return bytes
    }

    @Test(arguments: [1 << 10, 512 << 10, 5 << 20, 40 << 20])
    func theRateHoldsOnAverageWhateverTheRequests(request: Int) {
        var limit = RateLimit(10 << 20)
        let bytes = run(&limit, request: request, seconds: 100)
        // The last request may begin at the end of the time.
        #expect(bytes >= 1000 << 20 && bytes <= 1000 << 20 + 2 * request, "\(bytes)")
    }

    @Test func anIdleLimitSavesUpItsBurstAndNoMore() throws {
        var limit = RateLimit(1000)
        limit.charge(1, now: .seconds(50))
        #expect(try #require(limit.opensAt(forReader: false)) < .seconds(50))
        limit.charge(249, now: .seconds(50))
        #expect(limit.opensAt(forReader: false) == .seconds(50))
        limit.charge(1000, now: .seconds(50))
        #expect(limit.opensAt(forReader: false) == .seconds(51))
    }

    @Test func readersStartInABoundedDebt() {
        var limit = RateLimit(1000)
        let bytes = run(&limit, request: 100, seconds: 10, forReader: true)
        #expect((12_000...12_300).contains(bytes), "\(bytes)")
        // Whoever is no reader waits for all of it to be paid.
        #expect((limit.opensAt(forReader: false) ?? .zero) > .seconds(11))
    }

    @Test func whatDidNotComeIsGivenBack() {
        var limit = RateLimit(1000)
        limit.charge(1250, now: .seconds(1))
        limit.giveBack(1000)
        #expect(limit.opensAt(forReader: false) == .seconds(1))
        // However much is given back, no more than the burst is saved.
        limit.giveBack(1_000_000)
        limit.charge(250, now: .seconds(1))
        #expect(limit.opensAt(forReader: false) == .seconds(1))
    }

    @Test func noLimitIsAlwaysOpen() {
        for rate in [nil, 0] as [UInt64?] {
            var limit = RateLimit(rate)
            limit.charge(1 << 40, now: .zero)
            #expect(limit.opensAt(forReader: false) == nil && limit.longestRequestBytes == nil)
        }
    }

    @Test func oneRequestIsHalfASecondLong() {
        #expect(RateLimit(10 << 20).longestRequestBytes == 5 << 20)
        #expect(RateLimit(.max).longestRequestBytes == Int.max / 2)
    }
}
