package import ChunkModel

/// A blob as this agent numbers it, from its start to its end: unlike the gate's handles it outlives a connection.
package struct BlobID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let number: UInt32
    package init(_ number: UInt32) { self.number = number }
    package static func < (a: BlobID, b: BlobID) -> Bool { a.number < b.number }
    package var description: String { "b\(number)" }
}

/// One chunk of one blob.
package struct ChunkKey: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let blob: BlobID
    package let chunk: Int
    package init(_ blob: BlobID, _ chunk: Int) {
        self.blob = blob
        self.chunk = chunk
    }

    package static func < (a: ChunkKey, b: ChunkKey) -> Bool { (a.blob, a.chunk) < (b.blob, b.chunk) }
    package var description: String { "\(blob).\(chunk)" }
}

/// Who wants a chunk. A lower rank is never started while a higher one could be.
package enum FetchRank: Int, Comparable, Sendable, CaseIterable {
    /// A reader is blocked on it.
    case demand
    /// A sequential reader is about to ask for it.
    case readAhead
    /// Hydration, prefetch and repair: nobody waits.
    case background

    package static func < (a: FetchRank, b: FetchRank) -> Bool { a.rawValue < b.rawValue }
}

/// Where a chunk may come from. The shell lists them in the order they are tried.
package enum FetchSource: Hashable, Sendable, CustomStringConvertible {
    /// A resident chunk of the same digest on this node.
    case local(ChunkKey)
    /// The registry that the blob's image names, mirrors included.
    case registry

    package var description: String {
        switch self {
        case .local(let key): "local(\(key))"
        case .registry: "registry"
        }
    }
}

/// Where one chunk may come from, best first; nowhere when there are no sources.
package struct LocatedChunk: Equatable, Sendable {
    package let key: ChunkKey
    package let sources: [FetchSource]
    package init(_ key: ChunkKey, _ sources: [FetchSource]) {
        self.key = key
        self.sources = sources
    }
}

/// How a blob's chunks lie in what the registry stores.
package struct BlobLayout: Sendable {
    /// Boundaries and digests of the raw chunks.
    package let index: ChunkIndex
    /// For a compressed blob the end of each chunk's frame in the stored blob; nil when it is stored raw.
    private let storedEnds: [UInt64]?

    /// A blob stored as it is.
    package init(raw index: ChunkIndex) {
        self.index = index
        storedEnds = nil
    }

    /// A blob of one frame a chunk. Nil unless the frame sizes are one for each chunk and all above zero.
    package init?(_ index: ChunkIndex, frameSizes: some Collection<UInt32>) {
        guard frameSizes.count == index.count else { return nil }
        var end: UInt64 = 0
        var ends: [UInt64] = []
        ends.reserveCapacity(index.count)
        for size in frameSizes {
            guard size > 0 else { return nil }
            end += UInt64(size)
            ends.append(end)
        }
        self.index = index
        storedEnds = ends
    }

    package var isRaw: Bool { storedEnds == nil }

    /// Bytes of the stored blob that hold these chunks; traps outside the index (a programmer error).
    package func storedRange(of chunks: Range<Int>) -> Range<UInt64> {
        guard !chunks.isEmpty else { return 0..<0 }
        guard let storedEnds else {
            return index[chunks.lowerBound].range.lowerBound..<index[chunks.upperBound - 1].range.upperBound
        }
        let start = chunks.lowerBound == 0 ? 0 : storedEnds[chunks.lowerBound - 1]
        return start..<storedEnds[chunks.upperBound - 1]
    }
}

/// Limits of one `FetchScheduler`.
package struct FetchLimits: Sendable, Equatable {
    /// Stored bytes of one registry range. Long, since a request costs a registry more than a few megabytes of body
    /// do; what has no room yet waits on the wire, see `SlotPool`.
    package var rangeBytes = 32 << 20
    /// A reader that asks for a chunk this many stored bytes behind the front of a range that is not for readers gets
    /// a range of its own: what it would wait for there is longer than a request takes.
    package var joinBytes = 4 << 20
    /// Ranges in flight for readers that are blocked.
    package var demandRanges = 8
    /// Ranges in flight for read-ahead and background together: so many that their latencies overlap.
    package var speculativeRanges = 3
    /// Copies within the node in flight.
    package var copies = 32
    /// Chunks known to the scheduler because a reader waits: 32,768 × about 200 bytes = 6.5 MB.
    package var demandChunks = 32_768
    /// Chunks known for read-ahead and background.
    package var speculativeChunks = 4096
    /// How long a demand miss may take; the gate's own deadline is a little later.
    package var deadline = Duration.seconds(25)
    /// Attempts at one source for a reader, and for nobody.
    package var demandAttempts = 10
    package var speculativeAttempts = 3
    /// Back-off between attempts: doubles from the first to the second, with up to a quarter of jitter.
    package var firstBackoff = Duration.milliseconds(100)
    package var maxBackoff = Duration.seconds(3)
    package var quarantine = QuarantineLimits()

    package init() {}
}

/// Why a fetch from a source gave nothing.
package enum FetchFailure: Error, Equatable, Sendable {
    /// The same request may succeed later; `retryAfter` is the source's wish.
    case transient(retryAfter: Duration?)
    /// It will not: no such blob, credentials refused.
    case permanent
}

/// One registry range: consecutive chunks of a blob.
package struct RangePlan: Equatable, Sendable {
    package let id: UInt64
    package let blob: BlobID
    package let source: FetchSource
    package let chunks: Range<Int>
    /// Byte range in the stored blob.
    package let stored: Range<UInt64>
    package let rank: FetchRank
    /// Ask past caches: what a cache gave did not match its digest.
    package let bypassCaches: Bool
    /// The chunk is on disk with wrong bytes: overwrite it.
    package let repair: Bool
}
