import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import Synchronization

/// The gate's directory: docs/formats/store.md.
///
///     FORMAT                          layout version
///     blobs/KEY/{data,map,index.caibx}
///     images/DIGEST/{manifest,bootstrap.erofs,mnt/}
///
/// Immutable files (manifest, bootstrap, index) are checked against their digests whenever they are loaded, so they need
/// no fsync: after a power cut a torn one is refused and fetched again. Thread-safe.
package final class Store: Sendable {
    /// `<state>/gate`.
    package let root: String
    private let blobs = Mutex<[ResidencyMap.Key: Blob]>([:])
    /// Data files that a predecessor opened before it marked them, by `keptName`.
    private let kept: Mutex<[String: File]>
    /// Called with each data file before it can be marked, so that the keeper holds it.
    private let keep: @Sendable (String, File) throws(SystemError) -> Void

    private static let format = "1\n"

    /// Opens or makes the directory. The file system must carry pre-content marks.
    package init(
        root: String, kept: [String: File],
        keep: @escaping @Sendable (String, File) throws(SystemError) -> Void
    ) throws(StoreError) {
        self.root = root
        self.kept = Mutex(kept)
        self.keep = keep
        let kind = try attempt("open store \(root)") { () throws(SystemError) in
            for path in [root, root + "/blobs", root + "/images"] { try Directory.create(path, mode: 0o700) }
            return try Directory.open(root).fileSystem()
        }
        guard kind.carriesPreContentMarks else {
            throw StoreError(
                .unsupportedFileSystem,
                "\(root) is on \(kind): fanotify pre-content events need ext4, xfs or btrfs; use another --state-dir",
                errno: EOPNOTSUPP)
        }
        try Self.checkFormat(root + "/FORMAT")
        try attempt("clean store \(root)") { () throws(SystemError) in
            for parent in ["\(root)/blobs", "\(root)/images"] {
                for name in try Directory.names(parent) where name.hasPrefix(".new-") {
                    try Directory.removeFlat("\(parent)/\(name)")
                }
            }
        }
    }

    private static func checkFormat(_ path: String) throws(StoreError) {
        let found = try attempt("read \(path)") { () throws(SystemError) -> String in
            if !Directory.exists(path) { try Directory.replaceFile(path, Array(format.utf8)) }
            return String(decoding: try File(path: path, flags: O_RDONLY).contents(limit: 64), as: UTF8.self)
        }
        guard found == format else {
            throw StoreError(
                .newerFormat,
                "\(path) says format \(found.prefix(16)), this program knows \(format): upgrade chunkgate",
                errno: EPROTO)
        }
    }

    /// The keeper's name for a blob's data file.
    package static func keptName(_ key: ResidencyMap.Key) -> String { "blob." + directoryName(key) }

    /// The keeper's name for the same file, opened for reading only.
    package static func keptReaderName(_ key: ResidencyMap.Key) -> String { "read." + directoryName(key) }

    /// A blob's directory: the digest of its two digests, so that one blob under two indexes is two directories.
    private static func directoryName(_ key: ResidencyMap.Key) -> String {
        SHA256.hash(key.blob.rawBytes + key.index.rawBytes).hex
    }

    package func imageDirectory(_ digest: Digest) -> String { "\(root)/images/\(digest.hex)" }

    private func blobDirectory(_ key: ResidencyMap.Key) -> String { "\(root)/blobs/\(Self.directoryName(key))" }

    /// Digests of all images on disk, sorted. Names that are no digest are passed over.
    package func imageDigests() throws(StoreError) -> [Digest] {
        try attempt("list images") { () throws(SystemError) in try Directory.names(root + "/images") }
            .compactMap { Digest(hex: $0) }
    }

    // MARK: Images

    /// Loads an image: its manifest is checked, its blobs are opened. `.notFound` when there is none.
    package func image(_ digest: Digest) throws(StoreError) -> StoredImage {
        let path = imageDirectory(digest)
        guard Directory.exists(path) else {
            throw StoreError(.notFound, "image \(digest) is not on this node", errno: ENOENT)
        }
        let (bytes, bootstrapSize) = try attempt("load image \(digest)") { () throws(SystemError) in
            (
                try File(path: path + "/manifest", flags: O_RDONLY | O_NOFOLLOW).contents(
                    limit: Limits.maxManifestSize),
                try File(path: path + "/bootstrap.erofs", flags: O_RDONLY | O_NOFOLLOW).size()
            )
        }
        let digests = try Self.digests(of: bytes, expecting: digest)
        var opened: [Blob] = []
        for key in digests.blobs { opened.append(try blob(key)) }
        return StoredImage(
            digest: digest, digests: digests, directory: path, bootstrapSize: bootstrapSize, blobs: opened)
    }

    /// An image's bootstrap, for reading only; `.notFound` when there is no such image.
    package func bootstrap(of digest: Digest) throws(StoreError) -> File {
        let path = imageDirectory(digest) + "/bootstrap.erofs"
        do throws(SystemError) {
            return try File(path: path, flags: O_RDONLY | O_NOFOLLOW)
        } catch { throw StoreError(error, "bootstrap of image \(digest)") }
    }

    private static func digests(of manifest: [UInt8], expecting digest: Digest) throws(StoreError) -> ManifestDigests {
        let found = SHA256.hash(manifest)
        guard found == digest else {
            throw StoreError(.digestMismatch, "manifest hashes to \(found), expected \(digest)", errno: EIO)
        }
        do throws(ManifestDigests.Invalid) {
            return try ManifestDigests(manifest: manifest)
        } catch { throw StoreError(.manifestMismatch, "image \(digest): \(error)", errno: EINVAL) }
    }

    /// Takes in an image from files an unprivileged process handed over: everything is copied, then hashed from the
    /// copy and checked against the manifest, which must hash to `digest`. `validate` sees the bootstrap's bytes and the
    /// raw size of each device.
    package func add(
        _ digest: Digest, manifest: File, bootstrap: File, indexes: [File],
        validate: (UnsafeRawBufferPointer, [UInt64]) throws(StoreError) -> Void
    ) throws(StoreError) -> StoredImage {
        let bytes = try attempt("read manifest of \(digest)") { () throws(SystemError) in
            try manifest.contents(limit: Limits.maxManifestSize)
        }
        let digests = try Self.digests(of: bytes, expecting: digest)
        guard digests.blobs.count == indexes.count else {
            throw StoreError(
                .manifestMismatch,
                "image \(digest) has \(digests.blobs.count) blobs, \(indexes.count) chunk indexes were given",
                errno: EINVAL)
        }
        var sizes: [UInt64] = []
        for (key, file) in zip(digests.blobs, indexes) { sizes.append(try addBlob(key, index: file)) }
        let path = imageDirectory(digest)
        let temporary = "\(root)/images/.new-\(digest.hex)"
        try attempt("add image \(digest)") { () throws(SystemError) in
            try Directory.removeFlat(temporary)
            try Directory.create(temporary, mode: 0o700)
            try Directory.create(temporary + "/mnt", mode: 0o755)
            try Self.writeNew(temporary + "/manifest", bytes)
        }
        try Self.copyChecked(
            bootstrap, to: temporary + "/bootstrap.erofs", limit: Limits.maxBootstrapSize, digest: digests.bootstrap)
        try Self.withMapped(temporary + "/bootstrap.erofs") { map throws(StoreError) in try validate(map, sizes) }
        try attempt("add image \(digest)") { () throws(SystemError) in
            try Directory.removeFlat(path)
            try Directory.rename(temporary, to: path)
        }
        return try image(digest)
    }

    /// Checks a bootstrap's digest again, before a mount: its file may have rotted since it was added.
    package func checkBootstrap(_ image: StoredImage) throws(StoreError) {
        try Self.withMapped(image.bootstrapPath) { map throws(StoreError) in
            let found = SHA256.hash(map)
            guard found == image.digests.bootstrap else {
                throw StoreError(
                    .digestMismatch,
                    "bootstrap of \(image.digest) hashes to \(found), expected "
                        + "\(image.digests.bootstrap): remove the image and mount it again", errno: EIO)
            }
        }
    }

    /// Removes an image that is not mounted, and the blobs that no other image names. Returns the blobs that went, for
    /// their marks and kept descriptors to go too, and the bytes of bootstrap and resident chunks that went with them.
    package func remove(_ digest: Digest) throws(StoreError) -> (blobs: [Blob], bytes: UInt64) {
        let image = try image(digest)
        var needed: Set<ResidencyMap.Key> = []
        for other in try imageDigests() where other != digest {
            // An image that does not load keeps nothing alive: it would be refused at mount, and fetched again.
            if let loaded = try? self.image(other) { needed.formUnion(loaded.digests.blobs) }
        }
        try attempt("remove image \(digest)") { () throws(SystemError) in
            try Directory.removeFlat(imageDirectory(digest))
        }
        var gone: [Blob] = []
        var bytes = image.bootstrapSize
        for blob in image.blobs where !needed.contains(blob.key) && !gone.contains(where: { $0.key == blob.key }) {
            bytes += blob.residentBytes
            blobs.withLock { _ = $0.removeValue(forKey: blob.key) }
            try attempt("remove blob \(blob.key.blob)") { () throws(SystemError) in
                try Directory.removeFlat(blobDirectory(blob.key))
            }
            gone.append(blob)
        }
        return (gone, bytes)
    }

    // MARK: Blobs

    /// All blobs that are open, in key order.
    package var openBlobs: [Blob] {
        blobs.withLock { $0.values.sorted { ($0.key.blob, $0.key.index) < ($1.key.blob, $1.key.index) } }
    }

    private func blob(_ key: ResidencyMap.Key) throws(StoreError) -> Blob {
        if let open = blobs.withLock({ $0[key] }) { return open }
        let path = blobDirectory(key)
        let (name, readerName) = (Self.keptName(key), Self.keptReaderName(key))
        let directory = try attempt("open blob \(key.blob)") { () throws(SystemError) in try Directory.open(path) }
        let blob = try Blob(
            directory: directory, path: path, key: key, kept: kept.withLock { ($0[name], $0[readerName]) })
        try attempt("hand blob \(key.blob) to the keeper") { () throws(SystemError) in
            try keep(name, blob.data)
            try keep(readerName, blob.reader)
        }
        return blobs.withLock { table in
            // Two threads may have opened it at once: the first in the table is the one that counts.
            if let first = table[key] { return first }
            table[key] = blob
            return blob
        }
    }

    /// Makes a blob's directory unless it is there and whole; returns the blob's raw size.
    private func addBlob(_ key: ResidencyMap.Key, index: File) throws(StoreError) -> UInt64 {
        if let open = blobs.withLock({ $0[key] }) { return open.boundaries.rawSize }
        let path = blobDirectory(key)
        if Directory.exists(path) {
            do throws(StoreError) {
                return try blob(key).boundaries.rawSize
            } catch  where error.code == .newerFormat { throw error } catch {
                // Damaged and not open, so nothing is mounted on it: start it over below.
            }
        }
        let temporary = "\(root)/blobs/.new-\(Self.directoryName(key))"
        try attempt("add blob \(key.blob)") { () throws(SystemError) in
            try Directory.removeFlat(temporary)
            try Directory.create(temporary, mode: 0o700)
        }
        try Self.copyChecked(
            index, to: temporary + "/index.caibx", limit: Limits.maxChunkIndexSize, digest: key.index)
        let stored = try attempt("add blob \(key.blob)") { () throws(SystemError) in
            try File(path: temporary + "/index.caibx", flags: O_RDONLY)
        }
        let decoded = try Blob.decodeIndex(stored, expecting: key.index)
        try attempt("add blob \(key.blob)") { () throws(SystemError) in
            let map = try File(path: temporary + "/map", flags: O_RDWR | O_CREAT | O_EXCL)
            try map.truncate(to: UInt64(2 * ResidencyMap.bankSize(chunkCount: decoded.count)))
            let data = try File(path: temporary + "/data", flags: O_RDWR | O_CREAT | O_EXCL)
            try data.truncate(to: Blob.backingSize(decoded.rawSize))
            try Directory.removeFlat(path)
            try Directory.rename(temporary, to: path)
        }
        return decoded.rawSize
    }
}
