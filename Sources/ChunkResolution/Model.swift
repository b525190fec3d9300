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
    /// Another node asked this one to get it, and waits.
    case relayed
    /// A sequential reader is about to ask for it.
    case readAhead
    /// An access trace says that it will be read soon.
    case replay
    /// Hydration, prefetch and repair: nobody waits.
    case background

    package static func < (a: FetchRank, b: FetchRank) -> Bool { a.rawValue < b.rawValue }
}

/// Where a chunk may come from. The shell lists them in the order they are tried.
package enum FetchSource: Hashable, Sendable, CustomStringConvertible {
    /// A resident chunk of the same digest on this node.
    case local(ChunkKey)
    /// Another node. `fetch`: it is the one to get the chunk for others, itself or from the next above it, and may be
    /// waited for; otherwise only what it has is asked of it.
    case peer(NodeName, fetch: Bool)
    /// The registry that the blob's image names, mirrors included.
    case registry

    package var description: String {
        switch self {
        case .local(let key): "local(\(key))"
        case .peer(let name, let fetch): "peer(\(name)\(fetch ? ", to fetch" : ""))"
        case .registry: "registry"
        }
    }

    /// The peer, if it is one.
    package var peer: NodeName? { if case .peer(let name, _) = self { name } else { nil } }
}

/// Where one chunk may come from, best first; nowhere when there are no sources.
package struct LocatedChunk: Equatable, Sendable {
    package let key: ChunkKey
    package let sources: [FetchSource]
    /// When a reader waits this long for the first source, the next is asked as well; nil is never.
    package let hedgeAfter: Duration?
    /// Who could give it is busy: ask where it is again after this long, and use `sources` only when the peers' time
    /// is over; nil is now.
    package let again: Duration?
    /// How long a peer that is to fetch may be waited for until each next chunk; nil is the scheduler's own limit.
    package let wait: Duration?

    package init(
        _ key: ChunkKey, _ sources: [FetchSource], hedgeAfter: Duration? = nil, again: Duration? = nil,
        wait: Duration? = nil
    ) {
        self.key = key
        self.sources = sources
        self.hedgeAfter = hedgeAfter
        self.again = again
        self.wait = wait
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

    /// Raw bytes of these chunks: what a peer sends; traps outside the index (a programmer error).
    package func rawRange(of chunks: Range<Int>) -> Range<UInt64> {
        guard !chunks.isEmpty else { return 0..<0 }
        return index[chunks.lowerBound].range.lowerBound..<index[chunks.upperBound - 1].range.upperBound
    }

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

/// Where a chunk that somebody waits for is.
package struct Whereabouts: Equatable, Sendable {
    /// What is being done for it; the raw value is on the wire of the control API.
    package enum Step: String, CaseIterable, Sendable {
        /// Looked for: who has it?
        case locating
        /// Its turn has not come.
        case queued
        /// A source failed; the next attempt is timed.
        case backingOff
        /// Peers that could give it are busy; they are asked again.
        case waitingForPeers
        case copying
        case fetching
        /// Its bytes are with the gate.
        case writing
        /// The disk is full.
        case makingRoom
    }

    package let step: Step
    /// Who is asked, or is next.
    package let source: FetchSource?
    /// When the request under way began.
    package let begun: Duration?
    /// Asked as well, since the first takes long.
    package let second: FetchSource?
    /// Whom it was asked of so far, in order, each once; at most `maxAsked`.
    package let asked: [FetchSource]
    /// Requests of the current source.
    package let attempts: Int

    package static let maxAsked = 8
}

/// Why a fetch from a source gave nothing.
package enum FetchFailure: Error, Equatable, Sendable {
    /// The same request may succeed later; `retryAfter` is the source's wish.
    case transient(retryAfter: Duration?)
    /// It will not: no such blob, credentials refused.
    case permanent
}

/// One request: consecutive chunks of a blob from a registry or a peer.
package struct RangePlan: Equatable, Sendable {
    package let id: UInt64
    package let blob: BlobID
    package let source: FetchSource
    package let chunks: Range<Int>
    /// Byte range in the stored blob; for a peer, which gives raw bytes, in the raw one.
    package let stored: Range<UInt64>
    package let rank: FetchRank
    /// Ask past caches: what a cache gave did not match its digest.
    package let bypassCaches: Bool
    /// The chunk is on disk with wrong bytes: overwrite it.
    package let repair: Bool
    /// How long a peer that has to fetch the chunks first may be waited for, until each next chunk; zero for every other
    /// source.
    package let wait: Duration
}
