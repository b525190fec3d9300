import ChunkModel

/// The chunks of an image in the order a workload first read them: docs/formats/trace.md.
///
/// A decoded trace always holds: one to `maxRuns` runs, each within its blob, and no chunk twice. Whether it is of a
/// given image is what `check` says. Value type, safe on any thread.
package struct AccessTrace: Hashable, Sendable {
    /// Media type of the document, and artifact type of the manifest that attaches it to an image.
    package static let mediaType = "application/vnd.chunkd.trace.v1"

    /// Lines of chunks in one trace.
    package static let maxRuns = 65_536
    /// Bytes of a document: 65,536 runs × at most 19 bytes, 64 blobs × at most 111, and the rest of the head, rounded up.
    package static let maxBytes = 2 << 20
    /// Raw bytes of all chunks of the largest image.
    package static let maxChunkBytes = UInt64(Limits.maxBlobsPerImage) * ChunkdImage.maxRawSize

    /// One blob of the image, in the manifest's order.
    package struct Blob: Hashable, Sendable {
        package let digest: Digest
        /// Chunks in its chunk index.
        package let chunks: Int

        package init(digest: Digest, chunks: Int) {
            self.digest = digest
            self.chunks = chunks
        }
    }

    /// Consecutive chunks of one blob that were first read in this order.
    package struct Run: Hashable, Sendable {
        /// Number of the blob, from 0.
        package let blob: Int
        package let chunks: Range<Int>

        package init(blob: Int, chunks: Range<Int>) {
            self.blob = blob
            self.chunks = chunks
        }
    }

    /// The manifest digest of the image it was recorded on.
    package let image: Digest
    package let blobs: [Blob]
    package let runs: [Run]
    /// Raw bytes of the chunks, as the recorder counted them: for people only.
    package let bytes: UInt64

    /// Chunks in it.
    package var chunkCount: Int { runs.reduce(0) { $0 + $1.chunks.count } }
    /// Chunks of the image.
    package var imageChunkCount: Int { blobs.reduce(0) { $0 + $1.chunks } }

    /// Checks and keeps the parts of a trace; `invalidDocument` or `limitExceeded` says what is wrong.
    package init(image: Digest, blobs: [Blob], runs: [Run], bytes: UInt64) throws(OCISpecError) {
        guard blobs.count <= Limits.maxBlobsPerImage else {
            throw OCISpecError(.limitExceeded, "trace names \(blobs.count) blobs, limit \(Limits.maxBlobsPerImage)")
        }
        guard blobs.allSatisfy({ (0...Limits.maxChunksPerBlob).contains($0.chunks) }) else {
            throw OCISpecError(.limitExceeded, "a blob of the trace has over \(Limits.maxChunksPerBlob) chunks")
        }
        guard !runs.isEmpty else { throw OCISpecError(.invalidDocument, "trace names no chunk") }
        guard bytes <= Self.maxChunkBytes else {
            throw OCISpecError(.limitExceeded, "trace says its chunks have \(bytes) bytes, limit \(Self.maxChunkBytes)")
        }
        guard runs.count <= Self.maxRuns else {
            throw OCISpecError(.limitExceeded, "trace has \(runs.count) runs, limit \(Self.maxRuns)")
        }
        for run in runs {
            guard blobs.indices.contains(run.blob), !run.chunks.isEmpty, run.chunks.lowerBound >= 0,
                run.chunks.upperBound <= blobs[run.blob].chunks
            else {
                throw OCISpecError(.invalidDocument, "trace: chunks \(run.chunks) of blob \(run.blob) do not exist")
            }
        }
        // What was read first is read first once; and it bounds what a reader of a trace walks through.
        let sorted = runs.sorted { ($0.blob, $0.chunks.lowerBound) < ($1.blob, $1.chunks.lowerBound) }
        for (run, next) in zip(sorted, sorted.dropFirst())
        where run.blob == next.blob && run.chunks.upperBound > next.chunks.lowerBound {
            throw OCISpecError(
                .invalidDocument, "trace: chunk \(next.chunks.lowerBound) of blob \(run.blob) occurs twice")
        }
        self.image = image
        self.blobs = blobs
        self.runs = runs
        self.bytes = bytes
    }

    /// Whether this is a trace of the image with this manifest digest and these blobs; `invalidDocument` says how it is
    /// not.
    package func check(image: Digest, blobs: [Blob]) throws(OCISpecError) {
        guard self.image == image else {
            throw OCISpecError(.invalidDocument, "trace is of image \(self.image), expected \(image)")
        }
        guard self.blobs.count == blobs.count else {
            throw OCISpecError(.invalidDocument, "trace names \(self.blobs.count) blobs, the image has \(blobs.count)")
        }
        for (number, (found, expected)) in zip(self.blobs, blobs).enumerated() where found != expected {
            throw OCISpecError(
                .invalidDocument,
                "trace: blob \(number) is \(found.digest) of \(found.chunks) chunks, "
                    + "expected \(expected.digest) of \(expected.chunks)")
        }
    }
}

extension ChunkdImage {
    /// The blobs as a trace of this image names them; `invalidDocument` when no chunk index has the size that one is said
    /// to have.
    package func traceBlobs() throws(OCISpecError) -> [AccessTrace.Blob] {
        var out: [AccessTrace.Blob] = []
        for blob in blobs {
            guard let count = ChunkIndex.count(inFileOf: blob.index.size) else {
                throw OCISpecError(
                    .invalidDocument,
                    "chunk index of blob \(blob.descriptor.digest) has \(blob.index.size) bytes, which none has")
            }
            out.append(AccessTrace.Blob(digest: blob.descriptor.digest, chunks: count))
        }
        return out
    }
}

// MARK: - The document

extension AccessTrace {
    /// Version that is written.
    private static let magic = "chunkd-trace"
    private static let version = "1.0"

    /// The document.
    package func encoded() -> [UInt8] {
        var text = "\(Self.magic) \(Self.version)\nimage \(image)\n"
        for blob in blobs { text += "blob \(blob.digest) \(blob.chunks)\n" }
        text += "bytes \(bytes)\nruns \(runs.count)\n"
        for run in runs {
            text += "\(run.blob) \(run.chunks.lowerBound)" + (run.chunks.count == 1 ? "\n" : " \(run.chunks.count)\n")
        }
        return Array(text.utf8)
    }

    /// Reads a document; `invalidDocument` or `limitExceeded` says what is wrong, and in which line. Never traps,
    /// whatever the bytes.
    package init(decoding document: [UInt8]) throws(OCISpecError) {
        guard document.count <= Self.maxBytes else {
            throw OCISpecError(.limitExceeded, "trace has \(document.count) bytes, limit \(Self.maxBytes)")
        }
        guard document.last == UInt8(ascii: "\n") else { throw Self.invalid(nil, "does not end with a line feed") }
        var reader = TraceReader()
        var number = 0
        for line in document.dropLast().split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            guard try reader.take(line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)) else {
                throw Self.invalid(
                    number, "not understood: \(OCISpecError.quote(String(decoding: line, as: UTF8.self)))")
            }
        }
        guard let image = reader.image else { throw Self.invalid(nil, "names no image") }
        guard let count = reader.runCount, reader.runs.count == count else {
            throw Self.invalid(
                nil,
                "has \(reader.runs.count) runs, expected \(reader.runCount.map(String.init) ?? "a line that counts them")"
            )
        }
        try self.init(image: image, blobs: reader.blobs, runs: reader.runs, bytes: reader.bytes ?? 0)
    }

    fileprivate static func invalid(_ line: Int?, _ what: String) -> OCISpecError {
        OCISpecError(.invalidDocument, "trace" + (line.map { ", line \($0)" } ?? "") + ": \(what)")
    }

    /// A document's lines, one after the other.
    private struct TraceReader {
        var image: Digest?
        var blobs: [Blob] = []
        var bytes: UInt64?
        /// Set by the line before the first run: nothing but runs follows.
        var runCount: Int?
        var runs: [Run] = []
        /// Written by a newer minor version: words and lines it added are skipped.
        private var isNewer: Bool?

        /// False when the line is not understood. A newer major version is an error of its own.
        mutating func take(_ words: [ArraySlice<UInt8>]) throws(OCISpecError) -> Bool {
            guard let isNewer else { return try takeFirst(words) }
            if let runCount {
                guard runs.count < runCount, let run = run(words, isNewer) else { return false }
                runs.append(run)
                return true
            }
            func hasWords(_ count: Int) -> Bool { words.count == count || isNewer && words.count > count }
            switch words.first.map({ String(decoding: $0, as: UTF8.self) }) {
            case "image" where hasWords(2) && image == nil:
                image = Digest(String(decoding: words[1], as: UTF8.self))
                return image != nil
            case "blob" where hasWords(3) && blobs.count < Limits.maxBlobsPerImage:
                guard let digest = Digest(String(decoding: words[1], as: UTF8.self)), let chunks = decimal(words[2]),
                    chunks <= Limits.maxChunksPerBlob
                else { return false }
                blobs.append(Blob(digest: digest, chunks: chunks))
                return true
            case "bytes" where hasWords(2) && bytes == nil:
                bytes = decimal(words[1]).map(UInt64.init)
                return bytes != nil
            case "runs" where hasWords(2):
                runCount = decimal(words[1])
                return runCount.map { (1...AccessTrace.maxRuns).contains($0) } ?? false
            case "image", "blob", "bytes", "runs", nil: return false
            default: return isNewer
            }
        }

        private mutating func takeFirst(_ words: [ArraySlice<UInt8>]) throws(OCISpecError) -> Bool {
            guard words.count == 2, words[0].elementsEqual(AccessTrace.magic.utf8) else { return false }
            let parts = words[1].split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
            guard parts.count == 2, let major = decimal(parts[0]), let minor = decimal(parts[1]) else { return false }
            guard major == 1 else {
                throw OCISpecError(
                    .invalidDocument,
                    "trace has version \(major).\(minor), expected 1: it was recorded by another chunkd; record it anew"
                )
            }
            isNewer = minor > 0
            return true
        }

        private func run(_ words: [ArraySlice<UInt8>], _ isNewer: Bool) -> Run? {
            guard words.count == 2 || words.count == 3 || isNewer && words.count > 3, let blob = decimal(words[0]),
                let first = decimal(words[1]), let count = words.count > 2 ? decimal(words[2]) : 1,
                count > 0, first <= Limits.maxChunksPerBlob, count <= Limits.maxChunksPerBlob
            else { return nil }
            return Run(blob: blob, chunks: first..<first + count)
        }

        /// Strictly decimal: digits only, no leading zero, at most 18 of them.
        private func decimal(_ word: ArraySlice<UInt8>) -> Int? {
            guard (1...18).contains(word.count), word.allSatisfy({ (48...57).contains($0) }),
                word.count == 1 || word.first != 48
            else { return nil }
            return word.reduce(0) { $0 * 10 + Int($1 - 48) }
        }
    }
}
