import LinuxSystem

/// Why the store refuses an image or a chunk.
package struct StoreError: Error, CustomStringConvertible, Sendable {
    /// Bounded, for metric labels and wire errnos.
    package enum Code: String, Sendable {
        case system, digestMismatch, manifestMismatch, invalidIndex, invalidBootstrap, unsupportedFileSystem
        case newerFormat, notFound, busy, limit
    }

    package let code: Code
    /// What, where, expected and found.
    package let message: String
    /// The errno behind `system`; a fitting one otherwise (for the wire).
    package let errno: Int32

    package init(_ code: Code, _ message: String, errno: Int32) {
        self.code = code
        self.message = message
        self.errno = errno
    }

    /// A failed system call, with what was being done.
    package init(_ error: SystemError, _ doing: String) {
        self.init(.system, "\(doing): \(error)", errno: error.errno)
    }

    package var description: String { message }
}

/// Runs system calls; a failure says what was being done.
func attempt<Result: ~Copyable>(
    _ doing: @autoclosure () -> String, _ body: () throws(SystemError) -> Result
) throws(StoreError) -> Result {
    do throws(SystemError) { return try body() } catch { throw StoreError(error, doing()) }
}
