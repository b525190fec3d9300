import ChunkModel
import ControlAPI
import OCISpec
import RegistryClient

/// `chunkctl trace record -o json`.
struct TraceRecordOutput: Encodable {
    var reference: String
    var manifestDigest: Digest
    var file: String
    var chunks: UInt64
    var bytes: UInt64
    var imageChunks: UInt64
    var residentBefore: UInt64
    var isFull: Bool
    var seconds: Double
    /// Missing without COMMAND, and when it did not end by itself.
    var commandStatus: Int32?

    init(_ reply: TraceReply, file: String, commandStatus: Int32?) {
        reference = reply.reference
        manifestDigest = reply.manifestDigest
        self.file = file
        chunks = reply.chunks
        bytes = reply.bytes
        imageChunks = reply.imageChunks
        residentBefore = reply.residentBefore
        isFull = reply.isFull
        seconds = reply.seconds
        self.commandStatus = commandStatus
    }
}

/// `chunkctl trace attach -o json`.
struct TraceAttachOutput: Encodable {
    var reference: String
    var manifestDigest: Digest
    var artifactDigest: Digest
    /// `registry`, or `tag` when the registry keeps no list of referrers.
    var listedBy: String
    var tag: String?
    /// Traces that are listed no more.
    var replaced: Int
}

/// `chunkctl trace show -o json`.
struct TraceShowOutput: Encodable {
    struct Blob: Encodable {
        var digest: Digest
        var chunks: Int
    }

    struct Run: Encodable {
        /// Number of the blob in `blobs`, from 0.
        var blob: Int
        var firstChunk: Int
        var chunks: Int
    }

    var manifestDigest: Digest
    /// Missing for a file.
    var artifactDigest: Digest?
    var created: String?
    var chunks: Int
    var bytes: UInt64
    var imageChunks: Int
    var blobs: [Blob]
    /// In order of first access.
    var runs: [Run]

    init(_ trace: AccessTrace, _ artifact: Descriptor?) {
        manifestDigest = trace.image
        artifactDigest = artifact?.digest
        created = artifact?.annotations[RegistryClient.createdAnnotation]
        chunks = trace.chunkCount
        bytes = trace.bytes
        imageChunks = trace.imageChunkCount
        blobs = trace.blobs.map { Blob(digest: $0.digest, chunks: $0.chunks) }
        runs = trace.runs.map { Run(blob: $0.blob, firstChunk: $0.chunks.lowerBound, chunks: $0.chunks.count) }
    }
}

/// `chunkctl trace` for people.
enum TraceText {
    /// Runs that are listed; all are in the JSON.
    static let maxRuns = 20

    static func recorded(_ output: TraceRecordOutput) -> String {
        var lines = [
            "\(output.file): \(share(output.chunks, of: output.imageChunks)), \(Table.bytes(output.bytes)), "
                + "recorded in \(Table.seconds(output.seconds))"
        ]
        if output.residentBefore > 0 {
            lines.append(
                "\(output.residentBefore) chunks were here before: those of them that had been read are not in it")
        }
        if output.isFull { lines.append("more was read than a trace may hold: this is its beginning") }
        return lines.joined(separator: "\n")
    }

    static func attached(_ output: TraceAttachOutput, _ trace: AccessTrace) -> String {
        "attached \(share(UInt64(trace.chunkCount), of: UInt64(trace.imageChunkCount))) to \(output.reference)"
            + (output.tag.map { ", listed under the tag \($0)" } ?? "")
            + (output.replaced > 0 ? ", in place of \(output.replaced) before" : "")
    }

    static func text(_ output: TraceShowOutput) -> String {
        var pairs = [
            ("image", output.manifestDigest.description),
            ("chunks", share(UInt64(output.chunks), of: UInt64(output.imageChunks))),
            ("bytes", Table.bytes(output.bytes)), ("runs", "\(output.runs.count)"),
        ]
        if let digest = output.artifactDigest { pairs.append(("artifact", digest.description)) }
        if let created = output.created { pairs.append(("attached", Table.plain(String(created.prefix(40))))) }
        let rows = output.runs.prefix(maxRuns).enumerated().map { number, run in
            ["\(number + 1)", output.blobs[run.blob].digest.short, "\(run.firstChunk)", "\(run.chunks)"]
        }
        var parts = [
            Table.pairs(pairs),
            Table.render(header: ["RUN", "BLOB", "FIRST CHUNK", "CHUNKS"], rows: rows, right: [0, 2, 3]),
        ]
        let more = output.runs.count - maxRuns
        if more > 0 { parts[1] += "\n… and \(more) more: -o json lists all" }
        return parts.joined(separator: "\n\n")
    }

    private static func share(_ chunks: UInt64, of all: UInt64) -> String {
        "\(chunks) of \(all) chunks (\(Table.percent(chunks, of: all)))"
    }
}
