import Glibc

/// The address packets to the outside would carry.
package enum OutgoingAddress {
    /// The local address of the route to a public IPv4 address, as text; nil without a route. Connecting a datagram
    /// socket chooses it and sends nothing (connect(2), udp(7)).
    package static func find() -> String? {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { return nil }
        let file = File(owning: socket)
        // 192.0.2.0/24 is for documentation (RFC 5737): nobody is there.
        var remote = sockaddr_in()
        remote.sin_family = sa_family_t(AF_INET)
        remote.sin_port = in_port_t(9).bigEndian
        remote.sin_addr.s_addr = in_addr_t(0xC000_0201).bigEndian
        var local = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isFound = withUnsafeMutablePointer(to: &local) { local in
            withUnsafePointer(to: &remote) { remote in
                remote.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(file.descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                } == 0
                    && local.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        getsockname(file.descriptor, $0, &length)
                    } == 0
            }
        }
        guard isFound else { return nil }
        var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
        guard inet_ntop(AF_INET, &local.sin_addr, &text, socklen_t(text.count)) != nil else { return nil }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
