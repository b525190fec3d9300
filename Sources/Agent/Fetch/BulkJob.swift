import ChunkModel
import ChunkResolution

/// Fetching what an image lacks, in order: hydration, which is paced, or a prefetch somebody waits for. The engine's
/// thread is the only user.
struct BulkJob {
    /// How a job ended.
    struct Outcome: Sendable {
        /// Chunks that were absent and came, by this job or another.
        var filled: UInt64 = 0
        var failed: UInt64 = 0
        /// Raw bytes of the chunks that came.
        var rawBytes: UInt64 = 0
        /// Bytes of them that came from outside the node, as stored there.
        var fetchedBytes: UInt64 = 0
    }

    let id: UInt64
    /// Hydration: at the pacer's rate, for ever trying. Otherwise one pass as fast as it goes.
    let isPaced: Bool
    let blobs: [BlobID]
    /// Not before this time.
    var notBefore: Duration
    /// Next chunk to look at.
    var blob = 0
    var chunk = 0
    /// Asked for and not settled.
    var outstanding: Set<ChunkKey> = []
    var outcome = Outcome()
    let progress: (@Sendable (Outcome) -> Void)?
    let completion: (@Sendable (Outcome) -> Void)?

    /// Chunks a job has asked for at once: several ranges' worth, so that ranges are long.
    static let window = 96

    /// All was looked at.
    var isAtEnd: Bool { blob >= blobs.count }

    /// Every chunk of every blob is resident, or its blob is gone.
    func isComplete(_ book: BlobBook) -> Bool {
        blobs.allSatisfy { id in
            let entry = book[id]
            guard let count = entry.description?.layout.index.count else { return true }
            return entry.residency.reduce(0) { $0 + $1.nonzeroBitCount } >= count
        }
    }

    /// Begins again, after a pause.
    mutating func restart(at time: Duration) {
        notBefore = time
        blob = 0
        chunk = 0
        outcome.failed = 0
    }

    /// The next absent chunks of one blob that nobody has asked for yet, at most `count` and `bytes`; at least one.
    mutating func next(
        _ book: BlobBook, count: Int, bytes: Int, isPending: (ChunkKey) -> Bool
    ) -> (keys: [ChunkKey], bytes: Int) {
        var keys: [ChunkKey] = []
        var total = 0
        while !isAtEnd, keys.count < count, total < bytes {
            let entry = book[blobs[blob]]
            // Not attached yet on this connection; a blob that was removed has no description either.
            if entry.handle == nil, entry.description != nil { break }
            guard let index = entry.description?.layout.index, chunk < index.count else {
                blob += 1
                chunk = 0
                if keys.isEmpty { continue }
                break
            }
            let key = ChunkKey(entry.id, chunk)
            chunk += 1
            if entry.isResident(key.chunk) { continue }
            // On its way for somebody else: hydration lets it be, a prefetch waits for it too.
            if isPaced, isPending(key) { continue }
            keys.append(key)
            total += index[key.chunk].size
        }
        return (keys, total)
    }
}
