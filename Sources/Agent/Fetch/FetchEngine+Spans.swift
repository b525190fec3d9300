import Catalogue
import ChunkModel
import ChunkResolution
import OCISpec
import Telemetry

/// Spans of what is done for chunks that somebody waits for: docs/formats/spans.md.
extension FetchEngine {
    /// A reader waits for a chunk or, within a trace of its own, another node.
    func follow(_ key: ChunkKey, within asker: TraceContext? = nil) {
        let entry = book[key.blob]
        let subject = Span.Subject(
            blob: entry.key.blob, manifest: entry.description?.manifest,
            repository: entry.description?.reference.name ?? "", chunk: key.chunk)
        spans.begin(key, subject, within: asker, now: SpanRecorder.now)
    }

    /// Another node waits for a chunk that is on its way already.
    func follow(_ blob: BlobKey, _ chunk: Int, within asker: TraceContext) {
        guard let id = book.existing(blob), scheduler.isPending(ChunkKey(id, chunk)) else { return }
        follow(ChunkKey(id, chunk), within: asker)
    }

    /// A source as people are told of it.
    func name(of source: FetchSource, _ blob: BlobID) -> String {
        switch source {
        case .local: "disk"
        case .peer(let name, _): "peer/\(name)"
        case .registry: "registry/\(book[blob].description?.reference.registry ?? "unknown")"
        }
    }

    /// chunkgate's verdict on bytes, before the scheduler hears of it.
    func noteFillSpan(
        _ key: ChunkKey, _ status: GateProtocol.FillStatus, from given: (source: FetchSource?, arrived: Duration)?
    ) {
        guard spans.isFollowed(key) else { return }
        let layout = book[key.blob].description?.layout
        let bytes = layout.map { $0.index.count > key.chunk ? $0.index[key.chunk].size : 0 } ?? 0
        let result =
            switch status {
            case .resident: "resident"
            case .mismatch: "mismatch"
            case .writeFailed: "write_failed"
            case .unknown: "unknown"
            }
        spans.filled(
            key, result: result, isResident: status == .resident,
            source: given?.source.map { name(of: $0, key.blob) } ?? (given == nil ? "disk" : nil), bytes: UInt64(bytes),
            arrived: given?.arrived, now: SpanRecorder.now)
    }

    func record(_ ended: [SpanTracker.Ended]) {
        guard !ended.isEmpty else { return }
        parts.metrics.spansDropped.increment(by: parts.spans.add(ended))
    }
}
