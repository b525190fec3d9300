/// What a walk of a bootstrap found: the figures `inspect` shows.
package struct BootstrapSummary: Equatable, Sendable {
    /// Inodes by type; a file with several names counts once.
    package var regularFiles = 0
    package var directories = 0
    package var symlinks = 0
    /// Character and block devices, FIFOs, sockets.
    package var specialFiles = 0
    /// Names of files other than `.` and `..`.
    package var names = 0
    /// Bytes of regular files as stat(2) tells them, holes included.
    package var fileBytes: UInt64 = 0
    /// Entries of all chunk tables, holes included.
    package var extents = 0

    package init() {}

    package var inodes: Int { regularFiles + directories + symlinks + specialFiles }
}

/// A stretch of one file's data on one device.
package struct DataRun: Equatable, Sendable {
    /// From 1; 0 is the bootstrap.
    package var device: Int
    /// In bytes; starts on a block boundary.
    package var range: Range<UInt64>

    package init(device: Int, range: Range<UInt64>) {
        self.device = device
        self.range = range
    }
}
