package import ChunkModel

/// Follows the chunks that somebody waits for, and makes spans of what is done for them.
///
/// A value that asks no clock: events go in with the time, ended spans come out. It decides nothing and may be told of
/// chunks and requests it does not follow. Its size is that of the scheduler's: a chunk is followed from its miss, or a
/// peer's request, until it is settled. One user at a time.
package struct SpanTracker {
    /// Spans of one trace that have ended.
    package struct Ended: Equatable, Sendable {
        package let trace: TraceID
        package let spans: [Span]

        package init(trace: TraceID, spans: [Span]) {
            self.trace = trace
            self.spans = spans
        }
    }

    /// Somebody who waits for a chunk.
    private struct Wish {
        let trace: TraceID
        let head: SpanID
        let parent: SpanID?
        let isMiss: Bool
        let subject: Span.Subject
        let begin: Duration
        var spans: [Span] = []
        /// Requests under way, the chunk asked for among others.
        var open: [Open] = []
    }

    private struct Open {
        /// Nil is a copy from this node's disk.
        let range: UInt64?
        let id: SpanID
        let begin: Duration
        let asking: Span.Asking
    }

    /// A request, followed by anybody or not: a reader may yet come for a chunk of it.
    private struct Running {
        let blob: BlobID
        let chunks: Range<Int>
        let source: String
        let begin: Duration
    }

    /// Who waits for one chunk and is followed; a reader and some nodes below this one.
    package static let maxWishes = 8
    /// Spans kept of one wish: 16 sources asked, tried and refused, with room for what led to it.
    package static let maxSpans = 32

    private var wishes: [ChunkKey: [Wish]] = [:]
    private var running: [UInt64: Running] = [:]
    private var random: SplitMix64

    /// `seed` makes the ids; two nodes must not have the same.
    package init(seed: UInt64) { random = SplitMix64(seed: seed) }

    package var isIdle: Bool { wishes.isEmpty }
    package func isFollowed(_ key: ChunkKey) -> Bool { wishes[key] != nil }

    // MARK: - Begins

    /// Somebody waits for a chunk: a reader, with a trace of its own, or a node that asked within one.
    package mutating func begin(_ key: ChunkKey, _ subject: Span.Subject, within asker: TraceContext?, now: Duration) {
        guard (wishes[key]?.count ?? 0) < Self.maxWishes else { return }
        var wish = Wish(
            trace: asker?.trace ?? TraceID(using: &random), head: SpanID(using: &random), parent: asker?.span,
            isMiss: asker == nil, subject: subject, begin: now)
        for (id, range) in running.sorted(by: { $0.key < $1.key })
        where range.blob == key.blob && range.chunks.contains(key.chunk) {
            let asking = Span.Asking(
                source: range.source, chunks: range.chunks.count, isHedge: !wish.open.isEmpty, isJoined: true)
            wish.open.append(Open(range: id, id: SpanID(using: &random), begin: range.begin, asking: asking))
        }
        wishes[key, default: []].append(wish)
    }

    /// A request begins; what it is to carry, if a chunk of it is followed.
    package mutating func fetch(_ plan: RangePlan, source: String, now: Duration) -> TraceContext? {
        running[plan.id] = Running(blob: plan.blob, chunks: plan.chunks, source: source, begin: now)
        var carrier: TraceContext?
        for chunk in plan.chunks {
            ask(
                ChunkKey(plan.blob, chunk), range: plan.id,
                Span.Asking(source: source, chunks: plan.chunks.count), &carrier, now)
        }
        return carrier
    }

    /// A copy from another blob of this node begins.
    package mutating func copy(_ key: ChunkKey, now: Duration) {
        var carrier: TraceContext?
        ask(key, range: nil, Span.Asking(source: "disk"), &carrier, now)
    }

    private mutating func ask(
        _ key: ChunkKey, range: UInt64?, _ asking: Span.Asking, _ carrier: inout TraceContext?, _ now: Duration
    ) {
        for number in (wishes[key] ?? []).indices {
            guard let wish = wishes[key]?[number] else { continue }
            let id = SpanID(using: &random)
            var asking = asking
            asking.isHedge = !wish.open.isEmpty
            asking.carrier = carrier
            wishes[key]?[number].open.append(Open(range: range, id: id, begin: now, asking: asking))
            if carrier == nil { carrier = TraceContext(trace: wish.trace, span: id) }
        }
    }

    // MARK: - Ends

    /// chunkgate's word on bytes: `source` is who had sent them, `arrived` when they were whole here.
    package mutating func filled(
        _ key: ChunkKey, result: String, isResident: Bool, source: String?, bytes: UInt64, arrived: Duration?,
        now: Duration
    ) {
        for number in (wishes[key] ?? []).indices {
            guard let open = wishes[key]?[number].open else { continue }
            let found = open.firstIndex { $0.asking.source == source } ?? open.indices.last
            guard let found else { continue }
            let isCopy = open[found].range == nil
            // chunkgate copies by itself: when it had read is not known.
            let whole = isCopy ? now : arrived ?? now
            // Wrong bytes are the source's fault; what else went wrong is chunkgate's or the disk's, but for a copy.
            let isBlamed = !isResident && (isCopy || result == "mismatch")
            close(
                key, number, found, at: whole, result: isBlamed ? result : "delivered", isError: isBlamed, bytes: bytes)
            guard !isCopy, let id = wishes[key]?[number].head else { continue }
            append(
                Span(
                    id: SpanID(using: &random), parent: id, step: .fill, begin: whole, end: now, bytes: bytes,
                    result: result, isError: !isResident), key, number)
        }
    }

    /// What a registry sent for the chunk does not decompress.
    package mutating func spoiled(_ key: ChunkKey, now: Duration) {
        for number in (wishes[key] ?? []).indices {
            let found = wishes[key]?[number].open.firstIndex { $0.asking.source.hasPrefix("registry/") }
            if let found { close(key, number, found, at: now, result: "undecodable", isError: true) }
        }
    }

    /// A request is over. Of its chunks those from the `delivered`th on did not come; `result` says why, or nil when it
    /// ended well with less than was asked for.
    package mutating func ended(range id: UInt64, delivered: Int, result: String?, isError: Bool, now: Duration) {
        guard let range = running.removeValue(forKey: id) else { return }
        for chunk in range.chunks.dropFirst(max(0, min(delivered, range.chunks.count))) {
            let key = ChunkKey(range.blob, chunk)
            for number in (wishes[key] ?? []).indices {
                guard let at = wishes[key]?[number].open.firstIndex(where: { $0.range == id }) else { continue }
                close(key, number, at, at: now, result: result ?? "partial", isError: isError && result != nil)
            }
        }
    }

    /// A reader is given an error; the chunk may yet come, for others.
    package mutating func failed(_ key: ChunkKey, reason: String, now: Duration) -> [Ended] {
        finish(key, result: reason, isResident: false, source: nil, now: now) { $0.isMiss }
    }

    /// The chunk is here, or nobody is tried for it any more.
    package mutating func settled(_ key: ChunkKey, isResident: Bool, source: String?, now: Duration) -> [Ended] {
        finish(key, result: isResident ? "resident" : "given_up", isResident: isResident, source: source, now: now) {
            _ in true
        }
    }

    /// Everything is void: chunkgate is gone.
    package mutating func endAll(result: String, now: Duration) -> [Ended] {
        running = [:]
        return wishes.keys.sorted().flatMap {
            finish($0, result: result, isResident: false, source: nil, now: now) { _ in true }
        }
    }

    private mutating func finish(
        _ key: ChunkKey, result: String, isResident: Bool, source: String?, now: Duration, which: (Wish) -> Bool
    ) -> [Ended] {
        guard let all = wishes[key] else { return [] }
        var out: [Ended] = []
        for number in all.indices where which(all[number]) {
            while let last = wishes[key]?[number].open.indices.last {
                close(key, number, last, at: now, result: isResident ? "overtaken" : "unfinished", isError: false)
            }
            guard let wish = wishes[key]?[number] else { continue }
            let step: Span.Step =
                wish.isMiss ? .miss(wish.subject, source: source) : .relay(wish.subject, source: source)
            let head = Span(
                id: wish.head, parent: wish.parent, step: step, begin: wish.begin, end: now, result: result,
                isError: !isResident)
            out.append(Ended(trace: wish.trace, spans: wish.spans + [head]))
        }
        let left = (wishes[key] ?? []).filter { !which($0) }
        wishes[key] = left.isEmpty ? nil : left
        return out
    }

    private mutating func close(
        _ key: ChunkKey, _ number: Int, _ at: Int, at end: Duration, result: String, isError: Bool, bytes: UInt64 = 0
    ) {
        guard let open = wishes[key]?[number].open.remove(at: at), let head = wishes[key]?[number].head else { return }
        append(
            Span(
                id: open.id, parent: head, step: .ask(open.asking), begin: open.begin, end: end, bytes: bytes,
                result: result, isError: isError), key, number)
    }

    private mutating func append(_ span: Span, _ key: ChunkKey, _ number: Int) {
        guard let count = wishes[key]?[number].spans.count, count < Self.maxSpans else { return }
        wishes[key]?[number].spans.append(span)
    }
}
