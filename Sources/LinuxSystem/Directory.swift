import CLinux
import Glibc

/// Operations on directories and paths.
package enum Directory {
    /// Creates a directory; one that exists is fine. The mode is set either way when this process owns it.
    package static func create(_ path: String, mode: mode_t) throws(SystemError) {
        do throws(SystemError) {
            try retrying("mkdir", path) { mkdir(path, mode) }
        } catch  where error.errno == EEXIST {}
        let file = try open(path)
        try retrying("fchmod", path) { fchmod(file.descriptor, mode) }
    }

    /// Opens a directory itself (no symbolic link).
    package static func open(_ path: String) throws(SystemError) -> File {
        try File(path: path, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    }

    /// Opens a directory beneath another.
    package static func open(_ name: String, beneath directory: File) throws(SystemError) -> File {
        try File(beneath: directory, name, flags: O_RDONLY | O_DIRECTORY)
    }

    /// Names in a directory, sorted, without `.` and `..`.
    package static func names(_ path: String) throws(SystemError) -> [String] {
        guard let stream = opendir(path) else { throw SystemError(errno, "opendir", path) }
        defer { closedir(stream) }
        var out: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { out.append(name) }
        }
        return out.sorted()
    }

    /// Whether something is at `path` (a symbolic link counts, not its target).
    package static func exists(_ path: String) -> Bool {
        var value = stat()
        return lstat(path, &value) == 0
    }

    /// Removes a directory and the files in it, one level of subdirectories deep: the store has no more. Never
    /// crosses into a mount (rmdir of a mount point fails with EBUSY). What is gone already is fine.
    package static func removeFlat(_ path: String) throws(SystemError) {
        guard exists(path) else { return }
        for name in try names(path) {
            let child = path + "/" + name
            if unlink(child) == 0 { continue }
            if errno == ENOENT { continue }
            try retrying("rmdir", child) { rmdir(child) }
        }
        try retrying("rmdir", path) { rmdir(path) }
    }

    package static func rename(_ from: String, to: String) throws(SystemError) {
        try retrying("rename", "\(from) to \(to)") { Glibc.rename(from, to) }
    }

    /// Writes a small file whole: temporary name, fsync, rename.
    package static func replaceFile(_ path: String, _ bytes: [UInt8], mode: mode_t = 0o600) throws(SystemError) {
        let temporary = path + ".new"
        let file = try File(path: temporary, flags: O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: mode)
        try file.writeAll(bytes, at: 0)
        try file.sync()
        try rename(temporary, to: path)
    }

    /// Free bytes for unprivileged users and the file system's total.
    package static func space(_ path: String) throws(SystemError) -> (free: UInt64, total: UInt64) {
        var value = statvfs()
        try retrying("statvfs", path) { statvfs(path, &value) }
        let unit = UInt64(value.f_frsize)
        return (UInt64(value.f_bavail) * unit, UInt64(value.f_blocks) * unit)
    }
}
