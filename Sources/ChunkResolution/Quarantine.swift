/// How long a source that sent wrong bytes is left alone.
package struct QuarantineLimits: Sendable, Equatable {
    /// First time; doubles with each further bad chunk up to `longest`.
    package var shortest = Duration.seconds(1)
    package var longest = Duration.seconds(60)
    /// Different chunks gone bad before the source is asked for nothing at all of this blob.
    package var maxBadChunks = 4

    package init() {}
}

/// What one blob's source has done wrong. One bad chunk keeps that chunk, and everything nobody waits for, from being
/// fetched; several bad ones keep everything. Both end with time, so a healed source is found by the next read, and
/// for good with a right chunk in place of a bad one.
struct Quarantine {
    private(set) var until: Duration
    private var bad: Set<Int> = []
    private var span: Duration
    private let limits: QuarantineLimits

    init(limits: QuarantineLimits) {
        self.limits = limits
        until = .zero
        span = limits.shortest
    }

    /// A chunk came with wrong bytes, past caches too.
    mutating func note(chunk: Int, now: Duration) {
        if !bad.isEmpty { span = min(span * 2, limits.longest) }
        bad.insert(chunk)
        until = now + span
    }

    /// A right chunk came; true when nothing bad is left.
    mutating func noteGood(chunk: Int) -> Bool {
        bad.remove(chunk)
        return bad.isEmpty
    }

    /// Whether this chunk may be asked for now.
    func allows(_ chunk: Int, _ rank: FetchRank, now: Duration) -> Bool {
        if now >= until { return true }
        return rank == .demand && bad.count < limits.maxBadChunks && !bad.contains(chunk)
    }
}
