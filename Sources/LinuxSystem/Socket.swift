import CLinux
import Glibc

/// A SOCK_SEQPACKET unix socket: one frame a message, descriptors beside it. Every call is thread-safe; frames of
/// concurrent senders do not mix.
package final class PacketSocket: Sendable {
    package let file: File

    package init(owning file: File) { self.file = file }

    /// A received message.
    package struct Message: Sendable {
        package var bytes: [UInt8]
        package var descriptors: [File]
    }

    /// The peer's process and user as the kernel saw them at connect (SO_PEERCRED, unix(7)).
    package struct Peer: Sendable, Equatable {
        package var pid: Int32
        package var uid: UInt32
        package var gid: UInt32
    }

    /// Connects to a listening path.
    package static func connect(path: String) throws(SystemError) -> PacketSocket {
        let file = try make()
        try withAddress(path) { address, length throws(SystemError) in
            try retrying("connect", path) { Glibc.connect(file.descriptor, address, length) }
        }
        return PacketSocket(owning: file)
    }

    /// Listens at a path (an existing socket file is replaced) with the given mode.
    package static func listen(path: String, mode: mode_t) throws(SystemError) -> PacketSocket {
        let file = try make()
        unlink(path)
        try withAddress(path) { address, length throws(SystemError) in
            try retrying("bind", path) { bind(file.descriptor, address, length) }
        }
        try retrying("chmod", path) { chmod(path, mode) }
        try retrying("listen", path) { Glibc.listen(file.descriptor, 16) }
        return PacketSocket(owning: file)
    }

    /// Two connected ends.
    package static func pair() throws(SystemError) -> (PacketSocket, PacketSocket) {
        var ends: [Int32] = [-1, -1]
        try retrying("socketpair") { socketpair(AF_UNIX, type, 0, &ends) }
        return (PacketSocket(owning: File(owning: ends[0])), PacketSocket(owning: File(owning: ends[1])))
    }

    /// Waits for and takes one connection.
    package func accept() throws(SystemError) -> PacketSocket {
        let descriptor = try retrying("accept") {
            clinux_accept(file.descriptor)
        }
        return PacketSocket(owning: File(owning: descriptor))
    }

    package func peer() throws(SystemError) -> Peer {
        var peer = Peer(pid: 0, uid: 0, gid: 0)
        try retrying("getsockopt SO_PEERCRED") {
            clinux_peer_credentials(file.descriptor, &peer.pid, &peer.uid, &peer.gid)
        }
        return peer
    }

    /// Sends one message; blocks while the peer's queue is full. EPIPE when the peer is gone.
    package func send(_ bytes: [UInt8], descriptors: [File] = []) throws(SystemError) {
        let numbers = descriptors.map(\.descriptor)
        try retrying("sendmsg") {
            bytes.withUnsafeBytes {
                clinux_send(file.descriptor, $0.baseAddress, $0.count, numbers, Int32(numbers.count), 0)
            }
        }
    }

    /// Sends one message if the peer's queue takes it now; false when it is full.
    package func trySend(_ bytes: [UInt8], descriptors: [File] = []) throws(SystemError) -> Bool {
        let numbers = descriptors.map(\.descriptor)
        do throws(SystemError) {
            try retrying("sendmsg") {
                bytes.withUnsafeBytes {
                    clinux_send(
                        file.descriptor, $0.baseAddress, $0.count, numbers, Int32(numbers.count),
                        Int32(MSG_DONTWAIT))
                }
            }
            return true
        } catch {
            guard error.errno == EAGAIN else { throw error }
            return false
        }
    }

    /// Receives one message; nil when the peer closed. A message over `limit` bytes or with more than
    /// `maxDescriptors` is EMSGSIZE (its descriptors are closed).
    package func receive(limit: Int, maxDescriptors: Int = 0) throws(SystemError) -> Message? {
        var numbers = [Int32](repeating: -1, count: max(1, maxDescriptors))
        var count = Int32(maxDescriptors)
        var truncated: Int32 = 0
        var failure: SystemError?
        let bytes = [UInt8](unsafeUninitializedCapacity: limit) { buffer, used in
            do throws(SystemError) {
                used = try retrying("recvmsg") {
                    count = Int32(maxDescriptors)
                    return clinux_receive(file.descriptor, buffer.baseAddress, limit, &numbers, &count, &truncated, 0)
                }
            } catch { failure = error }
        }
        if let failure {
            if failure.errno == ECONNRESET { return nil }
            throw failure
        }
        let files = numbers.prefix(Int(count)).map { File(owning: $0) }
        if truncated != 0 { throw SystemError(EMSGSIZE, "recvmsg", "message over \(limit) bytes") }
        if bytes.isEmpty && files.isEmpty { return nil }
        return Message(bytes: bytes, descriptors: files)
    }

    /// Ends both directions, so that a thread blocked in `receive` or `accept` returns.
    package func shutdown() { _ = Glibc.shutdown(file.descriptor, Int32(SHUT_RDWR)) }

    /// Bounds every blocking send, in seconds (SO_SNDTIMEO): a stuck peer is an error, not a hang.
    package func setSendTimeout(seconds: Int) throws(SystemError) {
        var time = timeval(tv_sec: seconds, tv_usec: 0)
        try retrying("setsockopt SO_SNDTIMEO") {
            setsockopt(file.descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    /// Bounds every wait for a message, in seconds (SO_RCVTIMEO): then `receive` throws EAGAIN.
    package func setReceiveTimeout(seconds: Int) throws(SystemError) {
        var time = timeval(tv_sec: seconds, tv_usec: 0)
        try retrying("setsockopt SO_RCVTIMEO") {
            setsockopt(file.descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    private static let type = Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)

    private static func make() throws(SystemError) -> File {
        File(owning: try retrying("socket") { socket(AF_UNIX, type, 0) })
    }

    /// Calls `body` with a path's address, sockaddr_un(3type).
    package static func withAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws(SystemError) -> Void
    ) throws(SystemError) {
        var storage = sockaddr_storage()
        var length: socklen_t = 0
        try retrying("unix socket path", path) { clinux_unix_address(&storage, &length, path) }
        var failure: SystemError?
        withUnsafePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                do throws(SystemError) { try body(address, length) } catch { failure = error }
            }
        }
        if let failure { throw failure }
    }
}
