import ChunkModel
import ControlAPI

/// Spans as OTLP/JSON: what an OpenTelemetry collector takes as the body of `POST /v1/traces` (opentelemetry-proto 1.x,
/// `TracesData`; ids in hexadecimal, 64-bit numbers as texts).
struct OTLPDocument: Encodable {
    struct Value: Encodable {
        let value: SpanValue

        private enum CodingKeys: String, CodingKey { case stringValue, intValue, boolValue }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            switch value {
            case .text(let text): try container.encode(text, forKey: .stringValue)
            case .number(let number): try container.encode("\(number)", forKey: .intValue)
            case .flag(let flag): try container.encode(flag, forKey: .boolValue)
            }
        }
    }

    struct Attribute: Encodable {
        let key: String
        let value: Value

        init(_ key: String, _ value: SpanValue) { (self.key, self.value) = (key, Value(value: value)) }
    }

    struct Status: Encodable {
        /// 0 unset, 2 error.
        let code: Int
        var message: String?
    }

    struct Link: Encodable {
        let traceId: TraceID
        let spanId: SpanID
    }

    struct Span: Encodable {
        let traceId: TraceID
        let spanId: SpanID
        let parentSpanId: SpanID?
        let name: String
        let kind: Int
        let startTimeUnixNano: String
        let endTimeUnixNano: String
        let attributes: [Attribute]
        let links: [Link]
        let status: Status

        init(_ span: SpanRecord, of trace: TraceID) {
            traceId = trace
            spanId = span.spanId
            parentSpanId = span.parentSpanId
            name = span.name.rawValue
            // SPAN_KIND_INTERNAL, _SERVER, _CLIENT
            kind =
                switch span.name {
                case .miss, .relay, .fill, .other: 1
                case .serve: 2
                case .ask: 3
                }
            startTimeUnixNano = span.startUnixNanoseconds
            endTimeUnixNano = span.endUnixNanoseconds
            let named = span.attributes.sorted { $0.key < $1.key }.map { Attribute($0.key, $0.value) }
            attributes = named + [Attribute("chunkd.result", .text(span.result))]
            links = span.carrier.map { [Link(traceId: $0.traceId, spanId: $0.spanId)] } ?? []
            status = span.isError ? Status(code: 2, message: span.result) : Status(code: 0)
        }
    }

    struct Scope: Encodable {
        let name = "chunkd"
        let version: String
    }

    struct ScopeSpans: Encodable {
        let scope: Scope
        let spans: [Span]
    }

    struct Resource: Encodable { let attributes: [Attribute] }

    struct ResourceSpans: Encodable {
        let resource: Resource
        let scopeSpans: [ScopeSpans]
    }

    let resourceSpans: [ResourceSpans]

    init(_ reply: SpansReply) {
        let resource = Resource(attributes: [
            Attribute("service.name", .text("chunkd")), Attribute("service.instance.id", .text(reply.node)),
            Attribute("service.version", .text(reply.version)),
        ])
        let spans = reply.traces.flatMap { trace in trace.spans.map { Span($0, of: trace.traceId) } }
        resourceSpans = [
            ResourceSpans(
                resource: resource, scopeSpans: [ScopeSpans(scope: Scope(version: reply.version), spans: spans)])
        ]
    }
}
