import ChunkModel
import ChunkResolution
import ControlAPI
import Glibc

/// What was done for chunks that somebody waited for.
extension AgentService {
    package func spans(_ request: SpansRequest) async throws -> SpansReply {
        let traces = spans.traces(request.trace, slowest: request.slowest)
        let offset = SpanRecorder.unixOffset()
        var left = SpansReply.maxSpans
        // The newest, or the slowest, are what is asked for.
        let ordered = request.slowest == nil ? traces.reversed() : traces
        var out: [TraceRecord] = []
        for trace in ordered {
            guard trace.spans.count <= left else { break }
            left -= trace.spans.count
            out.append(
                TraceRecord(
                    traceId: trace.id, spans: trace.spans.map { Self.record($0, offset) },
                    dropped: UInt64(trace.dropped)))
        }
        return SpansReply(
            node: nodeName, version: chunkdVersion, traces: request.slowest == nil ? out.reversed() : out,
            isCut: out.count < traces.count)
    }

    /// The name of this node in the cluster; without one the host's.
    private var nodeName: String {
        if let cluster { return cluster.own.text }
        var name = utsname()
        guard uname(&name) == 0 else { return "unknown" }
        return withUnsafeBytes(of: &name.nodename) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    static func record(_ span: Span, _ offset: Int64) -> SpanRecord {
        var attributes: [String: SpanValue] = [:]
        func set(_ name: String, _ text: String?) { if let text, !text.isEmpty { attributes[name] = .text(text) } }
        func set(_ subject: Span.Subject) {
            attributes["chunkd.chunk"] = .number(Int64(subject.chunk))
            set("chunkd.blob", subject.blob?.description)
            set("chunkd.image.manifest", subject.manifest?.description)
            set("chunkd.image.repository", subject.repository)
        }
        var carrier: TraceContext?
        let name: SpanRecord.Name
        switch span.step {
        case .miss(let subject, let source), .relay(let subject, let source):
            if case .miss = span.step { name = .miss } else { name = .relay }
            set(subject)
            set("chunkd.rank", name == .miss ? "demand" : "relayed")
            set("chunkd.source", source)
        case .ask(let asking):
            name = .ask
            set("chunkd.source", asking.source)
            attributes["chunkd.chunks"] = .number(Int64(asking.chunks))
            if asking.isHedge { attributes["chunkd.hedge"] = .flag(true) }
            if asking.isJoined { attributes["chunkd.joined"] = .flag(true) }
            carrier = asking.carrier
        case .fill: name = .fill
        case .serve(let subject, let peer, let rank, let count):
            name = .serve
            set(subject)
            set("chunkd.peer", peer.text)
            set("chunkd.rank", rank)
            attributes["chunkd.chunks"] = .number(Int64(count))
        }
        if span.bytes > 0 { attributes["chunkd.bytes"] = .number(Int64(clamping: span.bytes)) }
        return SpanRecord(
            spanId: span.id, parentSpanId: span.parent, name: name,
            startUnixNanoseconds: offset &+ span.begin.wholeNanoseconds,
            endUnixNanoseconds: offset &+ span.end.wholeNanoseconds, isError: span.isError, result: span.result,
            carrier: carrier, attributes: attributes)
    }
}
