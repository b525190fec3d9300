import ChunkModel
import Glibc

/// Where a peer is reached: a numeric address and a port. Advice: a peer is its name.
///
/// Exists only by parsing, so that nothing a peer says about itself becomes a host name, a path or an option. Addresses
/// that name no single host (unspecified, multicast, broadcast) and link-local ones, where clouds keep their metadata
/// services, do not parse. Value type.
package struct PeerAddress: Hashable, Sendable, CustomStringConvertible {
    /// `ADDRESS:PORT`, an IPv6 address in brackets, both in their canonical form.
    package let text: String

    /// `[` + 45 characters + `]:65535`.
    package static let maxByteCount = 53

    /// Parses `ADDRESS:PORT`; nil for anything else.
    package init?(_ text: some StringProtocol) {
        guard text.utf8.count <= Self.maxByteCount, let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        guard (1...5).contains(digits.utf8.count), digits.utf8.allSatisfy({ (48...57).contains($0) }),
            digits.utf8.first != 48, let port = UInt16(digits), port > 0
        else { return nil }
        self.init(host: text[..<colon], port: port)
    }

    /// An address (an IPv6 one in brackets) and a port.
    package init?(host: some StringProtocol, port: UInt16) {
        guard port > 0 else { return nil }
        if host.hasPrefix("["), host.hasSuffix("]"), host.utf8.count > 2 {
            var address = in6_addr()
            guard inet_pton(AF_INET6, String(host.dropFirst().dropLast()), &address) == 1,
                Self.isHost(withUnsafeBytes(of: &address) { Array($0) }),
                let canonical = Self.string(AF_INET6, &address)
            else { return nil }
            text = "[\(canonical)]:\(port)"
        } else {
            var address = in_addr()
            guard inet_pton(AF_INET, String(host), &address) == 1,
                Self.isIPv4Host(withUnsafeBytes(of: &address) { Array($0) }),
                let canonical = Self.string(AF_INET, &address)
            else { return nil }
            text = "\(canonical):\(port)"
        }
    }

    package var description: String { text }

    private static func string(_ family: Int32, _ address: UnsafeRawPointer) -> String? {
        var out = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard inet_ntop(family, address, &out, socklen_t(out.count)) != nil else { return nil }
        return String(decoding: out.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func isIPv4Host(_ bytes: [UInt8]) -> Bool {
        switch bytes[0] {
        case 0, 224...255: false
        case 169: bytes[1] != 254
        default: true
        }
    }

    private static func isHost(_ bytes: [UInt8]) -> Bool {
        // IPv4 in IPv6's clothes (::ffff:0:0/96) goes by IPv4's rules.
        if bytes.prefix(10).allSatisfy({ $0 == 0 }), bytes[10] == 0xFF, bytes[11] == 0xFF {
            return isIPv4Host(Array(bytes[12...]))
        }
        if bytes.allSatisfy({ $0 == 0 }) || bytes[0] == 0xFF { return false }
        return !(bytes[0] == 0xFE && bytes[1] & 0xC0 == 0x80)
    }
}

/// A peer and where it is thought to be.
package struct PeerEndpoint: Hashable, Sendable {
    package let name: NodeName
    package let address: PeerAddress

    package init(name: NodeName, address: PeerAddress) {
        self.name = name
        self.address = address
    }
}
