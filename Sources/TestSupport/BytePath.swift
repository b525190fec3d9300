import Glibc
import LinuxSystem

/// A path as bytes: names in an image need not be UTF-8, and a `String` would change those that are not.
package struct BytePath: Hashable, Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    package init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }
    package init(_ string: String) { bytes = Array(string.utf8) }

    /// This path, a slash, and a name.
    package func appending(_ name: some Sequence<UInt8>) -> BytePath {
        BytePath(bytes + [UInt8(ascii: "/")] + Array(name))
    }

    package func appending(_ name: String) -> BytePath { appending(Array(name.utf8)) }

    /// With bytes that are no UTF-8, or would break a line, as `\xHH`.
    package var description: String {
        if let text = String(validating: bytes, as: UTF8.self), !bytes.contains(where: { $0 < 0x20 }) { return text }
        return bytes.map { byte in
            (0x20..<0x7F).contains(byte) ? String(UnicodeScalar(byte)) : "\\x" + hex(byte)
        }.joined()
    }

    private func hex(_ byte: UInt8) -> String {
        let text = String(byte, radix: 16)
        return text.count == 1 ? "0" + text : text
    }

    /// Calls `body` with the path as C wants it.
    package func withCString<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
        let characters = bytes.map { CChar(bitPattern: $0) } + [0]
        return characters.withUnsafeBufferPointer { buffer in
            // An array with the final zero is never empty, so it has a base address.
            body(buffer.baseAddress.unsafelyUnwrapped)
        }
    }

    /// A call on this path, its failure as an error that names call and path.
    @discardableResult
    package func calling<Value: FixedWidthInteger & SignedInteger>(
        _ call: String, _ body: (UnsafePointer<CChar>) -> Value
    ) throws(SystemError) -> Value {
        try retrying(call, description) { withCString(body) }
    }

    /// lstat(2).
    package func status() throws(SystemError) -> stat {
        var value = stat()
        try calling("lstat") { lstat($0, &value) }
        return value
    }

    package func open(_ flags: Int32, mode: mode_t = 0o644) throws(SystemError) -> File {
        File(owning: try calling("open") { Glibc.open($0, flags | O_CLOEXEC, mode) })
    }

    /// readlink(2), at most a page.
    package func readLink() throws(SystemError) -> [UInt8] {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = try calling("readlink") { readlink($0, &buffer, buffer.count) }
        return buffer[..<count].map { UInt8(bitPattern: $0) }
    }

    /// The names in this directory but `.` and `..`, in byte order.
    package func entries() throws(SystemError) -> [[UInt8]] {
        guard let directory = withCString({ opendir($0) }) else { throw SystemError(errno, "opendir", description) }
        defer { closedir(directory) }
        var names: [[UInt8]] = []
        while true {
            errno = 0
            guard let entry = readdir(directory) else {
                if errno != 0 { throw SystemError(errno, "readdir", description) }
                break
            }
            // d_name is a fixed array in Swift; the record's real name may end before it.
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: UInt8.self, capacity: 256) { bytes in
                    Array(UnsafeBufferPointer(start: bytes, count: 256).prefix { $0 != 0 })
                }
            }
            if name != Array(".".utf8) && name != Array("..".utf8) { names.append(name) }
        }
        return names.sorted { $0.lexicographicallyPrecedes($1) }
    }
}
