/// Where each chunk of a blob ends, in 4 bytes a chunk: all that the hit path needs of a `ChunkIndex`.
///
/// A gate with 100 mounted images of 1 GiB keeps 200,000 boundaries: 0.8 MB here, 8 MB as entries with digests.
/// Ends are kept in 4 KiB blocks (every end but the last lies on one), so blobs reach 16 TiB.
package struct ChunkBoundaries: Sendable {
    private let endBlocks: [UInt32]
    /// Bytes of the raw blob.
    package let rawSize: UInt64

    package init(_ index: ChunkIndex) {
        let block = UInt64(Limits.blockSize)
        endBlocks = (0..<index.count).map {
            UInt32(truncatingIfNeeded: (index[$0].range.upperBound + block - 1) / block)
        }
        rawSize = index.rawSize
    }

    /// Number of chunks.
    package var count: Int { endBlocks.count }

    /// Bytes of chunk `number` in the raw blob; traps outside `0..<count`.
    package func range(of number: Int) -> Range<UInt64> {
        let block = UInt64(Limits.blockSize)
        let start = number == 0 ? 0 : UInt64(endBlocks[number - 1]) * block
        return start..<min(UInt64(endBlocks[number]) * block, rawSize)
    }

    /// The chunk numbers that cover a byte range; what lies past the end of the blob is ignored. O(log n).
    package func chunks(covering range: Range<UInt64>) -> Range<Int> {
        let clamped = range.clamped(to: 0..<rawSize)
        guard !clamped.isEmpty else { return 0..<0 }
        let block = UInt64(Limits.blockSize)
        let first = search(clamped.lowerBound / block, from: 0)
        return first..<search((clamped.upperBound - 1) / block, from: first) + 1
    }

    /// The first chunk at or after `low` that ends after `block`.
    private func search(_ block: UInt64, from low: Int) -> Int {
        var low = low
        var high = endBlocks.count - 1
        while low < high {
            let middle = (low + high) / 2
            if UInt64(endBlocks[middle]) > block { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
