internal import ChunkModel

/// Notes the order in which chunks of some blobs are first accessed.
///
/// A value without clock or I/O; one user at a time. Of a chunk that is accessed again nothing is noted.
package struct AccessRecorder: Sendable {
    /// Consecutive chunks of one blob.
    package struct Run: Equatable, Sendable {
        package let blob: BlobID
        package fileprivate(set) var chunks: Range<Int>
    }

    private let maxRuns: Int
    /// Bit n%8 of byte n/8: chunk n was accessed. Grows with the highest chunk seen: at most 128 KiB a blob.
    private var seen: [BlobID: [UInt8]]
    package private(set) var runs: [Run] = []
    /// Chunks in `runs`.
    package private(set) var count = 0
    /// Accesses that found no room any more: what is noted is a beginning.
    package private(set) var isFull = false

    /// `maxRuns` bounds what is kept.
    package init(blobs: [BlobID], maxRuns: Int) {
        self.maxRuns = maxRuns
        seen = Dictionary(blobs.map { ($0, []) }, uniquingKeysWith: { first, _ in first })
    }

    /// Whether accesses of this blob are noted.
    package func covers(_ blob: BlobID) -> Bool { seen[blob] != nil }

    /// A chunk is accessed.
    package mutating func access(_ key: ChunkKey) {
        guard let bits = seen[key.blob]?.count, !isFull, (0..<Limits.maxChunksPerBlob).contains(key.chunk) else {
            return
        }
        let (byte, bit) = (key.chunk >> 3, UInt8(1) << UInt8(key.chunk & 7))
        if byte >= bits {
            seen[key.blob]?.append(contentsOf: [UInt8](repeating: 0, count: byte + 1 - bits))
        } else if let known = seen[key.blob]?[byte], known & bit != 0 {
            return
        }
        if let last = runs.indices.last, runs[last].blob == key.blob, runs[last].chunks.upperBound == key.chunk {
            runs[last].chunks = runs[last].chunks.lowerBound..<key.chunk + 1
        } else if runs.count < maxRuns {
            runs.append(Run(blob: key.blob, chunks: key.chunk..<key.chunk + 1))
        } else {
            isFull = true
            return
        }
        seen[key.blob]?[byte] |= bit
        count += 1
    }
}
