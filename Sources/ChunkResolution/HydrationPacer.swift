/// Lets background fetches through at a limited rate, and not at all while a reader waits: a token bucket in bytes.
///
/// A value that asks no clock; one user at a time.
package struct HydrationPacer: Sendable {
    /// Bytes a second; nil is unlimited.
    private let rate: UInt64?
    /// Bytes that may be fetched at once: one second's worth, at least one chunk of the largest size.
    private let burst: Double
    private var tokens: Double
    private var last: Duration?
    /// Background work rests this long after the last reader was served: readers come in flocks.
    private let rest: Duration
    private var quietSince: Duration?

    package init(bytesPerSecond rate: UInt64?, largestChunk: Int, rest: Duration = .milliseconds(20)) {
        self.rate = rate
        self.rest = rest
        burst = max(Double(rate ?? 0), Double(largestChunk))
        tokens = burst
    }

    /// How many bytes may be asked for now. 0 while readers wait and shortly after.
    package mutating func allowance(pendingDemand: Int, now: Duration) -> Int {
        refill(now)
        guard pendingDemand == 0 else {
            quietSince = nil
            return 0
        }
        let since = quietSince ?? now
        quietSince = since
        guard now - since >= rest else { return 0 }
        return rate == nil ? .max : max(0, Int(tokens))
    }

    /// These many bytes were asked for. May overdraw: the next allowance waits.
    package mutating func take(_ bytes: Int) { if rate != nil { tokens -= Double(bytes) } }

    private mutating func refill(_ now: Duration) {
        defer { last = now }
        guard let rate, let last, now > last else { return }
        let passed = (now - last) / .seconds(1)
        tokens = min(burst, tokens + passed * Double(rate))
    }
}
