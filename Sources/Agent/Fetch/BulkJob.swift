import ChunkModel
import ChunkResolution

/// Fetching what an image lacks, in order: hydration, which is paced, a prefetch somebody waits for, or what an access
/// trace says will be read. The engine's thread is the only user.
struct BulkJob {
    /// What it is done for, the most urgent first.
    enum Kind: Int, Sendable {
        /// One pass in the order of an access trace, beside the readers it is for.
        case replay
        /// One pass as fast as it goes.
        case prefetch
        /// At the pacer's rate, for ever trying.
        case hydration

        var rank: FetchRank { self == .replay ? .replay : .background }
    }

    /// Chunks of one blob; nil is all of them.
    struct Span {
        let blob: BlobID
        let chunks: Range<Int>?
    }

    /// How a job ended.
    struct Outcome: Sendable {
        /// Chunks that were absent and came, by this job or another.
        var filled: UInt64 = 0
        var failed: UInt64 = 0
        /// Chunks a replay asked for.
        var asked: UInt64 = 0
        /// Raw bytes of the chunks that came.
        var rawBytes: UInt64 = 0
        /// Bytes of them that came from outside the node, as stored there.
        var fetchedBytes: UInt64 = 0
    }

    let id: UInt64
    let kind: Kind
    let spans: [Span]
    /// Not before this time.
    var notBefore: Duration
    /// Next chunk to look at: the `offset`-th of a span.
    var span = 0
    var offset = 0
    /// Asked for and not settled.
    var outstanding: Set<ChunkKey> = []
    var outcome = Outcome()
    let progress: (@Sendable (Outcome) -> Void)?
    let completion: (@Sendable (Outcome) -> Void)?

    /// Chunks a job has asked for at once: several ranges' worth, so that ranges are long.
    static let window = 96

    /// All was looked at.
    var isAtEnd: Bool { span >= spans.count }

    /// Every chunk of every blob is resident, or its blob is gone.
    func isComplete(_ book: BlobBook) -> Bool {
        spans.allSatisfy { span in
            let entry = book[span.blob]
            guard let count = entry.description?.layout.index.count else { return true }
            return entry.residency.reduce(0) { $0 + $1.nonzeroBitCount } >= count
        }
    }

    /// Begins again, after a pause.
    mutating func restart(at time: Duration) {
        notBefore = time
        span = 0
        offset = 0
        outcome.failed = 0
    }

    /// The next absent chunks, of one blob unless it is a replay, at most `count` and `bytes`; at least one.
    mutating func next(
        _ book: BlobBook, count: Int, bytes: Int, isPending: (ChunkKey) -> Bool
    ) -> (keys: [ChunkKey], bytes: Int) {
        var keys: [ChunkKey] = []
        var total = 0
        while !isAtEnd, keys.count < count, total < bytes {
            let entry = book[spans[span].blob]
            // Not attached yet on this connection; a blob that was removed has no description either.
            if entry.handle == nil, entry.description != nil { break }
            let chunks = spans[span].chunks
            let chunk = (chunks?.lowerBound ?? 0) + offset
            guard let index = entry.description?.layout.index, chunk < min(index.count, chunks?.upperBound ?? .max)
            else {
                span += 1
                offset = 0
                if keys.isEmpty || kind == .replay { continue }
                break
            }
            let key = ChunkKey(entry.id, chunk)
            offset += 1
            if entry.isResident(key.chunk) { continue }
            // On its way for somebody else: a prefetch waits for it too, the others let it be.
            if kind != .prefetch, isPending(key) { continue }
            keys.append(key)
            total += index[key.chunk].size
        }
        return (kind == .replay ? Self.gathered(keys) : keys, total)
    }

    /// The same chunks with neighbours together, so that they travel together; else in their order.
    static func gathered(_ keys: [ChunkKey]) -> [ChunkKey] {
        var left = Set(keys)
        var out: [ChunkKey] = []
        for key in keys where left.contains(key) {
            var first = key.chunk
            while left.contains(ChunkKey(key.blob, first - 1)) { first -= 1 }
            while left.remove(ChunkKey(key.blob, first)) != nil {
                out.append(ChunkKey(key.blob, first))
                first += 1
            }
        }
        return out
    }
}
