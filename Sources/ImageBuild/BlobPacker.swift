internal import ChunkModel
import Glibc
internal import Integrity
internal import LinuxSystem
internal import Zstandard

/// A blob that has been cut, hashed and, if asked for, compressed.
struct PackedBlob: Sendable {
    let rawDigest: Digest
    let index: ChunkIndex
    let storedPath: String
    let storedDigest: Digest
    let storedSize: UInt64
    /// Of the seek table at the end of a compressed blob.
    let seekTableDigest: Digest?

    /// Chunks that are not equal to an earlier one.
    var distinctChunks: Int { Set((0..<index.count).map { index[$0].digest }).count }
}

/// Cuts a raw blob into chunks, hashes each, and writes the stored blob. Blocks: only from `onThread`.
///
/// Chunks are hashed and compressed by several threads and written in order by the caller's, at most
/// `window` × workers chunks ahead: 4 × 2 × (1 MiB raw + 1 MiB stored) = 16 MiB with the defaults.
struct BlobPacker {
    /// Finished chunks that a worker may be ahead of the writer.
    static let window = 4

    let options: BuildOptions
    let cancellation: Cancellation
    let progress: @Sendable (BuildProgress) -> Void

    /// Packs the blob at `path`; `directory` takes the stored blob when it is another file. Chunks end at `edges`,
    /// whatever their content.
    func pack(_ path: String, size: UInt64, edges: [UInt64], in directory: BuildDirectory) throws -> PackedBlob {
        let blob = try File(path: path, flags: O_RDONLY)
        let (ends, rawDigest) = try cut(blob, size, edges)
        let output: File?
        let storedPath: String
        switch options.format {
        case .raw: (output, storedPath) = (nil, path)
        case .zstd:
            storedPath = directory.appending("blob.zst")
            output = try File(path: storedPath, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        }
        let result = try process(blob, ends, to: output)
        let index: ChunkIndex
        do throws(ChunkIndex.Invalid) {
            index = try ChunkIndex(chunks: zip(ends, result.digests).map { (end: $0, digest: $1) })
        } catch { throw ImageBuildError(.limitExceeded, "the blob's chunks", cause: error) }
        return PackedBlob(
            rawDigest: rawDigest, index: index, storedPath: storedPath,
            storedDigest: result.stored?.digest ?? rawDigest, storedSize: result.stored?.size ?? size,
            seekTableDigest: result.stored?.seekTable)
    }

    // MARK: cutting

    /// The chunks' ends, and the digest of the whole.
    private func cut(_ blob: File, _ size: UInt64, _ edges: [UInt64]) throws -> (ends: [UInt64], digest: Digest) {
        var chunker = ContentChunker(options.chunking, edges: edges)
        var hasher = SHA256()
        var ends: [UInt64] = []
        try FileTransfer.each(blob, cancellation) { piece in
            hasher.update(piece)
            chunker.feed(piece) { ends.append($0) }
            progress(BuildProgress(.cut, chunker.offset, of: size))
        }
        if let last = chunker.finish() { ends.append(last) }
        guard ends.last == size else {
            throw ImageBuildError(
                .inputOutput, "the blob changed while it was read: \(size) bytes, then \(chunker.offset)")
        }
        guard ends.count <= Limits.maxChunksPerBlob else {
            throw ImageBuildError(
                .limitExceeded, "\(ends.count) chunks, limit \(Limits.maxChunksPerBlob); choose larger chunks")
        }
        return (ends, hasher.finalize())
    }

    // MARK: hashing and compressing

    /// One chunk, done.
    private struct Finished: Sendable {
        let digest: Digest
        /// The zstd frame; empty for a raw blob.
        let frame: [UInt8]
    }

    /// What the workers and the writer share.
    private struct Shared {
        /// The next chunk that nobody has taken.
        var next = 0
        /// Chunks written.
        var written = 0
        var finished: [Int: Finished] = [:]
        var failure: ImageBuildError?
    }

    private struct Result {
        var digests: [Digest] = []
        var stored: (digest: Digest, size: UInt64, seekTable: Digest)?
    }

    private func process(_ blob: File, _ ends: [UInt64], to output: File?) throws -> Result {
        let shared = Monitor(Shared())
        let workers = max(1, min(options.workers, 64))
        let ahead = workers * Self.window
        var threads: [Thread] = []
        defer {
            // Whatever happened, nobody may use the blob after this function.
            shared.update { $0.next = ends.count }
            for thread in threads { thread.join() }
        }
        for number in 0..<workers {
            let format = options.format
            threads.append(
                try Thread.start("build-pack-\(number)", stackSize: 1 << 20) {
                    Self.work(shared, blob, ends, format, ahead)
                })
        }
        return try write(shared, ends, output)
    }

    /// A worker: takes chunks until there are none left.
    private static func work(
        _ shared: Monitor<Shared>, _ blob: File, _ ends: [UInt64], _ format: BuildOptions.BlobFormat, _ ahead: Int
    ) {
        do {
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Limits.maxChunkSize, alignment: 4096)
            defer { buffer.deallocate() }
            let level: Int? = if case .zstd(let level) = format { level } else { nil }
            let compressor = try FrameCompressor(level: level ?? FrameCompressor.defaultLevel)
            while let number = take(shared, ends.count, ahead) {
                let start = number == 0 ? 0 : ends[number - 1]
                let chunk = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(ends[number] - start)])
                guard try blob.readAll(into: chunk, at: start) == chunk.count else {
                    throw ImageBuildError(.inputOutput, "the blob became shorter while it was read")
                }
                let raw = UnsafeRawBufferPointer(chunk)
                let digest = SHA256.hash(raw)
                let frame = level == nil ? [] : try compressor.compress(raw)
                shared.update { $0.finished[number] = Finished(digest: digest, frame: frame) }
            }
        } catch {
            let failure = asImageBuildError(error)
            shared.update { $0.failure = $0.failure ?? failure }
        }
    }

    /// The next chunk, when it is not too far ahead of the writer; nil when there is none or another thread failed.
    private static func take(_ shared: Monitor<Shared>, _ count: Int, _ ahead: Int) -> Int? {
        let number: Int?? = shared.wait { state -> Int?? in
            if state.failure != nil || state.next >= count { return .some(nil) }
            guard state.next < state.written + ahead else { return nil }
            state.next += 1
            return .some(state.next - 1)
        }
        return number ?? nil
    }

    /// Takes chunks in order, and writes their frames and the seek table.
    private func write(_ shared: Monitor<Shared>, _ ends: [UInt64], _ output: File?) throws -> Result {
        var result = Result()
        var hasher = SHA256()
        var frames: [SeekTable.Frame] = []
        var offset: UInt64 = 0
        func append(_ bytes: [UInt8], _ file: File) throws {
            try bytes.withUnsafeBytes { raw in
                hasher.update(raw)
                try file.writeAll(raw, at: offset)
            }
            offset += UInt64(bytes.count)
        }
        for number in ends.indices {
            try cancellation.check()
            // A `Swift.Result` would do, but the failure is what all threads share.
            guard
                let finished = shared.wait({ state -> Finished?? in
                    if state.failure != nil { return .some(nil) }
                    guard let chunk = state.finished.removeValue(forKey: number) else { return nil }
                    return .some(chunk)
                }) ?? nil
            else { throw shared.withLock { $0.failure } ?? ImageBuildError(.inputOutput, "packing failed") }
            result.digests.append(finished.digest)
            if let output {
                let rawSize = UInt32(ends[number] - (number == 0 ? 0 : ends[number - 1]))
                frames.append(SeekTable.Frame(storedSize: UInt32(finished.frame.count), rawSize: rawSize))
                try append(finished.frame, output)
            }
            shared.update { $0.written = number + 1 }
            progress(BuildProgress(.pack, ends[number], of: ends.last ?? 0))
        }
        guard let output else { return result }
        let table = try SeekTable(frames: frames).encoded()
        try append(table, output)
        result.stored = (hasher.finalize(), offset, SHA256.hash(table))
        return result
    }
}
