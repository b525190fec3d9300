import ChunkModel
import Testing

@testable import ChunkResolution

@Suite struct SpanTrackerTests {
    private let key = ChunkKey(BlobID(0), 5)
    private let subject = Span.Subject(repository: "r/app", chunk: 5)

    private let asker = TraceContext(
        traceparent: "00-\(String(repeating: "ab", count: 16))-\(String(repeating: "cd", count: 8))-01")

    private func at(_ milliseconds: Int) -> Duration { .milliseconds(milliseconds) }

    private func plan(_ id: UInt64, _ source: FetchSource, _ chunks: Range<Int> = 5..<6) -> RangePlan {
        RangePlan(
            id: id, blob: BlobID(0), source: source, chunks: chunks, stored: 0..<1, rank: .demand, bypassCaches: false,
            repair: false, wait: .zero)
    }

    /// `name source result begin–end`, errors with `!`, parts indented.
    private func lines(_ ended: SpanTracker.Ended) -> [String] {
        let ids = Dictionary(uniqueKeysWithValues: ended.spans.map { ($0.id, $0) })
        return ended.spans.map { span in
            let name: String =
                switch span.step {
                case .miss(_, let source): "miss \(source ?? "-")"
                case .relay(_, let source): "relay \(source ?? "-")"
                case .ask(let asking):
                    "ask \(asking.source)\(asking.isHedge ? " hedge" : "")\(asking.isJoined ? " joined" : "")"
                case .fill: "fill"
                case .serve: "serve"
                }
            let isPart = span.parent.flatMap { ids[$0] } != nil
            return (isPart ? "  " : "") + "\(name) \(span.isError ? "!" : "")\(span.result) "
                + "\(Int(span.begin / .milliseconds(1)))-\(Int(span.end / .milliseconds(1)))"
        }
    }

    @Test func aMissIsItsSourceAndItsFill() throws {
        var tracker = SpanTracker(seed: 1)
        tracker.begin(key, subject, within: nil, now: at(0))
        let carried = tracker.fetch(plan(1, .registry), source: "registry/r", now: at(1))
        #expect(carried != nil)
        tracker.filled(
            key, result: "resident", isResident: true, source: "registry/r", bytes: 9, arrived: at(20), now: at(22))
        let ended = tracker.settled(key, isResident: true, source: "registry/r", now: at(22))
        #expect(ended.count == 1 && tracker.isIdle)
        #expect(
            lines(try #require(ended.first)) == [
                "  ask registry/r delivered 1-20", "  fill resident 20-22", "miss registry/r resident 0-22",
            ])
        // The request goes on, and nobody follows it any more.
        tracker.ended(range: 1, delivered: 1, result: nil, isError: false, now: at(30))
        let again = tracker.settled(key, isResident: true, source: nil, now: at(30))
        #expect(again.isEmpty)
    }

    @Test func oneSourceAfterTheOtherAndAHedgeAreAllTold() throws {
        var tracker = SpanTracker(seed: 1)
        tracker.begin(key, subject, within: nil, now: at(0))
        let (a, b) = (try #require(NodeName("a")), try #require(NodeName("b")))
        _ = tracker.fetch(plan(1, .peer(a, fetch: false)), source: "peer/a", now: at(1))
        tracker.ended(range: 1, delivered: 0, result: "absent", isError: false, now: at(4))
        _ = tracker.fetch(plan(2, .peer(b, fetch: true)), source: "peer/b", now: at(5))
        _ = tracker.fetch(plan(3, .registry), source: "registry/r", now: at(50))
        tracker.filled(
            key, result: "mismatch", isResident: false, source: "peer/b", bytes: 9, arrived: at(60), now: at(61))
        tracker.filled(
            key, result: "resident", isResident: true, source: "registry/r", bytes: 9, arrived: at(70), now: at(71))
        let all = tracker.settled(key, isResident: true, source: "registry/r", now: at(71))
        let ended = try #require(all.first)
        #expect(
            lines(ended) == [
                "  ask peer/a absent 1-4", "  ask peer/b !mismatch 5-60", "  fill !mismatch 60-61",
                "  ask registry/r hedge delivered 50-70", "  fill resident 70-71", "miss registry/r resident 0-71",
            ])
    }

    @Test func aReaderThatIsRefusedAndOneWhoseGateIsGoneHaveTheirEnd() throws {
        var tracker = SpanTracker(seed: 1)
        tracker.begin(key, subject, within: nil, now: at(0))
        _ = tracker.fetch(plan(1, .registry), source: "registry/r", now: at(1))
        let asker = try #require(asker)
        tracker.begin(key, subject, within: asker, now: at(2))
        let refused = tracker.failed(key, reason: "deadline", now: at(25))
        let failed = try #require(refused.first)
        #expect(lines(failed) == ["  ask registry/r unfinished 1-25", "miss - !deadline 0-25"])
        // The node that asked still waits.
        let rest = tracker.endAll(result: "gate_lost", now: at(30))
        #expect(rest.map(\.trace) == [asker.trace] && rest.first?.spans.last?.parent == asker.span)
        #expect(rest.map(lines) == [["  ask registry/r joined unfinished 1-30", "relay - !gate_lost 2-30"]])
        #expect(tracker.isIdle)
    }

    @Test func oneRequestCarriesTheContextOfTheFirstChunkThatIsFollowedAndTheOthersLinkToIt() throws {
        var tracker = SpanTracker(seed: 1)
        let other = ChunkKey(BlobID(0), 7)
        for key in [key, other] { tracker.begin(key, subject, within: nil, now: at(0)) }
        let carried = tracker.fetch(plan(1, .registry, 4..<9), source: "registry/r", now: at(1))
        let sent = try #require(carried)
        tracker.ended(range: 1, delivered: 0, result: "timeout", isError: true, now: at(9))
        let ended = [key, other].flatMap { tracker.settled($0, isResident: false, source: nil, now: at(10)) }
        let asks = ended.compactMap { $0.spans.first }
        #expect(ended.first?.trace == sent.trace && asks.first?.id == sent.span && ended.last?.trace != sent.trace)
        #expect(
            asks.map(\.step) == [
                .ask(.init(source: "registry/r", chunks: 5)),
                .ask(.init(source: "registry/r", chunks: 5, carrier: sent)),
            ])
        #expect(asks.allSatisfy { $0.isError && $0.result == "timeout" })
    }

    @Test func aRelayedChunkHandsItsTraceOn() throws {
        var tracker = SpanTracker(seed: 1)
        let asker = try #require(asker)
        tracker.begin(key, subject, within: asker, now: at(0))
        let carried = tracker.fetch(plan(1, .registry), source: "registry/r", now: at(1))
        let sent = try #require(carried)
        #expect(sent.trace == asker.trace && sent.span != asker.span)
    }

    @Test func aCopyIsOneStep() throws {
        var tracker = SpanTracker(seed: 1)
        tracker.begin(key, subject, within: nil, now: at(0))
        tracker.copy(key, now: at(1))
        tracker.filled(key, result: "resident", isResident: true, source: "disk", bytes: 9, arrived: nil, now: at(3))
        let all = tracker.settled(key, isResident: true, source: "disk", now: at(3))
        let ended = try #require(all.first)
        #expect(lines(ended) == ["  ask disk delivered 1-3", "miss disk resident 0-3"])
    }

    @Test func whatIsFollowedHasABound() {
        var tracker = SpanTracker(seed: 1)
        for _ in 0..<100 { tracker.begin(key, subject, within: nil, now: at(0)) }
        for id in 1...100 as ClosedRange<UInt64> {
            _ = tracker.fetch(plan(id, .registry), source: "registry/r", now: at(1))
            tracker.ended(range: id, delivered: 0, result: "reset", isError: true, now: at(2))
        }
        let ended = tracker.settled(key, isResident: false, source: nil, now: at(3))
        #expect(ended.count == SpanTracker.maxWishes)
        #expect(ended.allSatisfy { $0.spans.count == SpanTracker.maxSpans + 1 })
    }
}
