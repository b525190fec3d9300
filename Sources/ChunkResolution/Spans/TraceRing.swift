package import ChunkModel

/// The last traces of this node, slow and failed ones in preference. A value: no clock, no I/O. One user at a time.
package struct TraceRing {
    /// What is kept.
    package struct Limits: Sendable {
        /// Traces: 512 of about 4 spans of 250 bytes are half a megabyte.
        package var traces = 512
        /// Of them slow or failed ones at most, so that a bad hour does not drive out what is normal.
        package var notable = 384
        /// Spans of one trace: 512 × 64 × 250 bytes = 8 MiB, if a peer gave all of its requests one trace.
        package var spansPerTrace = 64
        /// A miss, or an answer to a peer, of at least this long is slow.
        package var slow = Duration.milliseconds(500)

        package init() {}
    }

    package let limits: Limits
    private var kept: [TraceID: Trace] = [:]
    /// In order of their coming; an entry counts while its trace is kept and of that kind.
    private var ordinary = Line()
    private var notable = Line()
    private var notableCount = 0

    /// Traces that had to go.
    package private(set) var evicted: UInt64 = 0
    /// Spans over the limit of their trace.
    package private(set) var dropped: UInt64 = 0

    /// First in, first out, without moving the rest for each.
    private struct Line {
        var ids: [TraceID] = []
        var head = 0

        mutating func next() -> TraceID? {
            guard head < ids.count else { return nil }
            head += 1
            let id = ids[head - 1]
            if head >= 1024 {
                ids.removeFirst(head)
                head = 0
            }
            return id
        }
    }

    package init(limits: Limits = Limits()) { self.limits = limits }

    package var count: Int { kept.count }

    /// Takes spans that have ended. A trace may get more of them later.
    package mutating func add(_ spans: [Span], of id: TraceID) {
        guard !spans.isEmpty else { return }
        if kept[id] == nil {
            makeRoom()
            kept[id] = Trace(id: id, spans: [])
            ordinary.ids.append(id)
        }
        let room = max(0, limits.spansPerTrace - (kept[id]?.spans.count ?? 0))
        let over = max(0, spans.count - room)
        // What stands for the whole comes last, and must not be what is left out.
        kept[id]?.spans += spans.prefix(over == 0 ? spans.count : max(0, room - 1))
        if over > 0, room > 0 { kept[id]?.spans += spans.suffix(1) }
        kept[id]?.dropped += over
        dropped += UInt64(over)
        if kept[id]?.isNotable == false, spans.contains(where: isNotable) { promote(id) }
    }

    private func isNotable(_ span: Span) -> Bool { span.isHead && (span.isError || span.duration >= limits.slow) }

    private mutating func promote(_ id: TraceID) {
        if notableCount == limits.notable { evict(notable: true) }
        kept[id]?.isNotable = true
        notableCount += 1
        notable.ids.append(id)
        // Entries that no longer count are as many as the notable ones at most between two evictions, or are dropped here.
        if ordinary.ids.count - ordinary.head > 4 * limits.traces {
            ordinary.ids = ordinary.ids.dropFirst(ordinary.head).filter { kept[$0]?.isNotable == false }
            ordinary.head = 0
        }
    }

    private mutating func makeRoom() {
        guard kept.count >= limits.traces else { return }
        evict(notable: notableCount == kept.count)
    }

    /// Drops the oldest of a kind.
    private mutating func evict(notable isNotable: Bool) {
        while let id = isNotable ? notable.next() : ordinary.next() {
            guard kept[id]?.isNotable == isNotable else { continue }
            kept[id] = nil
            evicted += 1
            if isNotable { notableCount -= 1 }
            return
        }
    }

    // MARK: - Asking

    package subscript(id: TraceID) -> Trace? { kept[id] }

    /// All that are kept, the one that ended last at the end.
    package var traces: [Trace] {
        kept.values.map { (end: $0.spans.last?.end ?? .zero, trace: $0) }
            .sorted { ($0.end, $0.trace.id.hex) < ($1.end, $1.trace.id.hex) }.map(\.trace)
    }

    /// The `count` that took longest, the longest first.
    package func slowest(_ count: Int) -> [Trace] {
        let sorted = traces.map { (duration: $0.duration, trace: $0) }.sorted { $0.duration > $1.duration }
        return sorted.prefix(max(0, count)).map(\.trace)
    }
}
