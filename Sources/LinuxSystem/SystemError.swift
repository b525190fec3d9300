import Glibc

/// A system call that failed: which, on what, and the kernel's errno.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    /// The kernel's error number.
    package let errno: Int32
    /// The call, as in its man page: `pwrite`, `fanotify_mark`.
    package let call: String
    /// What it was applied to: a path, a key. Empty when there is nothing to say.
    package let subject: String

    package init(_ errno: Int32, _ call: String, _ subject: String = "") {
        self.errno = errno
        self.call = call
        self.subject = subject
    }

    /// The symbolic name, `ENOSPC`; a bounded label for metrics. Unlisted numbers are `E<number>`.
    package var name: String { Self.names[errno] ?? "E\(errno)" }

    package var description: String {
        let text = String(cString: strerror(errno))
        return subject.isEmpty ? "\(call): \(text) (\(name))" : "\(call) \(subject): \(text) (\(name))"
    }

    private static let names: [Int32: String] = [
        EPERM: "EPERM", ENOENT: "ENOENT", EIO: "EIO", EBADF: "EBADF", EAGAIN: "EAGAIN", ENOMEM: "ENOMEM",
        EACCES: "EACCES", EBUSY: "EBUSY", EEXIST: "EEXIST", ENODEV: "ENODEV", ENOTDIR: "ENOTDIR", EISDIR: "EISDIR",
        EINVAL: "EINVAL", EMFILE: "EMFILE", ENFILE: "ENFILE", ETXTBSY: "ETXTBSY", EFBIG: "EFBIG", ENOSPC: "ENOSPC",
        EROFS: "EROFS", EPIPE: "EPIPE", ENAMETOOLONG: "ENAMETOOLONG", ELOOP: "ELOOP", EXDEV: "EXDEV",
        EOPNOTSUPP: "EOPNOTSUPP", EDQUOT: "EDQUOT", ECONNREFUSED: "ECONNREFUSED", ECONNRESET: "ECONNRESET",
        ETIMEDOUT: "ETIMEDOUT", ENOTBLK: "ENOTBLK", ENOSYS: "ENOSYS", EPROTO: "EPROTO", EADDRINUSE: "EADDRINUSE",
    ]
}

/// Runs a call that returns -1 on failure, again on EINTR. EBADF and EFAULT are bugs of ours and trap.
@discardableResult @inline(__always)
package func retrying<Value: FixedWidthInteger & SignedInteger>(
    _ call: String, _ subject: @autoclosure () -> String = "", _ body: () -> Value
) throws(SystemError) -> Value {
    while true {
        let value = body()
        if value >= 0 { return value }
        let code = errno
        switch code {
        case EINTR: continue
        case EBADF, EFAULT: fatalError("\(call) \(subject()): errno \(code), a bug in this program")
        default: throw SystemError(code, call, subject())
        }
    }
}
