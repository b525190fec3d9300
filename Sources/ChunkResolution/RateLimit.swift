/// So many bytes a second on average. A request is never cut to fit: it may start once the ones before it are paid
/// for, and is then charged in full.
///
/// A value that asks no clock; times are durations since a moment before its first use (the generic cell rate
/// algorithm, ITU-T I.371: one time instead of a level that has to be filled).
package struct RateLimit: Sendable, Equatable {
    /// What an idle limit saves up.
    package static let burst = Duration.milliseconds(250)
    /// Readers start in debt, so that none waits for a long read-ahead to be paid for.
    package static let readersDebt = Duration.seconds(2)
    /// The longest request, which together with `readersDebt` bounds the debt; one chunk may be longer.
    package static let longestRequest = Duration.milliseconds(500)

    /// nil is no limit.
    package let bytesPerSecond: UInt64?
    /// When all that was charged is paid for.
    private var paidAt = Duration.zero

    /// 0 is no limit either.
    package init(_ bytesPerSecond: UInt64?) { self.bytesPerSecond = bytesPerSecond == 0 ? nil : bytesPerSecond }

    /// When a request may start, maybe in the past; nil is whenever it likes.
    package func opensAt(forReader: Bool) -> Duration? {
        guard bytesPerSecond != nil else { return nil }
        return forReader ? paidAt - Self.readersDebt : paidAt
    }

    /// A request of this many bytes starts.
    package mutating func charge(_ bytes: Int, now: Duration) { paidAt = max(paidAt, now - Self.burst) + time(bytes) }

    /// This much of what was charged did not come.
    package mutating func giveBack(_ bytes: Int) { paidAt -= time(bytes) }

    /// Bytes of the longest request; nil is any.
    package var longestRequestBytes: Int? {
        bytesPerSecond.map { Int(clamping: $0) / Int(Duration.seconds(1) / Self.longestRequest) }
    }

    private func time(_ bytes: Int) -> Duration {
        bytesPerSecond.map { .seconds(Double(bytes) / Double($0)) } ?? .zero
    }
}

/// How fast a node may fetch, in bytes a second as they come over the network; nil is no limit.
package struct DownloadLimits: Sendable, Equatable {
    /// From the registry and from peers.
    package var total: UInt64?
    /// From the registry.
    package var registry: UInt64?
    /// What nobody waits for: access traces, hydration, prefetch and repair, from wherever.
    package var prefetch: UInt64?

    package init(total: UInt64? = nil, registry: UInt64? = nil, prefetch: UInt64? = nil) {
        self.total = total
        self.registry = registry
        self.prefetch = prefetch
    }
}

/// The state of `DownloadLimits`: which of them a request is under, and what they say together.
struct DownloadRates: Sendable {
    private var total = RateLimit(nil)
    private var registry = RateLimit(nil)
    private var prefetch = RateLimit(nil)
    private(set) var isLimited = false

    /// New limits start without debt; those that stay the same keep theirs.
    mutating func change(_ limits: DownloadLimits) {
        if limits.total != total.bytesPerSecond { total = RateLimit(limits.total) }
        if limits.registry != registry.bytesPerSecond { registry = RateLimit(limits.registry) }
        if limits.prefetch != prefetch.bytesPerSecond { prefetch = RateLimit(limits.prefetch) }
        isLimited = [total, registry, prefetch].contains { $0.bytesPerSecond != nil }
    }

    /// Peers and the registry share a limit.
    var hasTotal: Bool { total.bytesPerSecond != nil }

    /// When a request may start; nil is whenever it likes.
    func opensAt(_ kind: Kind) -> Duration? {
        limits(kind).compactMap { self[keyPath: $0].opensAt(forReader: kind.rank == .demand) }.max()
    }

    /// The most bytes of one request; nil is any.
    func longestRequestBytes(_ kind: Kind) -> Int? {
        limits(kind).compactMap { self[keyPath: $0].longestRequestBytes }.min()
    }

    mutating func charge(_ bytes: Int, _ kind: Kind, now: Duration) {
        for limit in limits(kind) { self[keyPath: limit].charge(bytes, now: now) }
    }

    mutating func giveBack(_ bytes: Int, _ kind: Kind) {
        for limit in limits(kind) { self[keyPath: limit].giveBack(bytes) }
    }

    struct Kind {
        let rank: FetchRank
        let isRegistry: Bool
    }

    private func limits(_ kind: Kind) -> [WritableKeyPath<DownloadRates, RateLimit>] {
        guard isLimited else { return [] }
        return [\.total] + (kind.isRegistry ? [\.registry] : []) + (kind.rank >= .replay ? [\.prefetch] : [])
    }
}
