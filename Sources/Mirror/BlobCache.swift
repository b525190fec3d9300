import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import Synchronization

/// Whole blobs on disk by digest: docs/formats/mirror.md, "On disk". Thread-safe; every call but the counts blocks on the
/// disk, so run them on threads of their own.
///
/// A file gets its name only once its bytes were hashed and synced. What was there before this process is hashed before it
/// is given to anybody: so a torn file is never served, whatever the disk did.
package final class BlobCache: Sendable {
    private struct Entry {
        let size: UInt64
        /// Grows with each use: the least is evicted first.
        var use: UInt64
        /// When its bytes were last hashed by this process.
        var hashed: Monotonic?
        var leases = 0
    }

    private struct State {
        var entries: [Digest: Entry] = [:]
        var bytes: UInt64 = 0
        /// Room promised to what is being written.
        var reserved: UInt64 = 0
        var uses: UInt64 = 0
        var temporaries: UInt64 = 0
    }

    /// Left free on the file system: what the rest of the agent writes.
    package static let leastFree: UInt64 = 512 << 20
    /// Bytes hashed at once.
    private static let pieceBytes = 1 << 20

    private let directory: String
    package let quota: UInt64
    private let state = Mutex(State())
    private let evicted: @Sendable (Digest) -> Void

    /// Makes the directories, deletes what was half-written, and takes in what is there. `evicted` is told of each blob that
    /// goes, on the thread that made it go.
    package init(
        directory: String, quota: UInt64, evicted: @escaping @Sendable (Digest) -> Void
    ) throws(SystemError) {
        self.directory = directory
        self.quota = quota
        self.evicted = evicted
        try Directory.create(directory, mode: 0o700)
        for name in ["blobs", "new"] { try Directory.create("\(directory)/\(name)", mode: 0o700) }
        for name in try Directory.names(directory + "/new") { unlink("\(directory)/new/\(name)") }
        try takeIn()
        evict(toFit: 0)
    }

    /// Files left by an earlier process, the longest unused first.
    private func takeIn() throws(SystemError) {
        var found: [(digest: Digest, size: UInt64, time: Int)] = []
        for name in try Directory.names(directory + "/blobs") {
            guard let digest = Digest(hex: name),
                // Gone or unreadable: as if it were not there.
                let file = try? File(path: "\(directory)/blobs/\(name)", flags: O_RDONLY | O_NOFOLLOW),
                let size = try? file.size(), let time = try? file.modificationSeconds()
            else { continue }
            found.append((digest, size, time))
        }
        found.sort { ($0.time, $0.digest) < ($1.time, $1.digest) }
        state.withLock { state in
            for blob in found {
                state.uses += 1
                state.entries[blob.digest] = Entry(size: blob.size, use: state.uses)
                state.bytes += blob.size
            }
        }
    }

    /// Bytes of the blobs that are here.
    package var bytes: UInt64 { state.withLock { $0.bytes } }

    /// Whether a blob of this size is here; not whether it is good.
    package func has(_ digest: Digest, size: UInt64) -> Bool { state.withLock { $0.entries[digest]?.size == size } }

    private func path(_ digest: Digest) -> String { "\(directory)/blobs/\(digest.hex)" }

    // MARK: - Reading

    /// A blob that stays until it is let go of.
    package final class Lease: Sendable {
        package let file: File
        package let size: UInt64
        private let end: @Sendable () -> Void

        fileprivate init(file: File, size: UInt64, end: @escaping @Sendable () -> Void) {
            self.file = file
            self.size = size
            self.end = end
        }
        deinit { end() }
    }

    /// Opens a blob whose bytes were found right no longer ago than `trust`, hashing them now if need be. Nil when it is not
    /// here, or was damaged: then it is gone.
    package func open(_ digest: Digest, size: UInt64, trust: Duration) -> Lease? {
        let hashed = state.withLock { state -> Monotonic?? in
            guard state.entries[digest]?.size == size else { return nil }
            state.uses += 1
            state.entries[digest]?.use = state.uses
            state.entries[digest]?.leases += 1
            return .some(state.entries[digest]?.hashed)
        }
        guard let hashed else { return nil }
        let end: @Sendable () -> Void = { [weak self] in self?.release(digest) }
        guard let file = try? File(path: path(digest), flags: O_RDONLY | O_NOFOLLOW) else {
            end()
            remove(digest)
            return nil
        }
        // The next start reads the order of use from here; a file system that keeps no times costs only that.
        futimens(file.descriptor, nil)
        let lease = Lease(file: file, size: size, end: end)
        let age = hashed.map { Duration.milliseconds(Monotonic.now.milliseconds(since: $0)) }
        if let age, age < trust { return lease }
        guard Self.hash(file, size) == digest else {
            remove(digest)
            return nil
        }
        state.withLock { $0.entries[digest]?.hashed = .now }
        return lease
    }

    private func release(_ digest: Digest) { state.withLock { $0.entries[digest]?.leases -= 1 } }

    private static func hash(_ file: File, _ size: UInt64) -> Digest? {
        guard (try? file.size()) == size else { return nil }
        var hasher = SHA256()
        var done: UInt64 = 0
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceBytes, alignment: 16)
        defer { piece.deallocate() }
        while done < size {
            // Unreadable: as good as damaged.
            guard let count = try? file.readAll(into: piece, at: done), count > 0 else { return nil }
            hasher.update(UnsafeRawBufferPointer(rebasing: piece[..<count]))
            done += UInt64(count)
        }
        return hasher.finalize()
    }

    // MARK: - Writing

    /// A blob being written: a file that has no name yet by which anybody would find it. Deleted when it is let go of.
    package final class Draft: Sendable {
        package let file: File
        package let size: UInt64
        fileprivate let path: String
        private let end: @Sendable () -> Void

        fileprivate init(file: File, size: UInt64, path: String, end: @escaping @Sendable () -> Void) {
            self.file = file
            self.size = size
            self.path = path
            self.end = end
        }
        deinit {
            unlink(path)
            end()
        }
    }

    /// Why there is no room for a blob; the raw value is a metric label.
    package enum NoRoom: String, Error, Sendable, CaseIterable {
        /// Larger than the quota, or than what is left of it beside blobs that are being sent or written.
        case quota
        case disk = "disk_full"
    }

    /// Begins a blob; evicts others to make room.
    package func begin(_ digest: Digest, size: UInt64) throws -> Draft {
        guard size <= quota else { throw NoRoom.quota }
        evict(toFit: size)
        let number = try state.withLock { state in
            guard state.bytes + state.reserved + size <= quota else { throw NoRoom.quota }
            state.reserved += size
            state.temporaries += 1
            return state.temporaries
        }
        do {
            guard try Directory.space(directory).free >= size + Self.leastFree else { throw NoRoom.disk }
            let path = "\(directory)/new/\(digest.hex).\(number)"
            let file = try File(path: path, flags: O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
            return Draft(file: file, size: size, path: path) { [weak self] in self?.unreserve(size) }
        } catch {
            unreserve(size)
            throw error
        }
    }

    private func unreserve(_ size: UInt64) { state.withLock { $0.reserved -= size } }

    /// Takes in a draft whose bytes the caller has hashed and found to be the digest's.
    package func commit(_ draft: Draft, _ digest: Digest) throws(SystemError) -> Lease {
        try draft.file.dataSync()
        try Directory.rename(draft.path, to: path(digest))
        state.withLock { state in
            state.uses += 1
            if let old = state.entries[digest] { state.bytes -= old.size }
            state.entries[digest] = Entry(
                size: draft.size, use: state.uses, hashed: .now, leases: (state.entries[digest]?.leases ?? 0) + 1)
            state.bytes += draft.size
        }
        return Lease(file: draft.file, size: draft.size) { [weak self] in self?.release(digest) }
    }

    // MARK: - Removing

    /// Evicts what has longest not been used and nobody is sent, until so much more fits.
    private func evict(toFit size: UInt64) {
        while true {
            let victim = state.withLock { state -> Digest? in
                guard state.bytes + state.reserved + size > quota else { return nil }
                let victim = state.entries.filter { $0.value.leases == 0 }.min { $0.value.use < $1.value.use }?.key
                if let victim, let entry = state.entries.removeValue(forKey: victim) { state.bytes -= entry.size }
                return victim
            }
            guard let victim else { return }
            unlink(path(victim))
            evicted(victim)
        }
    }

    /// Takes out a blob that turned out damaged.
    private func remove(_ digest: Digest) {
        let entry = state.withLock { state in
            let entry = state.entries.removeValue(forKey: digest)
            state.bytes -= entry?.size ?? 0
            return entry
        }
        guard entry != nil else { return }
        unlink(path(digest))
        evicted(digest)
    }
}
