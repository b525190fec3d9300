import Glibc
import TestSupport

/// An open file that is closed when the value is released.
final class OpenFile: Sendable {
    let number: Int32

    init(_ path: String, writable: Bool = false) throws {
        number = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC)
        guard number >= 0 else { throw FixtureError("open \(path): errno \(errno)") }
    }

    deinit { close(number) }

    /// Inverts the lowest bit of one byte.
    func flip(at offset: Int) {
        var byte: UInt8 = 0
        guard pread(number, &byte, 1, offset) == 1 else { return }
        byte ^= 1
        _ = pwrite(number, &byte, 1, offset)
    }

    func contents() -> [UInt8] {
        var size = stat()
        guard fstat(number, &size) == 0 else { return [] }
        var out = [UInt8](repeating: 0, count: Int(size.st_size))
        return pread(number, &out, out.count, 0) == out.count ? out : []
    }
}
