import ArgumentParser
import ChunkModel
import ControlAPI
import Glibc
import LinuxSystem

struct SpansCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "spans",
        abstract: "Show what was done for the last misses, step by step and across nodes.",
        discussion: """
            EXAMPLES:
              chunkctl spans
              chunkctl spans --slowest 5
              chunkctl spans --trace 4bf92f3577b34da6a3ce929d0e0e4736
              chunkctl spans -o otlp --file $(hostname).json
              jq -s '{resourceSpans: map(.resourceSpans[])}' *.json >all.json

            A trace is one miss. A node that asks a peer hands the trace on, so the same --trace on that peer shows what it did. chunkd
            keeps the last 512, slow and failed ones in preference; the table shows 20. -o otlp is OTLP/JSON: the body of a
            collector's POST /v1/traces. AFTER is counted from the trace's first span on this node.
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable { case table, json, otlp }

    @Option(help: ArgumentHelp("Only this trace.", valueName: "id"))
    var trace: TraceID?

    @Option(help: ArgumentHelp("Only so many, those that took longest.", valueName: "n"))
    var slowest: Int?

    @Option(name: [.customShort("o"), .long], help: "How the result is printed: table, json or otlp.")
    var output = Format.table

    @Option(help: ArgumentHelp("Write to this new file instead.", valueName: "path"), completion: .file())
    var file: String?

    @OptionGroup var connection: ConnectionOptions

    /// Traces the table shows when it is not said how many.
    private static let shown = 20

    func validate() throws {
        if let slowest, slowest < 1 { throw ValidationError("--slowest: expected 1 or more, found \(slowest)") }
        if trace != nil, slowest != nil { throw ValidationError("--trace is one trace: leave out --slowest") }
    }

    func run() async throws {
        let reply = try await connection.client().spans(SpansRequest(trace: trace, slowest: slowest))
        if let trace, reply.traces.isEmpty {
            throw ToolError(
                "notFound", "\(reply.node) keeps no trace \(trace)",
                hint: "it may have been driven out, or belong to other nodes: chunkctl spans shows those that are kept")
        }
        let text =
            switch output {
            case .json: String(decoding: try ControlJSON.encode(reply, pretty: true), as: UTF8.self)
            case .otlp: String(decoding: try ControlJSON.encode(OTLPDocument(reply), pretty: true), as: UTF8.self)
            case .table: SpansText.text(reply, newest: slowest == nil && trace == nil ? Self.shown : nil)
            }
        guard let file else { return Console.write(text) }
        try NewFile.write(Array((text + "\n").utf8), to: file)
    }
}

extension TraceID: ExpressibleByArgument {
    /// As `--trace` takes it.
    package init?(argument: String) { self.init(hex: argument) }
}

/// Files that chunkctl makes and does not replace.
enum NewFile {
    /// Opens a new file for its owner alone.
    static func create(_ path: String) throws -> File {
        do throws(SystemError) {
            return try File(path: path, flags: O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        } catch {
            throw error.errno == EEXIST
                ? ToolError("conflict", "\(path) is there already", hint: "name another file, or remove it")
                : ToolError(error)
        }
    }

    static func write(_ bytes: [UInt8], to path: String) throws {
        let file = try create(path)
        try bytes.withUnsafeBytes { try file.writeAll($0, at: 0) }
    }
}

/// `chunkctl spans` for people: a tree a trace.
enum SpansText {
    static func text(_ reply: SpansReply, newest: Int? = nil) -> String {
        guard !reply.traces.isEmpty else { return "nothing was missed since chunkd started" }
        let shown = newest.map { Array(reply.traces.suffix($0)) } ?? reply.traces
        // A trace's own line is as long as it likes: it takes the place of an empty row of one table, so that all align.
        var rows: [[String]] = []
        var lines: [Int: String] = [:]
        for trace in shown {
            lines[rows.count] =
                "trace \(trace.traceId) at \(time(origin(of: trace))) on \(reply.node)"
                + (trace.dropped > 0 ? ", \(trace.dropped) spans not kept" : "")
            rows.append([])
            rows += tree(trace) + [[]]
        }
        rows.removeLast()
        let table = Table.render(header: ["SPAN", "AFTER", "TOOK", "RESULT", "WHAT"], rows: rows, right: [1, 2])
        let text = table.split(separator: "\n", omittingEmptySubsequences: false).enumerated().map { number, line in
            lines[number - 1].map(Table.plain) ?? String(line)
        }.joined(separator: "\n")
        let more = reply.traces.count - shown.count
        return more > 0 ? text + "\n\n\(more) more: --slowest, --trace, or -o json for all" : text
    }

    private static func origin(of trace: TraceRecord) -> Int64 { trace.spans.map(\.start).min() ?? 0 }

    /// A trace's spans, each below the one it belongs to, in the order in which they began.
    private static func tree(_ trace: TraceRecord) -> [[String]] {
        let spans = trace.spans.sorted { ($0.start, $0.end) < ($1.start, $1.end) }
        let origin = origin(of: trace)
        let known = Set(spans.map(\.spanId))
        var rows: [[String]] = []
        func add(_ span: SpanRecord, _ depth: Int) {
            let indent = String(repeating: "  ", count: depth)
            rows.append([
                indent + title(span), duration(span.start - origin), duration(span.end - span.start),
                (span.isError ? "! " : "") + span.result, what(span),
            ])
            // Ids come from other processes: a span that is its own ancestor must not end the stack.
            guard depth < 16 else { return }
            for child in spans where child.parentSpanId == span.spanId && child.spanId != span.spanId {
                add(child, depth + 1)
            }
        }
        for span in spans where span.parentSpanId.map({ !known.contains($0) }) ?? true { add(span, 1) }
        return rows
    }

    private static func title(_ span: SpanRecord) -> String {
        switch span.name {
        case .ask: "ask " + (span.attributes["chunkd.source"]?.description ?? "?")
        case .serve: "serve " + (span.attributes["chunkd.peer"]?.description ?? "?")
        case .miss, .relay, .fill, .other: span.name.rawValue
        }
    }

    private static func what(_ span: SpanRecord) -> String {
        var parts: [String] = []
        func text(_ name: String) -> String? { span.attributes["chunkd." + name]?.description }
        if let chunk = text("chunk") {
            let blob = text("blob").flatMap { Digest($0) }.map { " of \($0.short)" } ?? ""
            parts.append("chunk \(chunk)\(blob)")
        }
        if let repository = text("image.repository") { parts.append(repository) }
        if span.name == .serve || span.name == .relay, let rank = text("rank") { parts.append(rank) }
        if span.name == .miss || span.name == .relay, let source = text("source") { parts.append("from \(source)") }
        if case .number(let bytes) = span.attributes["chunkd.bytes"] {
            parts.append(Table.bytes(UInt64(clamping: bytes)))
        }
        if case .number(let chunks) = span.attributes["chunkd.chunks"], chunks > 1 { parts.append("\(chunks) chunks") }
        if text("hedge") != nil { parts.append("hedge") }
        if text("joined") != nil { parts.append("joined") }
        if let carrier = span.carrier { parts.append("in trace \(carrier.traceId)") }
        return parts.joined(separator: ", ")
    }

    private static func duration(_ nanoseconds: Int64) -> String {
        let text = Table.seconds(Double(abs(nanoseconds)) * 1e-9)
        return nanoseconds < 0 ? "-" + text : text
    }

    private static func time(_ nanoseconds: Int64) -> String {
        let milliseconds = nanoseconds / 1_000_000 % 1000
        let fraction = String("\(1000 + max(0, milliseconds))".dropFirst())
        return UTCTime.text(unixSeconds: Double(nanoseconds / 1_000_000_000), fraction: "." + fraction)
    }
}
