import Glibc
import LinuxSystem

/// What a tree takes of its disk.
struct TreeUsage: TreeVisitor {
    /// Blocks that are allocated, in bytes.
    private(set) var bytes: UInt64 = 0
    private(set) var inodes: UInt64 = 0
    private let device: dev_t
    private var linked: Set<FileIdentity> = []
    private var failure: SystemError?

    /// Inodes with many names that are remembered: 262,144 × about 32 bytes. Names of further ones count each.
    private static let maxLinked = 1 << 18
    /// Directories in directories: 65,536 × about 300 bytes.
    private static let maxDepth = 1 << 16

    /// Measures a directory and all in it. Somebody may be changing it: what goes meanwhile does not count.
    static func measure(_ root: File) throws(SystemError) -> (bytes: UInt64, inodes: UInt64) {
        let status = try root.status()
        var usage = TreeUsage(device: status.st_dev)
        usage.count(status)
        try TreeWalk.walk(root, &usage)
        if let failure = usage.failure { throw failure }
        return (usage.bytes, usage.inodes)
    }

    private init(device: dev_t) { self.device = device }

    private mutating func count(_ status: stat) {
        bytes += UInt64(status.st_blocks) * 512
        inodes += 1
    }

    mutating func visit(_ name: EntryName, isDirectory: Bool, in directory: Int32, depth: Int) -> Bool {
        var status = stat()
        do throws(SystemError) {
            try retrying("fstatat") { fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) }
        } catch {
            failed(error)
            return false
        }
        let isDirectory = status.st_mode & S_IFMT == S_IFDIR
        if isDirectory && status.st_dev != device { return false }
        if !isDirectory && status.st_nlink > 1 {
            let identity = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
            if linked.contains(identity) { return false }
            if linked.count < Self.maxLinked { linked.insert(identity) }
        }
        count(status)
        guard isDirectory else { return false }
        if depth == Self.maxDepth - 1 {
            failed(SystemError(ENAMETOOLONG, "measure", "more than \(Self.maxDepth) directories in one another"))
            return false
        }
        return true
    }

    mutating func leave(_ name: EntryName, in directory: Int32) {}

    /// What was removed or replaced since it was listed is no failure (openat2 says ELOOP for a new link, EXDEV for a
    /// new mount).
    mutating func failed(_ error: SystemError) {
        if [ENOENT, ENOTDIR, ELOOP, EXDEV].contains(error.errno) { return }
        failure = failure ?? error
    }
}
