import Glibc
internal import LinuxSystem

/// Looks at every file of a tree without following links.
enum TreeWalk {
    /// Calls `visit` with the path and status of every file below and including `root`; directories come once, before
    /// their contents. Blocks. Iterative, and names are bytes: they need not be UTF-8.
    static func each(
        _ root: String, _ cancellation: Cancellation,
        _ visit: (_ path: [CChar], _ status: stat) throws(ImageBuildError) -> Void
    ) throws(ImageBuildError) {
        var directories: [[CChar]] = [Array(root.utf8CString)]
        var status = stat()
        guard lstat(root, &status) == 0 else { throw failure("lstat", directories[0]) }
        try visit(directories[0], status)
        while let directory = directories.popLast() {
            try cancellation.check()
            guard let stream = opendir(directory) else { throw failure("opendir", directory) }
            defer { closedir(stream) }
            while true {
                errno = 0
                guard let entry = readdir(stream) else {
                    if errno != 0 { throw failure("readdir", directory) }
                    break
                }
                guard let path = child(entry, of: directory) else { continue }
                guard lstat(path, &status) == 0 else { throw failure("lstat", path) }
                try visit(path, status)
                if status.st_mode & S_IFMT == S_IFDIR { directories.append(path) }
            }
        }
    }

    /// The path of a directory entry; nil for `.` and `..`.
    private static func child(_ entry: UnsafeMutablePointer<dirent>, of directory: [CChar]) -> [CChar]? {
        // d_name is a fixed array in Swift; the name ends at its NUL, which a record always has.
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
            raw.prefix { $0 != 0 }.map { CChar(bitPattern: $0) }
        }
        let dot = CChar(bitPattern: UInt8(ascii: "."))
        if name == [dot] || name == [dot, dot] { return nil }
        return directory.dropLast() + [CChar(bitPattern: UInt8(ascii: "/"))] + name + [0]
    }

    /// What is known of a tree before it is formatted.
    struct Survey: Sendable {
        /// Bytes of all regular files, each name of a file counted.
        var fileBytes: UInt64 = 0
        /// A file whose name has 255 bytes, which mkfs.erofs up to 1.8 cuts to 254 (`erofs_d_alloc`).
        var longName: String?
    }

    static func survey(_ root: String, _ cancellation: Cancellation) throws(ImageBuildError) -> Survey {
        var out = Survey()
        try each(root, cancellation) { path, status in
            if status.st_mode & S_IFMT == S_IFREG { out.fileBytes += UInt64(status.st_size) }
            let nameSize = path.dropLast().reversed().prefix { $0 != CChar(bitPattern: UInt8(ascii: "/")) }.count
            if nameSize >= 255, out.longName == nil { out.longName = text(path) }
        }
        return out
    }

    /// Sets the mtime of directories that were modified at or after `start` to 0. Directories that a layer implies but
    /// does not list are made with the clock's time, which would make every build different.
    static func clearDirectoryTimes(
        _ root: String, since start: timespec, _ cancellation: Cancellation
    ) throws(ImageBuildError) {
        try each(root, cancellation) { path, status throws(ImageBuildError) in
            guard status.st_mode & S_IFMT == S_IFDIR, !precedes(status.st_mtim, start) else { return }
            let times = [timespec(), timespec()]
            guard utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0 else { throw failure("utimensat", path) }
        }
    }

    private static func precedes(_ a: timespec, _ b: timespec) -> Bool {
        a.tv_sec == b.tv_sec ? a.tv_nsec < b.tv_nsec : a.tv_sec < b.tv_sec
    }

    private static func failure(_ call: String, _ path: [CChar]) -> ImageBuildError {
        ImageBuildError(.inputOutput, "cannot read the tree", cause: SystemError(errno, call, text(path)))
    }

    private static func text(_ path: [CChar]) -> String {
        String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
