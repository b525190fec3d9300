import CLinux
import Glibc

/// Listening unix sockets of type SOCK_STREAM, as descriptors that other processes can take over.
package enum StreamListener {
    /// Connections that wait while nobody accepts, unix(7): further ones are refused with EAGAIN.
    package static let backlog: Int32 = 128

    /// Binds a path, where nothing may be yet, and listens. The path is for our own user and root.
    package static func listen(path: String) throws(SystemError) -> File {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let file = File(owning: try retrying("socket") { socket(AF_UNIX, type, 0) })
        try PacketSocket.withAddress(path) { address, length throws(SystemError) in
            try retrying("bind", path) { bind(file.descriptor, address, length) }
        }
        // Nobody can connect before `listen`.
        try retrying("chmod", path) { chmod(path, 0o600) }
        try retrying("listen", path) { Glibc.listen(file.descriptor, backlog) }
        return file
    }

    /// Whether a descriptor is a unix stream socket that listens.
    package static func isListening(_ file: File) -> Bool {
        option(SO_DOMAIN, of: file) == AF_UNIX && option(SO_TYPE, of: file) == Int32(SOCK_STREAM.rawValue)
            && option(SO_ACCEPTCONN, of: file) == 1
    }

    /// Whether a unix socket was bound to a path and a socket is still there. (Another one in its place is not told apart.)
    package static func isFound(_ file: File, at path: String) -> Bool {
        var status = stat()
        return self.path(of: file) == path && lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }

    /// The path a unix socket was bound to; nil for any other descriptor.
    private static func path(of file: File) -> String? {
        guard option(SO_DOMAIN, of: file) == AF_UNIX else { return nil }
        var address = sockaddr_un()
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let status = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(file.descriptor, $0, &length) }
        }
        guard status == 0 else { return nil }
        return withUnsafeBytes(of: &address.sun_path) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    /// A second descriptor of the same socket.
    package static func duplicate(_ file: File) throws(SystemError) -> Int32 {
        try retrying("fcntl F_DUPFD_CLOEXEC") { fcntl(file.descriptor, F_DUPFD_CLOEXEC, 3) }
    }

    private static func option(_ name: Int32, of file: File) -> Int32? {
        var value: Int32 = -1
        var length = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(file.descriptor, SOL_SOCKET, name, &value, &length) == 0 ? value : nil
    }
}
