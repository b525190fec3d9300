import ChunkModel
import Glibc
import Integrity
import LinuxSystem

extension Store {
    static func writeNew(_ path: String, _ bytes: [UInt8]) throws(SystemError) {
        let file = try File(path: path, flags: O_WRONLY | O_CREAT | O_EXCL)
        try file.writeAll(bytes, at: 0)
    }

    /// Copies at most `limit` bytes and hashes exactly what was written, from a buffer only this process can change.
    static func copyChecked(_ source: File, to path: String, limit: Int, digest: Digest) throws(StoreError) {
        let step = 256 << 10
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: step, alignment: 4096)
        defer { buffer.deallocate() }
        var hasher = SHA256()
        try attempt("copy \(digest)") { () throws(SystemError) in
            let target = try File(path: path, flags: O_WRONLY | O_CREAT | O_EXCL)
            var offset: UInt64 = 0
            while true {
                let count = try source.readAll(into: buffer, at: offset)
                if count == 0 { break }
                guard offset + UInt64(count) <= UInt64(limit) else {
                    throw SystemError(EFBIG, "read", "more than \(limit) bytes for \(path)")
                }
                let part = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                hasher.update(part)
                try target.writeAll(part, at: offset)
                offset += UInt64(count)
            }
        }
        let found = hasher.finalize()
        guard found == digest else {
            throw StoreError(.digestMismatch, "file for \(path) hashes to \(found), expected \(digest)", errno: EIO)
        }
    }

    /// Maps a file of ours for reading. The directory is root's alone, so nobody truncates it meanwhile.
    static func withMapped(
        _ path: String, _ body: (UnsafeRawBufferPointer) throws(StoreError) -> Void
    ) throws(StoreError) {
        let (file, size) = try attempt("open \(path)") { () throws(SystemError) in
            let file = try File(path: path, flags: O_RDONLY | O_NOFOLLOW)
            return (file, Int(try file.size()))
        }
        guard size > 0, let map = mmap(nil, size, PROT_READ, MAP_PRIVATE, file.descriptor, 0), map != MAP_FAILED else {
            throw StoreError(SystemError(size == 0 ? EINVAL : errno, "mmap", path), "map \(path)")
        }
        defer { munmap(map, size) }
        try body(UnsafeRawBufferPointer(start: map, count: size))
    }
}
