import Glibc
import LinuxSystem

/// A connection to a listening unix stream socket.
package func connectStream(path: String) throws(SystemError) -> File {
    let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    let file = File(owning: try retrying("socket") { socket(AF_UNIX, type, 0) })
    try PacketSocket.withAddress(path) { address, length throws(SystemError) in
        try retrying("connect", path) { connect(file.descriptor, address, length) }
    }
    return file
}
