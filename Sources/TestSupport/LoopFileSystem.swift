import Glibc
import LinuxSystem

/// A small file system of a given type in a sparse file, mounted by a loop device: what runs full, and what a cache on
/// another file system than the machine's own is tried on. Unmounted and removed when the last owner goes.
package final class LoopFileSystem: Sendable {
    package enum Kind: String, CaseIterable, Sendable {
        case ext4, xfs, btrfs

        /// The least that mkfs accepts, in bytes, rounded up.
        package var smallestSize: Int {
            switch self {
            case .ext4: 8 << 20
            case .xfs: 300 << 20
            case .btrfs: 128 << 20
            }
        }

        /// Arguments of mkfs: no questions, no words.
        var quietly: [String] {
            switch self {
            case .ext4: ["-q", "-F"]
            case .xfs, .btrfs: ["-q", "-f"]
            }
        }
    }

    /// Where it is mounted.
    package let path: String
    private let scratch: ScratchDirectory

    /// Makes and mounts one of `size` bytes.
    package init(_ kind: Kind, size: Int) throws {
        scratch = try ScratchDirectory("loop-\(kind.rawValue)")
        let image = scratch.appending("image")
        try File(path: image, flags: O_CREAT | O_RDWR).truncate(to: UInt64(max(size, kind.smallestSize)))
        path = try scratch.makeDirectory("mounted")
        try Command("mkfs." + kind.rawValue, kind.quietly + [image]).require()
        try Command.run("mount", "-o", "loop", image, path)
    }

    /// Bytes a user could still write.
    package func availableBytes() throws(SystemError) -> UInt64 {
        var status = statvfs()
        try retrying("statvfs", path) { statvfs(path, &status) }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }
}
