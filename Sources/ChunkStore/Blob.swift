import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import Synchronization

/// One blob on disk: a sparse backing file, the record of what is in it, and the chunk index that says what may be.
///
/// Thread-safe. Writers go through descriptors that were opened before the file was marked, so they raise no events
/// (kernel-facts, law 6). What is resident is decided in memory; the map on disk follows, always after the data.
package final class Blob: Sendable {
    package let key: ResidencyMap.Key
    package let boundaries: ChunkBoundaries
    /// The backing file, opened before it was ever marked.
    package let data: File
    /// The same file, opened for reading only before it was marked: reading through it raises no events. chunkd is given
    /// it to serve peers from.
    package let reader: File
    /// Device and inode of the backing file: how its events are told apart.
    package let inode: FileIdentity
    /// Path of the backing file, for the mount's device option.
    package let path: String
    /// Chunks whose verified bytes are in the backing file.
    package let resident: ResidentSet
    /// Raw bytes of the resident chunks; counted anew, O(chunks) unless the blob is complete.
    package var residentBytes: UInt64 {
        if resident.count == boundaries.count { return boundaries.rawSize }
        return (0..<boundaries.count).reduce(0) { sum, number in
            resident.contains(number) ? sum + UInt64(boundaries.range(of: number).count) : sum
        }
    }
    /// Chunks some reader has asked for since this process opened the blob.
    package let touched: ResidentSet
    /// What `load` found of the map: anything but `.good` is counted.
    package let mapCondition: ResidencyMap.Condition

    private let index: File
    private let map: File
    private let durable: Mutex<Durable>

    private struct Durable {
        var map: ResidencyMap
        /// Chunks written since the last sync began, in bytes.
        var dirtyBytes = 0
        /// The map on disk says complete.
        var graduated: Bool
        /// Failed syncs. What was written before one and would be recorded after it may be lost.
        var failures = 0
        /// When a sync last failed; nil once the page cache has forgotten what it could not write.
        var lostSince: Monotonic?
        var isDropping = false
    }

    /// Nothing is written for so long after a failed sync: whoever was let through before it has read by then, from
    /// pages that are about to go.
    private static let pauseAfterFailureMilliseconds = 1000

    private static let indexEntriesStart: UInt64 = 64
    private static let indexEntrySize = 40

    /// Opens a blob directory holding `data`, `map` and `index.caibx`. `data`, for writing and for reading, is handed in
    /// when a predecessor's descriptors exist (the file may be marked by now).
    package init(
        directory: File, path: String, key: ResidencyMap.Key, kept: (data: File?, reader: File?)
    ) throws(StoreError) {
        self.key = key
        self.path = path + "/data"
        (index, map, data, reader, inode) = try attempt("open blob \(key.blob)") { () throws(SystemError) in
            let data = if let kept = kept.data { kept } else { try File(beneath: directory, "data", flags: O_RDWR) }
            let reader =
                if let kept = kept.reader { kept } else { try File(beneath: directory, "data", flags: O_RDONLY) }
            return (
                try File(beneath: directory, "index.caibx", flags: O_RDONLY),
                try File(beneath: directory, "map", flags: O_RDWR),
                data, reader, try FileIdentity(descriptor: data.descriptor)
            )
        }
        let (boundaries, loaded) = try Self.load(index: index, map: map, data: data, key: key)
        self.boundaries = boundaries
        mapCondition = loaded.condition
        resident = ResidentSet(capacity: boundaries.count, bits: loaded.map.bits)
        touched = ResidentSet(capacity: boundaries.count)
        durable = Mutex(Durable(map: loaded.map, graduated: loaded.map.isComplete))
        // A predecessor may have ended between a failed sync and what `beginWrite` does about it.
        if !loaded.map.isComplete { data.dropCache() }
    }

    private static func load(
        index: File, map: File, data: File, key: ResidencyMap.Key
    ) throws(StoreError) -> (ChunkBoundaries, (map: ResidencyMap, condition: ResidencyMap.Condition)) {
        let decoded = try decodeIndex(index, expecting: key.index)
        let (mapBytes, size) = try attempt("read residency map of blob \(key.blob)") { () throws(SystemError) in
            let limit = 2 * ResidencyMap.bankSize(chunkCount: Limits.maxChunksPerBlob)
            return (try map.contents(limit: limit), try data.size())
        }
        guard size == Self.backingSize(decoded.rawSize) else {
            throw StoreError(
                .digestMismatch,
                "backing file of blob \(key.blob) has \(size) bytes, expected \(Self.backingSize(decoded.rawSize)): "
                    + "it was changed by somebody else; remove the image and mount it again", errno: EIO)
        }
        do throws(ResidencyMap.Refused) {
            let loaded = try ResidencyMap.decode(
                mapBytes, key: key, chunkCount: decoded.count, rawSize: decoded.rawSize)
            return (ChunkBoundaries(decoded), loaded)
        } catch {
            throw StoreError(.newerFormat, "blob \(key.blob): \(error)", errno: EPROTO)
        }
    }

    /// Reads, hashes and decodes a chunk index file.
    package static func decodeIndex(_ file: File, expecting digest: Digest) throws(StoreError) -> ChunkIndex {
        let bytes = try attempt("read chunk index \(digest)") { () throws(SystemError) in
            try file.contents(limit: Limits.maxChunkIndexSize)
        }
        let found = SHA256.hash(bytes)
        guard found == digest else {
            throw StoreError(.digestMismatch, "chunk index hashes to \(found), expected \(digest)", errno: EIO)
        }
        do throws(ChunkIndex.Invalid) {
            return try ChunkIndex(caibx: bytes)
        } catch { throw StoreError(.invalidIndex, "chunk index \(digest): \(error)", errno: EINVAL) }
    }

    /// The backing file covers whole EROFS blocks.
    package static func backingSize(_ rawSize: UInt64) -> UInt64 {
        let block = UInt64(Limits.blockSize)
        return (rawSize + block - 1) / block * block
    }

    /// Chunk `number` as the index has it. Its digest is read from the index file, which was verified at load: keeping
    /// 32 bytes a chunk in memory would be most of the gate's memory.
    package func entry(_ number: Int) throws(StoreError) -> ChunkIndex.Entry {
        let offset = Self.indexEntriesStart + UInt64(number * Self.indexEntrySize) + 8
        let raw = try attempt("read chunk index \(key.index)") { () throws(SystemError) in
            try index.bytes(at: offset, count: Digest.byteCount)
        }
        guard let digest = Digest(rawBytes: raw) else {
            throw StoreError(.invalidIndex, "chunk index \(key.index) ends before chunk \(number)", errno: EIO)
        }
        return ChunkIndex.Entry(range: boundaries.range(of: number), digest: digest)
    }

    /// Writes a verified chunk and makes it resident in memory. `dirty` bytes wait for `sync`.
    package func write(_ chunk: borrowing VerifiedChunk, at number: Int) throws(StoreError) {
        let failures = try beginWrite()
        try attempt("write chunk \(number) of blob \(key.blob)") { () throws(SystemError) in
            try data.writeAll(chunk.bytes, at: boundaries.range(of: number).lowerBound)
        }
        try record(number, size: chunk.bytes.count, failuresBefore: failures)
    }

    /// Lets a write begin; returns the failed syncs so far, for `record`. EIO for a second after each.
    ///
    /// After a failed sync the kernel's pages go first. ext4 takes them for written: their blocks have a place, so the
    /// next write of such a page succeeds, and so does its sync, but nobody ever marks the blocks as written on disk,
    /// and they read as zeros once the page has left memory (seen on Linux 6.18).
    private func beginWrite() throws(StoreError) -> Int {
        enum Admission { case go(failures: Int), drop, refuse }
        let admission = durable.withLock { state -> Admission in
            guard let since = state.lostSince else { return .go(failures: state.failures) }
            let end = since.adding(milliseconds: Self.pauseAfterFailureMilliseconds)
            if state.isDropping || Monotonic.now < end { return .refuse }
            state.isDropping = true
            return .drop
        }
        switch admission {
        case .go(let failures): return failures
        case .refuse:
            throw StoreError(.system, "blob \(key.blob): a sync failed, no writes for a second", errno: EIO)
        case .drop: break
        }
        // Writes that were under way when the sync failed have left dirty pages, which cannot be dropped.
        let flushed = Result { () throws(SystemError) in try data.dataSync() }
        for file in [data, map] { file.dropCache() }
        durable.withLock { state in
            state.isDropping = false
            if case .failure = flushed { state.lostSince = .now } else { state.lostSince = nil }
        }
        try attempt("sync blob \(key.blob)") { () throws(SystemError) in try flushed.get() }
        return try beginWrite()
    }

    /// Makes a written chunk resident, unless a sync failed since before it was written: its bytes may be gone then.
    private func record(_ number: Int, size: Int, failuresBefore: Int) throws(StoreError) {
        let recorded = durable.withLock { state in
            guard state.failures == failuresBefore else { return false }
            state.dirtyBytes += size
            resident.insert(number)
            return true
        }
        guard recorded else {
            throw StoreError(.system, "sync failed while chunk \(number) of blob \(key.blob) was written", errno: EIO)
        }
    }

    /// Shares or copies a chunk's extents from another blob and verifies what arrived, then makes it resident.
    /// `buffer` has room for the chunk.
    package func copy(
        _ number: Int, from source: Blob, chunk: Int, buffer: UnsafeMutableRawBufferPointer
    ) throws(StoreError) {
        let entry = try entry(number)
        let from = source.boundaries.range(of: chunk)
        guard from.count == entry.range.count, buffer.count >= entry.size else {
            throw StoreError(.digestMismatch, "local copy differs in size", errno: EINVAL)
        }
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<entry.size])
        try attempt("read local copy from blob \(source.key.blob)") { () throws(SystemError) in
            let count = try source.data.readAll(into: room, at: from.lowerBound)
            guard count == entry.size else { throw SystemError(EIO, "pread", "short read of a local copy") }
        }
        let verified: VerifiedChunk
        do throws(ChunkMismatch) {
            verified = try VerifiedChunk(checking: UnsafeRawBufferPointer(room), against: entry)
        } catch {
            throw StoreError(.digestMismatch, "local copy in blob \(source.key.blob): \(error)", errno: EIO)
        }
        // Sharing extents happens only after the check of the very bytes they hold: the source is ours alone, and a
        // resident range is never rewritten but by a repair, which writes what hashes right.
        let failures = try beginWrite()
        let aligned = entry.range.upperBound % UInt64(Limits.blockSize) == 0
        if aligned,
            data.cloneRange(
                from: source.data, at: from.lowerBound, to: entry.range.lowerBound, count: UInt64(entry.size))
        {
            return try record(number, size: entry.size, failuresBefore: failures)
        }
        try write(verified, at: number)
    }

    /// Bytes written and not synced yet.
    package var dirtyBytes: Int { durable.withLock { $0.dirtyBytes } }

    /// The map on disk says that every chunk is there.
    package var isGraduated: Bool { durable.withLock { $0.graduated } }

    /// What a sync did.
    package enum SyncResult: Equatable, Sendable {
        case clean, synced
        /// Synced, and now complete on disk: the mark may go.
        case graduated
    }

    /// Makes what is resident durable: data first, then the map (faults.md, "Disk"). After an error every chunk since
    /// the last good sync is absent again: the kernel reports a lost write once, and later says all is well.
    package func sync() throws(StoreError) -> SyncResult {
        guard let snapshot = durable.withLock({ state in takeSnapshot(&state) }) else { return .clean }
        do throws(SystemError) {
            try data.dataSync()
            // Before the first map: a blob whose index did not survive a power cut starts over, map or no map.
            if snapshot.sequence == 1 { try index.dataSync() }
            try map.writeAll(snapshot.encodeBank(), at: snapshot.bankOffset)
            try map.dataSync()
        } catch {
            durable.withLock { state in
                state.failures += 1
                state.lostSince = .now
                resident.replace(bits: state.map.bits)
            }
            throw StoreError(error, "sync blob \(key.blob)")
        }
        return durable.withLock { state in
            state.map = snapshot
            let complete = snapshot.isComplete && !state.graduated
            if complete { state.graduated = true }
            return complete ? .graduated : .synced
        }
    }

    /// Called under the lock: the bits as they are now, all of whose bytes were written before.
    private func takeSnapshot(_ state: inout Durable) -> ResidencyMap? {
        guard state.dirtyBytes > 0 else { return nil }
        state.dirtyBytes = 0
        return state.map.with(bits: resident.bits(), sequence: state.map.sequence + 1)
    }

    /// Hashes a resident chunk on disk; false when it is not what the index says. `buffer` has room for it.
    package func verify(_ number: Int, buffer: UnsafeMutableRawBufferPointer) throws(StoreError) -> Bool {
        let entry = try entry(number)
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<entry.size])
        do throws(SystemError) {
            guard try data.readAll(into: room, at: entry.range.lowerBound) == entry.size else { return false }
        } catch {
            if error.errno == EIO { return false }
            throw StoreError(error, "read chunk \(number) of blob \(key.blob)")
        }
        return SHA256.hash(UnsafeRawBufferPointer(room)) == entry.digest
    }
}
