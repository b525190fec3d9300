import ChunkModel
import ChunkStore
import ErofsFormat
import Glibc
import LinuxSystem
import PreContent

/// Opening, mounting, verifying and removing images, on one thread: mounts are serialised because the number in
/// /sys/class/bdi/erofs-N is found by looking before and after.
final class ImageAdmin: Sendable {
    private let store: Store
    private let blobs: BlobTable
    private let counters: GateCounters
    private let outbox: Outbox
    private let keeper: KeeperClient
    private let log: GateLog
    private let readAheadKiB: Int

    init(
        store: Store, blobs: BlobTable, counters: GateCounters, outbox: Outbox, keeper: KeeperClient, log: GateLog,
        readAheadKiB: Int
    ) {
        self.store = store
        self.blobs = blobs
        self.counters = counters
        self.outbox = outbox
        self.keeper = keeper
        self.log = log
        self.readAheadKiB = readAheadKiB
    }

    /// Carries out one request and replies.
    func carryOut(_ request: GateProtocol.Request, _ number: UInt32, _ files: [File]) {
        do throws(StoreError) {
            switch request {
            case .openImage(let digest, let mount, let blobCount):
                let image = try open(digest, files, blobCount: Int(blobCount))
                if mount { try self.mount(image) }
                outbox.send(.image(try info(image)), number: number)
            case .closeImage(let digest):
                try unmount(try store.image(digest))
                outbox.send(.reply(errno: 0, value: 0, message: ""), number: number)
            case .list:
                for digest in try store.imageDigests() { reportIfGood(digest, number) }
                outbox.send(.end, number: number)
            case .verify(let handle, let first, let count):
                outbox.send(try verify(handle, first: Int(first), count: Int(count)), number: number)
            case .removeImage(let digest):
                outbox.send(.reply(errno: 0, value: try remove(digest), message: ""), number: number)
            case .bootstrapFile(let digest):
                let file = try store.bootstrap(of: digest)
                outbox.send(.reply(errno: 0, value: 0, message: ""), number: number, file: file)
            default: break
            }
        } catch {
            log.log(.warning, "request refused", ["error": "\(error)", "code": error.code.rawValue])
            outbox.send(.reply(errno: UInt32(error.errno), value: 0, message: error.message), number: number)
        }
    }

    private func reportIfGood(_ digest: Digest, _ number: UInt32) {
        do throws(StoreError) {
            outbox.send(.image(try info(try load(digest))), number: number)
        } catch {
            // One bad image never hides the others (invariant I5).
            log.log(.warning, "image passed over", ["image": "\(digest)", "error": "\(error)"])
        }
    }

    /// Loads an image and serves its blobs.
    func load(_ digest: Digest) throws(StoreError) -> StoredImage {
        let image = try store.image(digest)
        for blob in image.blobs {
            let known = blobs.open(blob)
            if known.blob.mapCondition != .good { counters.add(.mapFallbacks) }
        }
        return image
    }

    private func open(_ digest: Digest, _ files: [File], blobCount: Int) throws(StoreError) -> StoredImage {
        do throws(StoreError) {
            return try load(digest)
        } catch  where !files.isEmpty {
            // Not here, or damaged: taken in anew below.
            if error.code == .newerFormat { throw error }
            if error.code != .notFound {
                let path = store.imageDirectory(digest) + "/mnt"
                if try entries().contains(where: { $0.mountPoint == path }) { throw error }
                log.log(.warning, "damaged image replaced", ["image": "\(digest)", "error": "\(error)"])
            }
        }
        guard files.count == 2 + blobCount, blobCount <= Limits.maxBlobsPerImage else {
            throw StoreError(.manifestMismatch, "\(files.count) files for \(blobCount) blobs", errno: EINVAL)
        }
        for file in files where file.seals & 0xE != 0xE {
            throw StoreError(
                .manifestMismatch, "a file that is not a sealed memory file was handed over", errno: EINVAL)
        }
        _ = try store.add(digest, manifest: files[0], bootstrap: files[1], indexes: Array(files[2...])) {
            map, sizes throws(StoreError) in
            try Self.validate(map, sizes)
        }
        return try load(digest)
    }

    /// A kernel mount trusts its superblock; nothing reaches it that was not walked here first.
    private static func validate(_ map: UnsafeRawBufferPointer, _ sizes: [UInt64]) throws(StoreError) {
        do {
            _ = try BootstrapValidator.validate(map, devices: sizes)
        } catch { throw StoreError(.invalidBootstrap, "bootstrap refused: \(error)", errno: EINVAL) }
    }

    // MARK: Mounts

    private func entries() throws(StoreError) -> [MountEntry] {
        do throws(SystemError) { return try MountEntry.all() } catch { throw StoreError(error, "read mounts") }
    }

    private func mounted(_ image: StoredImage, in entries: [MountEntry]) -> MountEntry? {
        mount(at: image.mountPath, in: entries)
    }

    private func mount(at path: String, in entries: [MountEntry]) -> MountEntry? {
        entries.last { $0.mountPoint == path && $0.type == "erofs" }
    }

    /// Names of image directories with a mount of this gate.
    func mountedNames() throws(StoreError) -> [String] {
        let parent = store.root + "/images/"
        return try entries().filter { $0.type == "erofs" && $0.mountPoint.hasPrefix(parent) }
            .map { String($0.mountPoint.dropFirst(parent.count).prefix { $0 != "/" }) }
    }

    private func mount(_ image: StoredImage) throws(StoreError) {
        if mounted(image, in: try entries()) != nil { return }
        try store.checkBootstrap(image)
        do throws(SystemError) {
            // The mark comes first: the kernel decides when it opens the device whether it will ask (law 1).
            for blob in image.blobs where !blob.isGraduated {
                try blobs.open(blob).shard.group.mark(blob.data)
            }
            let before = Set(try Self.bdiNames())
            try Mount.erofs(image: image.bootstrapPath, devices: image.blobs.map(\.path), at: image.mountPath)
            let new = try Self.bdiNames().filter { !before.contains($0) }
            if new.count == 1 { setReadAhead(new[0]) }
            try Directory.replaceFile(image.directory + "/bdi", Array((new.first ?? "").utf8))
        } catch { throw StoreError(error, "mount \(image.digest)") }
        log.log(.info, "mounted", ["image": "\(image.digest)", "path": image.mountPath])
    }

    private static func bdiNames() throws(SystemError) -> [String] {
        try Directory.names("/sys/class/bdi").filter { $0.hasPrefix("erofs-") }
    }

    private func setReadAhead(_ name: String) {
        do throws(SystemError) {
            let file = try File(path: "/sys/class/bdi/\(name)/read_ahead_kb", flags: O_WRONLY)
            try file.writeAll(Array("\(readAheadKiB)\n".utf8), at: 0)
        } catch {
            // A read-only /sys costs speed, not bytes.
            log.log(.warning, "read-ahead not set", ["bdi": name, "error": "\(error)"])
        }
    }

    /// Unmounts an image unless somebody else uses it.
    func unmount(_ image: StoredImage) throws(StoreError) {
        guard try unmount(image.digest) else { return }
        try? Taint.clear(image)  // no marker is the usual case
    }

    /// The same for an image that may not load any more; false when it is not mounted.
    private func unmount(_ digest: Digest) throws(StoreError) -> Bool {
        let entries = try entries()
        let path = store.imageDirectory(digest) + "/mnt"
        guard let own = mount(at: path, in: entries) else { return false }
        if let user = entries.first(where: { $0.device == own.device && $0.id != own.id }) {
            throw StoreError(.busy, "image \(digest) is in use at \(user.mountPoint)", errno: EBUSY)
        }
        do throws(SystemError) { try Mount.unmount(path) } catch { throw StoreError(error, "unmount \(digest)") }
        log.log(.info, "unmounted", ["image": "\(digest)"])
        return true
    }

    /// Unmounts an image before this process ends. Returns why it must not end: somebody uses the image, here or in
    /// another mount namespace, and it is partly fetched, or cannot be read so that nobody knows.
    func release(_ digest: Digest) -> String? {
        let image = try? load(digest)
        let isComplete = image?.blobs.allSatisfy { $0.isGraduated } ?? false
        do throws(StoreError) {
            if let image { try unmount(image) } else { _ = try unmount(digest) }
        } catch { return isComplete ? nil : error.message }
        guard !isComplete, isAlive(store.imageDirectory(digest)) else { return nil }
        return "image \(digest) is in use in another mount namespace"
    }

    /// Whether the image's file system is mounted anywhere, also in mount namespaces this process cannot see: its bdi
    /// lives as long as the superblock.
    private func isAlive(_ directory: String) -> Bool {
        guard let bytes = try? File(path: directory + "/bdi", flags: O_RDONLY).contents(limit: 64), !bytes.isEmpty
        else { return false }
        return Directory.exists("/sys/class/bdi/" + String(decoding: bytes, as: UTF8.self)) && bootMatches(directory)
    }

    /// bdi numbers start over at boot: the marker's file must be younger than that.
    private func bootMatches(_ directory: String) -> Bool {
        var boot = timespec()
        var wall = timespec()
        clock_gettime(CLOCK_BOOTTIME, &boot)
        clock_gettime(CLOCK_REALTIME, &wall)
        guard let written = try? File(path: directory + "/bdi", flags: O_RDONLY).modificationSeconds() else {
            return true
        }
        return written >= wall.tv_sec - boot.tv_sec - 1
    }

    // MARK: Inspection and removal

    /// What chunkd is told about an image.
    func info(_ image: StoredImage) throws(StoreError) -> GateProtocol.ImageInfo {
        let isMounted = mounted(image, in: try entries()) != nil
        return .init(
            manifest: image.digest, mounted: isMounted, tainted: isMounted && Taint.isSet(image),
            bootstrapSize: image.bootstrapSize, path: image.mountPath,
            blobs: image.blobs.map { blob in
                .init(
                    handle: blobs.open(blob).handle, digest: blob.key.blob, rawSize: blob.boundaries.rawSize,
                    chunkCount: UInt32(blob.boundaries.count), residentCount: UInt32(blob.resident.count),
                    residentBytes: blob.residentBytes, graduated: blob.isGraduated)
            })
    }

    private func verify(_ handle: UInt32, first: Int, count: Int) throws(StoreError) -> GateProtocol.Event {
        guard let blob = blobs[handle]?.blob, first <= blob.boundaries.count else {
            throw StoreError(.notFound, "no blob \(handle)", errno: ENOENT)
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Limits.maxChunkSize, alignment: 4096)
        defer { buffer.deallocate() }
        let end = min(blob.boundaries.count, first + min(count, GateProtocol.maxVerifyChunks))
        var checked: UInt32 = 0
        var absent: UInt32 = 0
        var bad: [UInt32] = []
        for chunk in first..<end {
            guard blob.resident.contains(chunk) else {
                absent += 1
                continue
            }
            checked += 1
            if try !blob.verify(chunk, buffer: buffer) {
                counters.add(.verifyFailures)
                bad.append(UInt32(chunk))
                log.log(.error, "chunk on disk is damaged", ["blob": "\(blob.key.blob)", "chunk": "\(chunk)"])
            }
        }
        return .verified(blob: handle, checked: checked, absent: absent, bad: bad)
    }

    private func remove(_ digest: Digest) throws(StoreError) -> UInt64 {
        let image = try store.image(digest)
        if mounted(image, in: try entries()) != nil || isAlive(image.directory) {
            throw StoreError(.busy, "image \(digest) is mounted: unmount it first", errno: EBUSY)
        }
        // Never unlink a file that a mount may still read: the same blob may be mounted through another image, and
        // then that image names it and `remove` keeps it (law 7).
        let (gone, bytes) = try store.remove(digest)
        for blob in gone {
            guard let open = blobs.close(blob) else { continue }
            do throws(SystemError) {
                try open.shard.group.unmark(blob.data)
                try keeper.drop(Store.keptName(blob.key))
                try keeper.drop(Store.keptReaderName(blob.key))
            } catch { throw StoreError(error, "release blob \(blob.key.blob)") }
        }
        log.log(.info, "removed", ["image": "\(digest)", "bytes": "\(bytes)"])
        return bytes
    }
}
