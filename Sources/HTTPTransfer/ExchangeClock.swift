/// Where one exchange stands in time and when it runs out of it. Pure value: `now` is an argument, in nanoseconds on
/// any monotonic clock. Connecting is timed by libcurl itself (CURLOPT_CONNECTTIMEOUT_MS).
struct ExchangeClock {
    enum Phase: Equatable {
        case queued
        case connecting
        /// The request is being sent or its answer awaited, since the last sign of life.
        case awaiting(since: UInt64)
        /// A body window that started then, with that many bytes moved in it.
        case receiving(since: UInt64, bytes: UInt64)
        case paused
    }

    private let timeouts: TransferTimeouts
    private let submitted: UInt64
    private(set) var phase = Phase.queued

    init(timeouts: TransferTimeouts, now: UInt64) {
        self.timeouts = timeouts
        submitted = now
    }

    /// A connection of the budget was given.
    mutating func started() { phase = .connecting }
    /// The connection stands and the request goes out, or another piece of its body did.
    mutating func requestProgressed(now: UInt64) {
        switch phase {
        case .connecting, .awaiting: phase = .awaiting(since: now)
        case .queued, .receiving, .paused: break
        }
    }
    /// Bytes of the response arrived.
    mutating func responseProgressed(bytes: UInt64, now: UInt64) {
        if case .receiving(let since, let before) = phase {
            phase = .receiving(since: since, bytes: before &+ bytes)
        } else {
            phase = .receiving(since: now, bytes: bytes)
        }
    }
    mutating func paused() { phase = .paused }
    mutating func resumed(now: UInt64) {
        if phase == .paused { phase = .receiving(since: now, bytes: 0) }
    }

    /// When `expired(now:)` is to be asked next.
    var nextCheck: UInt64 {
        let end = timeouts.total.map { Self.after(submitted, $0) } ?? .max
        switch phase {
        case .queued: return min(end, Self.after(submitted, timeouts.queue))
        case .connecting, .paused: return end
        case .awaiting(let since): return min(end, Self.after(since, timeouts.firstByte))
        case .receiving(let since, _): return min(end, Self.after(since, timeouts.progressWindow))
        }
    }

    /// The timeout that has run out, if one has; starts the next progress window when the last moved enough.
    mutating func expired(now: UInt64) -> TransferError.Code? {
        if let total = timeouts.total, now >= Self.after(submitted, total) { return .totalTimeout }
        switch phase {
        case .queued:
            return now >= Self.after(submitted, timeouts.queue) ? .queueTimeout : nil
        case .connecting, .paused:
            return nil
        case .awaiting(let since):
            return now >= Self.after(since, timeouts.firstByte) ? .firstByteTimeout : nil
        case .receiving(let since, let bytes):
            guard now >= Self.after(since, timeouts.progressWindow) else { return nil }
            guard bytes >= timeouts.progressBytes else { return .progressTimeout }
            phase = .receiving(since: now, bytes: 0)
            return nil
        }
    }

    private static func after(_ start: UInt64, _ duration: Duration) -> UInt64 {
        let (sum, overflow) = start.addingReportingOverflow(duration.clampedNanoseconds)
        return overflow ? .max : sum
    }
}

extension Duration {
    /// Whole nanoseconds, 0 for negative durations, at most 2^63 - 1.
    var clampedNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        guard seconds < 9_000_000_000 else { return UInt64(Int64.max) }
        return UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }

    /// Whole milliseconds for libcurl and poll(2), rounded up, 0...Int32.max.
    var clampedMilliseconds: Int { Int(min((clampedNanoseconds + 999_999) / 1_000_000, UInt64(Int32.max))) }
}
