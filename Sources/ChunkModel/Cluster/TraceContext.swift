/// The id of a trace: 16 bytes, not all zero (W3C Trace Context, section 3.2.2.3). Value type.
package struct TraceID: Hashable, Sendable, CustomStringConvertible {
    private let high: UInt64
    private let low: UInt64

    /// A new one. Traces are told apart by chance: 128 bits of it.
    package init(using random: inout some RandomNumberGenerator) {
        let (high, low) = (random.next(), random.next())
        self.high = high
        // Nothing but zeros is no id.
        self.low = high == 0 && low == 0 ? 1 : low
    }

    /// Parses 32 lower-case hexadecimal digits, not all `0`; nil for anything else.
    package init?(hex: some StringProtocol) {
        let digits = hex.utf8
        guard digits.count == 32, let high = word(digits.prefix(16)), let low = word(digits.dropFirst(16)),
            high != 0 || low != 0
        else { return nil }
        self.high = high
        self.low = low
    }

    /// 32 lower-case hexadecimal digits.
    package var hex: String { digits(high) + digits(low) }
    package var description: String { hex }
}

/// The id of one span of a trace: 8 bytes, not all zero (section 3.2.2.4). Value type.
package struct SpanID: Hashable, Sendable, CustomStringConvertible {
    private let value: UInt64

    package init(using random: inout some RandomNumberGenerator) {
        let value: UInt64 = random.next()
        self.value = value == 0 ? 1 : value
    }

    /// Parses 16 lower-case hexadecimal digits, not all `0`; nil for anything else.
    package init?(hex: some StringProtocol) {
        guard hex.utf8.count == 16, let value = word(hex.utf8), value != 0 else { return nil }
        self.value = value
    }

    /// 16 lower-case hexadecimal digits.
    package var hex: String { digits(value) }
    package var description: String { hex }
}

/// Where a request belongs: a trace, and the span of it that asks. What `traceparent` carries between nodes (W3C Trace
/// Context, section 3.2). Its flags are not kept: every miss is recorded, in a bounded place. Value type.
package struct TraceContext: Hashable, Sendable {
    package let trace: TraceID
    /// The asking span.
    package let span: SpanID

    /// Name of the header field.
    package static let field = "traceparent"
    /// Bytes of a value that are looked at: 55 of version 00, and what a later one may add.
    package static let maxBytes = 128

    package init(trace: TraceID, span: SpanID) {
        self.trace = trace
        self.span = span
    }

    /// Parses a field's value: `00-<trace>-<span>-<flags>`, or of a later version what begins so. Nil for anything else;
    /// never traps.
    package init?(traceparent text: some StringProtocol) {
        let bytes = text.utf8
        guard bytes.count >= 55, bytes.count <= Self.maxBytes, bytes.allSatisfy({ $0 < 0x80 }) else { return nil }
        let parts = text.split(separator: "-", maxSplits: 4, omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[0].utf8.count == 2, let version = word(parts[0].utf8), version != 0xFF,
            let trace = TraceID(hex: parts[1]), let span = SpanID(hex: parts[2]), parts[3].utf8.count == 2,
            word(parts[3].utf8) != nil, version > 0 || parts.count == 4
        else { return nil }
        self.init(trace: trace, span: span)
    }

    /// The value of a field that means this: version 00, sampled.
    package var traceparent: String { "00-\(trace.hex)-\(span.hex)-01" }
}

/// Up to 16 lower-case hexadecimal digits; nil for anything else.
private func word(_ digits: some Sequence<UInt8>) -> UInt64? {
    var value: UInt64 = 0
    for digit in digits {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(digit - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(digit - UInt8(ascii: "a") + 10)
        default: return nil
        }
    }
    return value
}

private func digits(_ word: UInt64) -> String {
    let text = String(word, radix: 16)
    return String(repeating: "0", count: 16 - text.utf8.count) + text
}
