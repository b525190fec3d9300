import ChunkModel

/// `POST /v1/spans`; `GET` asks for all that are kept.
package struct SpansRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// Only this trace: 32 hexadecimal digits.
    package var trace: TraceID?
    /// Only so many, those that took longest.
    package var slowest: Int?

    package init(trace: TraceID? = nil, slowest: Int? = nil) {
        self.trace = trace
        self.slowest = slowest
    }
}

/// A value of a span's attribute. JSON: the value itself.
package enum SpanValue: Codable, Equatable, Sendable, CustomStringConvertible {
    case text(String)
    case number(Int64)
    case flag(Bool)

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let flag = try? container.decode(Bool.self) {
            // Not a flag: one of the other two.
            self = .flag(flag)
        } else if let number = try? container.decode(Int64.self) {
            // Not a number: the text it then has to be.
            self = .number(number)
        } else {
            self = .text(try container.decode(String.self))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .text(let text): try container.encode(text)
        case .number(let number): try container.encode(number)
        case .flag(let flag): try container.encode(flag)
        }
    }

    package var description: String {
        switch self {
        case .text(let text): text
        case .number(let number): "\(number)"
        case .flag(let flag): "\(flag)"
        }
    }
}

/// One span: docs/formats/spans.md.
package struct SpanRecord: Codable, Equatable, Sendable {
    /// What stands for a whole matter, and its parts. Closed set; a name of a newer chunkd reads as `other`.
    package enum Name: String, Codable, CaseIterable, Sendable {
        case miss, relay, ask, fill, serve
        case other

        package init(from decoder: any Decoder) throws {
            self = Name(rawValue: try decoder.singleValueContainer().decode(String.self)) ?? .other
        }
    }

    /// A span of another trace.
    package struct Link: Codable, Equatable, Sendable {
        package var traceId: TraceID
        package var spanId: SpanID

        package init(_ context: TraceContext) { (traceId, spanId) = (context.trace, context.span) }
    }

    package var spanId: SpanID
    package var parentSpanId: SpanID?
    package var name: Name
    /// Decimal digits, as OTLP has them: JSON's numbers are too short.
    package var startUnixNanoseconds: String
    package var endUnixNanoseconds: String
    package var isError: Bool
    package var result: String
    /// The span whose context the request carried instead of this one's.
    package var carrier: Link?
    package var attributes: [String: SpanValue]

    package init(
        spanId: SpanID, parentSpanId: SpanID?, name: Name, startUnixNanoseconds: Int64, endUnixNanoseconds: Int64,
        isError: Bool, result: String, carrier: TraceContext? = nil, attributes: [String: SpanValue] = [:]
    ) {
        self.spanId = spanId
        self.parentSpanId = parentSpanId
        self.name = name
        self.startUnixNanoseconds = "\(startUnixNanoseconds)"
        self.endUnixNanoseconds = "\(endUnixNanoseconds)"
        self.isError = isError
        self.result = result
        self.carrier = carrier.map(Link.init)
        self.attributes = attributes
    }

    /// Nanoseconds since 1970; 0 for what is no number.
    package var start: Int64 { Int64(startUnixNanoseconds) ?? 0 }
    package var end: Int64 { Int64(endUnixNanoseconds) ?? 0 }
}

/// The spans of one trace that this node made.
package struct TraceRecord: Codable, Equatable, Sendable {
    package var traceId: TraceID
    package var spans: [SpanRecord]
    /// Further ones that were not kept.
    package var dropped: UInt64

    package init(traceId: TraceID, spans: [SpanRecord], dropped: UInt64 = 0) {
        self.traceId = traceId
        self.spans = spans
        self.dropped = dropped
    }
}

/// Answer to `GET` and `POST /v1/spans`.
package struct SpansReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    /// This node, as `service.instance.id` names it.
    package var node: String
    /// Of chunkd.
    package var version: String
    package var traces: [TraceRecord]
    /// Further ones are kept, and did not fit the answer.
    package var isCut: Bool

    /// Spans of one answer: 16,384 × at most about 700 bytes is below what a client takes.
    package static let maxSpans = 16_384

    package init(node: String, version: String, traces: [TraceRecord], isCut: Bool = false) {
        self.node = node
        self.version = version
        self.traces = traces
        self.isCut = isCut
    }
}

extension TraceID: Codable {
    package init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        guard let id = TraceID(hex: text) else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "expected 32 hexadecimal digits, not all zero"))
        }
        self = id
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(hex)
    }
}

extension SpanID: Codable {
    package init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        guard let id = SpanID(hex: text) else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "expected 16 hexadecimal digits, not all zero"))
        }
        self = id
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(hex)
    }
}
