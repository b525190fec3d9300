import ChunkModel
import ChunkResolution
import Glibc
import LinuxSystem
import Synchronization

/// The traces of this node: what ended goes in, `chunkctl spans` asks. Thread-safe; never blocks for long.
final class SpanRecorder: Sendable {
    private let ring: Mutex<TraceRing>
    private let random: Mutex<SplitMix64>

    init(limits: TraceRing.Limits = TraceRing.Limits()) {
        ring = Mutex(TraceRing(limits: limits))
        random = Mutex(SplitMix64(seed: Self.seed()))
    }

    /// Not a secret, but not twice in a cluster.
    static func seed() -> UInt64 { UInt64.random(in: .min ... .max) }

    /// The clock of all spans: monotonic, since boot.
    static var now: Duration { .nanoseconds(Int64(clamping: Monotonic.now.nanoseconds)) }

    func spanID() -> SpanID { random.withLock { SpanID(using: &$0) } }

    /// Takes spans that have ended.
    /// - Returns: how many there was no room for.
    @discardableResult
    func add(_ ended: [SpanTracker.Ended]) -> UInt64 {
        guard !ended.isEmpty else { return 0 }
        return ring.withLock { ring in
            let before = ring.dropped
            for trace in ended { ring.add(trace.spans, of: trace.trace) }
            return ring.dropped - before
        }
    }

    /// One trace, the slowest, or all, as they are asked for.
    func traces(_ id: TraceID?, slowest: Int?) -> [Trace] {
        ring.withLock { ring in
            if let id { return ring[id].map { [$0] } ?? [] }
            if let slowest { return ring.slowest(slowest) }
            return ring.traces
        }
    }

    /// What to add to a time of `now` for nanoseconds since 1970.
    static func unixOffset() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec) - now.wholeNanoseconds
    }
}

extension Duration {
    /// Whole nanoseconds, at most those of an `Int64`.
    var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? (seconds < 0 ? .min : .max) : product &+ attoseconds / 1_000_000_000
    }
}
