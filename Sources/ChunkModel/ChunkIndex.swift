/// The chunks of one blob, in order: casync's blob index (`.caibx`) with SHA-256 chunk ids.
///
/// Format: casync `caformat.h`; docs/formats/image.md. A decoded index always holds: at least one chunk unless
/// the blob is empty, ends strictly ascending, every chunk at most `Limits.maxChunkSize`, every end but the last
/// on a 4 KiB boundary.
package struct ChunkIndex: Equatable, Sendable {
    /// One chunk: where it lies in the raw blob and what its bytes must hash to.
    package struct Entry: Equatable, Sendable {
        /// Byte range in the raw (uncompressed) blob.
        package let range: Range<UInt64>
        /// SHA-256 of the raw bytes.
        package let digest: Digest

        package init(range: Range<UInt64>, digest: Digest) {
            self.range = range
            self.digest = digest
        }

        /// Raw size in bytes, 1...`Limits.maxChunkSize`.
        package var size: Int { Int(range.upperBound - range.lowerBound) }
    }

    /// End offset of each chunk in the raw blob, strictly ascending.
    private let ends: [UInt64]
    private let digests: [Digest]

    /// Why bytes are not a chunk index chunkd accepts. `reason` is bounded and fit for a metric label.
    package enum Invalid: Error, Equatable, CustomStringConvertible {
        case truncated(expected: Int, found: Int)
        case badMagic
        case wrongDigestAlgorithm
        case badTail
        case tooManyChunks(Int)
        case unsorted(chunk: Int, previousEnd: UInt64, end: UInt64)
        case chunkTooLarge(chunk: Int, size: UInt64)
        case misaligned(chunk: Int, end: UInt64)

        package var description: String {
            switch self {
            case .truncated(let expected, let found):
                "chunk index truncated: expected \(expected) bytes, found \(found)"
            case .badMagic: "not a casync blob index"
            case .wrongDigestAlgorithm: "chunk index uses SHA-512/256, expected SHA-256"
            case .badTail: "chunk index table tail is wrong"
            case .tooManyChunks(let count): "chunk index has \(count) chunks, limit \(Limits.maxChunksPerBlob)"
            case .unsorted(let chunk, let previous, let end): "chunk \(chunk) ends at \(end), previous at \(previous)"
            case .chunkTooLarge(let chunk, let size): "chunk \(chunk) has \(size) bytes, limit \(Limits.maxChunkSize)"
            case .misaligned(let chunk, let end): "chunk \(chunk) ends at \(end), not on a 4096-byte boundary"
            }
        }
    }

    /// Checks and keeps chunks given as (end offset, digest) in order.
    package init(chunks: [(end: UInt64, digest: Digest)]) throws(Invalid) {
        guard chunks.count <= Limits.maxChunksPerBlob else { throw .tooManyChunks(chunks.count) }
        var previous: UInt64 = 0
        for (number, chunk) in chunks.enumerated() {
            guard chunk.end > previous else { throw .unsorted(chunk: number, previousEnd: previous, end: chunk.end) }
            guard chunk.end - previous <= Limits.maxChunkSize else {
                throw .chunkTooLarge(chunk: number, size: chunk.end - previous)
            }
            guard number == chunks.count - 1 || chunk.end % UInt64(Limits.blockSize) == 0 else {
                throw .misaligned(chunk: number, end: chunk.end)
            }
            previous = chunk.end
        }
        ends = chunks.map(\.end)
        digests = chunks.map(\.digest)
    }

    /// Number of chunks.
    package var count: Int { ends.count }
    /// Bytes of the raw blob.
    package var rawSize: UInt64 { ends.last ?? 0 }

    /// Chunk `number`; traps outside `0..<count` (a programmer error).
    package subscript(number: Int) -> Entry {
        Entry(range: (number == 0 ? 0 : ends[number - 1])..<ends[number], digest: digests[number])
    }

    /// The chunk numbers that cover a byte range; empty when the range lies past the end. O(log n).
    package func chunks(covering range: Range<UInt64>) -> Range<Int> {
        let clamped = range.clamped(to: 0..<rawSize)
        guard !clamped.isEmpty else { return 0..<0 }
        return chunk(at: clamped.lowerBound)..<chunk(at: clamped.upperBound - 1) + 1
    }

    /// The chunk that holds byte `offset`, which must be below `rawSize`.
    private func chunk(at offset: UInt64) -> Int {
        var low = 0
        var high = ends.count - 1
        while low < high {
            let middle = (low + high) / 2
            if ends[middle] > offset { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

// MARK: - caibx coding

extension ChunkIndex {
    private static let indexMagic: UInt64 = 0x9682_4D9C_7B12_9FF9
    private static let tableMagic: UInt64 = 0xE75B_9E11_2F17_417D
    private static let tailMagic: UInt64 = 0x4B4F_050E_5549_ECD1
    private static let sha512Flag: UInt64 = 0x2000_0000_0000_0000
    private static let headerSize = 48
    private static let tableHeaderSize = 16
    private static let entrySize = 40

    /// Chunks in a `.caibx` file of this many bytes; nil when no such file has that size, or only one over the limit.
    package static func count(inFileOf size: UInt64) -> Int? {
        let framing = UInt64(headerSize + tableHeaderSize + entrySize)
        guard size >= framing, (size - framing) % UInt64(entrySize) == 0 else { return nil }
        let count = (size - framing) / UInt64(entrySize)
        return count <= UInt64(Limits.maxChunksPerBlob) ? Int(count) : nil
    }

    /// Decodes a `.caibx` file. Never traps, whatever the bytes.
    package init(caibx bytes: [UInt8]) throws(Invalid) {
        var reader = ByteReader(bytes)
        let framing = Self.headerSize + Self.tableHeaderSize + Self.entrySize
        guard bytes.count >= framing else { throw .truncated(expected: framing, found: bytes.count) }
        guard reader.integer(UInt64.self) == UInt64(Self.headerSize), reader.integer(UInt64.self) == Self.indexMagic,
            let flags = reader.integer(UInt64.self)
        else { throw .badMagic }
        guard flags & Self.sha512Flag == 0 else { throw .wrongDigestAlgorithm }
        _ = reader.take(24)  // chunk size min, average, max: advisory
        guard reader.integer(UInt64.self) == .max, reader.integer(UInt64.self) == Self.tableMagic else {
            throw .badMagic
        }
        let body = bytes.count - framing
        guard body % Self.entrySize == 0 else { throw .badTail }
        let count = body / Self.entrySize
        guard count <= Limits.maxChunksPerBlob else { throw .tooManyChunks(count) }
        var chunks: [(end: UInt64, digest: Digest)] = []
        chunks.reserveCapacity(count)
        for _ in 0..<count {
            guard let end = reader.integer(UInt64.self), let digest = reader.digest() else { throw .badTail }
            chunks.append((end, digest))
        }
        let tableSize = UInt64(Self.tableHeaderSize + body + Self.entrySize)
        guard reader.integer(UInt64.self) == 0, reader.integer(UInt64.self) == 0,
            reader.integer(UInt64.self) == UInt64(Self.headerSize), reader.integer(UInt64.self) == tableSize,
            reader.integer(UInt64.self) == Self.tailMagic
        else { throw .badTail }
        try self.init(chunks: chunks)
    }

    /// Encodes as `.caibx`; `sizes` are the chunker's parameters, which casync records.
    package func caibx(sizes: (min: Int, average: Int, max: Int)) -> [UInt8] {
        var out = ByteWriter(capacity: 104 + count * Self.entrySize)
        for value in [UInt64(Self.headerSize), Self.indexMagic, 0] { out.integer(value) }
        for value in [sizes.min, sizes.average, sizes.max] { out.integer(UInt64(value)) }
        out.integer(UInt64.max)
        out.integer(Self.tableMagic)
        for number in 0..<count {
            out.integer(ends[number])
            out.digest(digests[number])
        }
        let tableSize = Self.tableHeaderSize + count * Self.entrySize + Self.entrySize
        for value in [0, 0, UInt64(Self.headerSize), UInt64(tableSize), Self.tailMagic] { out.integer(value) }
        return out.bytes
    }
}
