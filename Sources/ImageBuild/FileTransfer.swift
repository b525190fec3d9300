internal import ChunkModel
import Glibc
internal import Integrity
internal import LinuxSystem

/// Reading and copying files with their digest. Everything here blocks: only from `onThread`.
enum FileTransfer {
    /// Bytes read at once: large enough that system calls do not count.
    static let pieceSize = 1 << 20

    /// Reads a file in pieces, in order.
    static func each(
        _ file: File, _ cancellation: Cancellation, _ take: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceSize, alignment: 4096)
        defer { buffer.deallocate() }
        var offset: UInt64 = 0
        while true {
            try cancellation.check()
            let count = try file.readAll(into: buffer, at: offset)
            guard count > 0 else { return }
            try take(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            offset += UInt64(count)
            if count < buffer.count { return }
        }
    }

    /// SHA-256 and size of a whole file.
    static func digest(
        of path: String, _ cancellation: Cancellation
    ) throws -> (digest: Digest, size: UInt64) {
        var hasher = SHA256()
        var size: UInt64 = 0
        try each(try File(path: path, flags: O_RDONLY), cancellation) { piece in
            hasher.update(piece)
            size += UInt64(piece.count)
        }
        return (hasher.finalize(), size)
    }

    /// Copies a file, which must have this digest and size.
    static func copy(
        from source: String, to target: String, expecting digest: Digest, size: UInt64, _ cancellation: Cancellation,
        _ progress: (UInt64) -> Void
    ) throws {
        var hasher = SHA256()
        let output = try File(path: target, flags: O_WRONLY | O_CREAT | O_TRUNC)
        var done: UInt64 = 0
        try each(try File(path: source, flags: O_RDONLY), cancellation) { piece in
            hasher.update(piece)
            try output.writeAll(piece, at: done)
            done += UInt64(piece.count)
            guard done <= size else { return }
            progress(done)
        }
        let found = hasher.finalize()
        guard done == size, found == digest else {
            throw ImageBuildError(
                .corruptSource, "\(source): expected \(size) bytes with \(digest), found \(done) with \(found)")
        }
    }

    /// Writes a new file.
    static func write(_ bytes: [UInt8], to path: String) throws(SystemError) {
        let file = try File(path: path, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        var failure: SystemError?
        bytes.withUnsafeBytes { raw in
            do throws(SystemError) { try file.writeAll(raw, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}
