import Glibc
import TestSupport

/// An open file that is closed when the value is released.
final class OpenFile: Sendable {
    let number: Int32

    init(_ path: String) throws {
        number = open(path, O_RDONLY | O_CLOEXEC)
        guard number >= 0 else { throw FixtureError("open \(path): errno \(errno)") }
    }

    deinit { close(number) }
}
