import ChunkModel
import Testing

@Suite struct TraceContextTests {
    private static let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    private static let span = "00f067aa0ba902b7"

    @Test func aContextIsReadAsTheStandardWritesItAndWrittenTheSame() throws {
        let text = "00-\(Self.trace)-\(Self.span)-01"
        let context = try #require(TraceContext(traceparent: text))
        #expect(context.trace.hex == Self.trace && context.span.hex == Self.span)
        #expect(context.traceparent == text)
        #expect(TraceContext(traceparent: "00-\(Self.trace)-\(Self.span)-00") == context, "flags are not looked at")
    }

    @Test func aLaterVersionIsReadAsFarAsItIsKnown() throws {
        for text in ["01-\(Self.trace)-\(Self.span)-01", "cc-\(Self.trace)-\(Self.span)-03-what-comes-then"] {
            #expect(TraceContext(traceparent: text)?.traceparent == "00-\(Self.trace)-\(Self.span)-01", "\(text)")
        }
    }

    @Test(arguments: [
        "", "00", "00-\(trace)-\(span)", "00-\(trace)-\(span)-0", "00-\(trace)-\(span)-0g", "ff-\(trace)-\(span)-01",
        "0-\(trace)-\(span)-01", "00-\(trace)-\(span)-01-", "00-\(trace)-\(span)-01-more", "01-\(trace)-\(span)-01more",
        "00-\(trace.uppercased())-\(span)-01", "00-\(String(repeating: "0", count: 32))-\(span)-01",
        "00-\(trace)-\(String(repeating: "0", count: 16))-01", "00-\(trace)x-\(span)-01", "00-\(span)-\(trace)-01",
        "00_\(trace)_\(span)_01", " 00-\(trace)-\(span)-01", "é0-\(trace)-\(span)-01",
        "01-\(trace)-\(span)-01-" + String(repeating: "a", count: TraceContext.maxBytes),
    ])
    func whatIsMalformedIsNone(text: String) { #expect(TraceContext(traceparent: text) == nil) }

    @Test func idsAreOfChanceAloneAndNeverZero() {
        struct Zeros: RandomNumberGenerator { mutating func next() -> UInt64 { 0 } }
        var zeros = Zeros()
        #expect(TraceID(using: &zeros).hex == String(repeating: "0", count: 31) + "1")
        #expect(SpanID(using: &zeros).hex == String(repeating: "0", count: 15) + "1")
        var (a, b) = (SplitMix64(seed: 7), SplitMix64(seed: 7))
        let id = TraceID(using: &a)
        #expect(id == TraceID(using: &b) && TraceID(hex: id.hex) == id)
        #expect(TraceID(using: &a) != id)
    }
}
