import ChunkModel
import ChunkResolution
import Testing

@Suite struct TraceRingTests {
    private var random = SplitMix64(seed: 1)

    private mutating func span(
        _ milliseconds: Int, at begin: Int = 0, isError: Bool = false, isHead: Bool = true
    ) -> Span {
        let begin = Duration.milliseconds(begin)
        return Span(
            id: SpanID(using: &random), parent: nil, step: isHead ? .miss(.init(chunk: 1), source: nil) : .fill,
            begin: begin, end: begin + .milliseconds(milliseconds), result: isError ? "deadline" : "resident",
            isError: isError)
    }

    private mutating func trace() -> TraceID { TraceID(using: &random) }

    private func limits() -> TraceRing.Limits {
        var limits = TraceRing.Limits()
        (limits.traces, limits.notable, limits.spansPerTrace) = (8, 5, 4)
        return limits
    }

    @Test mutating func theOldestGoFirst() {
        var ring = TraceRing(limits: limits())
        let ids = (0..<20).map { _ in trace() }
        for (number, id) in ids.enumerated() { ring.add([span(1, at: number * 10)], of: id) }
        #expect(ring.traces.map(\.id) == Array(ids.suffix(8)))
        #expect(ring.evicted == 12 && ring[ids[0]] == nil && ring[ids[19]] != nil)
    }

    @Test mutating func slowAndFailedOnesOutliveManyOrdinaryOnes() {
        var ring = TraceRing(limits: limits())
        let (slow, failed, lateFailed) = (trace(), trace(), trace())
        ring.add([span(500)], of: slow)
        ring.add([span(1, isError: true)], of: failed)
        ring.add([span(1)], of: lateFailed)
        // A source that failed is of every day as long as the chunk came.
        let ordinary = trace()
        ring.add([span(1, isError: true, isHead: false), span(2)], of: ordinary)
        // It becomes notable by what is added later.
        ring.add([span(1, isError: true)], of: lateFailed)
        for number in 0..<3000 { ring.add([span(1, at: 1000 + number)], of: trace()) }
        #expect(ring.count == 8)
        for id in [slow, failed, lateFailed] { #expect(ring[id]?.isNotable == true) }
        #expect(ring[ordinary] == nil)
    }

    @Test mutating func aBadHourDoesNotDriveOutWhatIsNormal() {
        var ring = TraceRing(limits: limits())
        let ordinary = (0..<3).map { _ in trace() }
        for id in ordinary { ring.add([span(1)], of: id) }
        let failed = (0..<100).map { _ in trace() }
        for (number, id) in failed.enumerated() { ring.add([span(1, at: number, isError: true)], of: id) }
        #expect(ring.traces.filter(\.isNotable).map(\.id) == Array(failed.suffix(5)))
        #expect(ordinary.filter { ring[$0] != nil }.count >= 2 && ring.count <= 8)
    }

    @Test mutating func aTraceHasABoundAndItsHeadIsKept() {
        var ring = TraceRing(limits: limits())
        let id = trace()
        let head = span(9)
        ring.add((0..<10).map { _ in span(1, isHead: false) } + [head], of: id)
        #expect(ring[id]?.spans.count == 4 && ring[id]?.spans.last == head && ring[id]?.dropped == 7)
        ring.add([span(1)], of: id)
        #expect(ring[id]?.spans.count == 4 && ring.dropped == 8)
    }

    @Test mutating func theSlowestAreTheLongestFirst() {
        var ring = TraceRing(limits: limits())
        let ids = [30, 700, 5, 90].map { milliseconds in
            let id = trace()
            ring.add([span(milliseconds)], of: id)
            return id
        }
        #expect(ring.slowest(2).map(\.id) == [ids[1], ids[3]])
        #expect(ring.slowest(0).isEmpty && ring.slowest(99).count == 4)
    }
}
