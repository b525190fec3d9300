import ChunkModel
import ChunkStore
import Glibc
import LinuxSystem

/// What is known of earlier lives of the gate on this node: `<state>/gate/epoch`.
struct Epoch: Equatable {
    /// Counts starts at which no descriptor had been kept.
    var number: UInt64

    private static func path(_ root: String) -> String { root + "/epoch" }

    /// Reads the last epoch and writes the next.
    static func begin(root: String) throws(SystemError) -> Epoch {
        var last: UInt64 = 0
        if Directory.exists(path(root)) {
            let text = String(
                decoding: try File(path: path(root), flags: O_RDONLY | O_NOFOLLOW).contents(limit: 64), as: UTF8.self)
            last = UInt64(text.prefix { $0.isNumber }) ?? 0
        }
        let next = Epoch(number: last + 1)
        try Directory.replaceFile(path(root), Array("\(next.number)\n".utf8))
        return next
    }

    /// The epoch that goes on (the keeper had the groups).
    static func current(root: String) -> Epoch {
        let bytes = (try? File(path: path(root), flags: O_RDONLY | O_NOFOLLOW).contents(limit: 64)) ?? []
        return Epoch(number: UInt64(String(decoding: bytes, as: UTF8.self).prefix { $0.isNumber }) ?? 0)
    }
}

/// An image that was mounted and partly fetched while nobody held its group: readers in that time got zeros with
/// success (kernel-facts, law 3). It stays tainted until it is unmounted, and says so.
enum Taint {
    private static func marker(_ image: StoredImage) -> String { image.directory + "/tainted" }

    static func isSet(_ image: StoredImage) -> Bool { Directory.exists(marker(image)) }

    static func set(_ image: StoredImage) throws(SystemError) {
        try Directory.replaceFile(marker(image), Array("the gate was away while this image was mounted\n".utf8))
    }

    static func clear(_ image: StoredImage) throws(SystemError) {
        guard isSet(image) else { return }
        try retrying("unlink", marker(image)) { unlink(marker(image)) }
    }

    /// Files looked at when caches are dropped; a larger tree keeps its last files' caches, and stays tainted anyway.
    private static let maxFiles = 1_000_000

    /// Drops the page cache of every file of a mount, where zeros may stand for absent chunks. Pages somebody has
    /// mapped stay: that is why the image is tainted.
    static func dropCaches(_ root: String) {
        var directories = [root]
        var files = 0
        while let path = directories.popLast(), files < maxFiles {
            // A directory that cannot be read has no cache worth dropping.
            for name in (try? Directory.names(path)) ?? [] {
                let child = path + "/" + name
                var value = stat()
                guard lstat(child, &value) == 0 else { continue }
                if value.st_mode & S_IFMT == S_IFDIR { directories.append(child) }
                guard value.st_mode & S_IFMT == S_IFREG, let file = try? File(path: child, flags: O_RDONLY) else {
                    continue
                }
                files += 1
                posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            }
        }
    }
}
