import CLinux
import Glibc

/// An open file descriptor that is closed when its last owner goes.
///
/// A class so that it can be shared between threads; every operation is one system call and thread-safe.
package final class File: Sendable {
    /// The number; valid as long as this object lives.
    package let descriptor: Int32

    /// Takes ownership of an open descriptor.
    package init(owning descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// Opens a path, with O_CLOEXEC. `flags` as in open(2).
    package convenience init(path: String, flags: Int32, mode: mode_t = 0o600) throws(SystemError) {
        self.init(owning: try retrying("open", path) { clinux_open(path, flags, mode) })
    }

    /// Opens beneath `directory` without following any symbolic link (openat2(2)), with O_CLOEXEC.
    package convenience init(
        beneath directory: File, _ path: String, flags: Int32, mode: mode_t = 0o600
    ) throws(SystemError) {
        let descriptor = try retrying("openat2", path) {
            clinux_open_beneath(directory.descriptor, path, flags, mode)
        }
        self.init(owning: descriptor)
    }

    /// An anonymous memory file; `sealable` allows `seal`.
    package static func memory(name: String, size: Int = 0) throws(SystemError) -> File {
        let file = File(
            owning: try retrying("memfd_create", name) {
                clinux_memfd(name, CLINUX_MFD_CLOEXEC | CLINUX_MFD_ALLOW_SEALING)
            })
        if size > 0 { try file.truncate(to: UInt64(size)) }
        return file
    }

    /// A memory file with these bytes, sealed against every change: what may be handed to another process for good.
    package static func sealed(name: String, _ bytes: UnsafeRawBufferPointer) throws(SystemError) -> File {
        let file = try memory(name: name)
        try file.writeAll(bytes, at: 0)
        try file.seal(CLINUX_SEAL_WRITE | CLINUX_SEAL_GROW | CLINUX_SEAL_SHRINK | CLINUX_SEAL_SEAL)
        return file
    }

    package func seal(_ seals: Int32) throws(SystemError) {
        try retrying("fcntl F_ADD_SEALS") { clinux_add_seals(descriptor, seals) }
    }

    /// The memfd's seals; 0 for a file that cannot have any.
    package var seals: Int32 { max(0, clinux_get_seals(descriptor)) }

    package func truncate(to size: UInt64) throws(SystemError) {
        try retrying("ftruncate") { ftruncate(descriptor, off_t(size)) }
    }

    package func status() throws(SystemError) -> stat {
        var value = stat()
        try retrying("fstat") { fstat(descriptor, &value) }
        return value
    }

    /// Size in bytes.
    package func size() throws(SystemError) -> UInt64 { UInt64(try status().st_size) }

    /// Last modification, in seconds since 1970.
    package func modificationSeconds() throws(SystemError) -> Int { try status().st_mtim.tv_sec }

    /// Reads until the buffer is full or the file ends; returns the bytes read.
    package func readAll(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            let count = try retrying("pread") {
                let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
                return pread(descriptor, rest.baseAddress, rest.count, off_t(offset) + off_t(done))
            }
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// Writes all bytes or throws; a short write is continued.
    package func writeAll(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            done += try retrying("pwrite") {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
                return pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset) + off_t(done))
            }
        }
    }

    /// The whole file, at most `limit` bytes: EFBIG beyond that.
    package func contents(limit: Int) throws(SystemError) -> [UInt8] {
        let size = try size()
        guard size <= UInt64(limit) else { throw SystemError(EFBIG, "read", "\(size) bytes, limit \(limit)") }
        return try bytes(at: 0, count: Int(size))
    }

    /// Up to `count` bytes from `offset`; fewer only at the end of the file.
    package func bytes(at offset: UInt64, count: Int) throws(SystemError) -> [UInt8] {
        var failure: SystemError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            do throws(SystemError) {
                used = try readAll(into: UnsafeMutableRawBufferPointer(buffer), at: offset)
            } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Writes all of an array; see `writeAll(_:at:)`.
    package func writeAll(_ bytes: [UInt8], at offset: UInt64) throws(SystemError) {
        var failure: SystemError?
        bytes.withUnsafeBytes { raw in
            do throws(SystemError) { try writeAll(raw, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Shares extents with another file where the file system can (FICLONERANGE); false where it cannot.
    package func cloneRange(from source: File, at offset: UInt64, to target: UInt64, count: UInt64) -> Bool {
        clinux_clone_range(descriptor, target, source.descriptor, offset, count) == 0
    }

    package func dataSync() throws(SystemError) {
        try retrying("fdatasync") { fdatasync(descriptor) }
    }

    package func sync() throws(SystemError) {
        try retrying("fsync") { fsync(descriptor) }
    }

    /// Has the kernel forget the file's clean pages; dirty ones begin to be written (posix_fadvise(2)).
    package func dropCache() { posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

    /// The file system behind this file, as statfs(2)'s magic.
    package func fileSystem() throws(SystemError) -> FileSystemKind {
        FileSystemKind(magic: try retrying("fstatfs") { clinux_fs_magic(descriptor) })
    }
}

/// A file's identity in the kernel: device and inode number.
package struct FileIdentity: Hashable, Sendable {
    package let device: UInt64
    package let inode: UInt64

    package init(device: UInt64, inode: UInt64) {
        self.device = device
        self.inode = inode
    }

    /// The identity behind a descriptor number. One system call, no allocation.
    package init(descriptor: Int32) throws(SystemError) {
        var value = stat()
        try retrying("fstat") { fstat(descriptor, &value) }
        self.init(device: UInt64(value.st_dev), inode: UInt64(value.st_ino))
    }
}

/// A file system type by statfs(2)'s magic.
package enum FileSystemKind: Equatable, Sendable, CustomStringConvertible {
    case ext4, xfs, btrfs, tmpfs, overlayfs, erofs
    case other(magic: Int)

    package init(magic: Int) {
        switch magic {
        case 0xEF53: self = .ext4
        case 0x5846_5342: self = .xfs
        case 0x9123_683E: self = .btrfs
        case 0x0102_1994: self = .tmpfs
        case 0x794C_7630: self = .overlayfs
        case 0xE0F5_E1E2: self = .erofs
        default: self = .other(magic: magic)
        }
    }

    /// Whether pre-content marks work on it (kernel: FS_ALLOW_HSM; ext4, xfs and btrfs as of 6.18).
    package var carriesPreContentMarks: Bool { [.ext4, .xfs, .btrfs].contains(self) }

    package var description: String {
        switch self {
        case .ext4: "ext4"
        case .xfs: "xfs"
        case .btrfs: "btrfs"
        case .tmpfs: "tmpfs"
        case .overlayfs: "overlayfs"
        case .erofs: "erofs"
        case .other(let magic): "file system 0x" + String(magic, radix: 16)
        }
    }
}
