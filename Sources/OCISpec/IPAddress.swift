/// An IPv4 or IPv6 address literal, and whether it is one that nobody outside this machine or link may send us to.
///
/// Sources: RFC 1122 (0/8, 127/8), RFC 3927 (169.254/16), RFC 4291 (::, ::1, fe80::/10, ff00::/8, mapped addresses),
/// RFC 6052 (64:ff9b::/96). Value type, safe on any thread.
package struct IPAddress: Hashable, Sendable {
    /// 4 or 16 bytes in network order.
    package let bytes: [UInt8]

    package var isIPv6: Bool { bytes.count == 16 }

    /// 4 or 16 bytes in network order; nil for any other count.
    package init?(bytes: [UInt8]) {
        guard bytes.count == 4 || bytes.count == 16 else { return nil }
        self.bytes = bytes
    }

    /// Parses dotted-quad IPv4 (exactly four decimal parts without leading zeros) or RFC 4291 IPv6 text, without
    /// brackets or zone; nil for anything else.
    package init?(_ text: some StringProtocol) {
        let units = Array(text.utf8)
        guard units.count <= 45 else { return nil }
        guard let parsed = units.contains(58) ? Self.ipv6(units[...]) : Self.ipv4(units[...]) else { return nil }
        bytes = parsed
    }

    private static func ipv4(_ units: ArraySlice<UInt8>) -> [UInt8]? {
        let parts = units.split(separator: 46, omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var out: [UInt8] = []
        for part in parts {
            guard (1...3).contains(part.count), part.allSatisfy({ (48...57).contains($0) }),
                part.count == 1 || part.first != 48
            else { return nil }
            let value = part.reduce(0) { $0 * 10 + Int($1 - 48) }
            guard value <= 255 else { return nil }
            out.append(UInt8(value))
        }
        return out
    }

    private static func ipv6(_ units: ArraySlice<UInt8>) -> [UInt8]? {
        // Split once on "::"; each half is groups divided by ":".
        var halves: [ArraySlice<UInt8>] = [units]
        if let gap = units.indices.dropLast().first(where: { units[$0] == 58 && units[$0 + 1] == 58 }) {
            halves = [units[..<gap], units[(gap + 2)...]]
        }
        var groups: [[UInt8]] = []
        for (number, half) in halves.enumerated() {
            guard let bytes = ipv6Groups(half, mayEndInIPv4: number == halves.count - 1) else { return nil }
            groups.append(bytes)
        }
        let count = groups.reduce(0) { $0 + $1.count }
        if groups.count == 1 { return count == 16 ? groups[0] : nil }
        guard count <= 14 else { return nil }
        return groups[0] + [UInt8](repeating: 0, count: 16 - count) + groups[1]
    }

    private static func ipv6Groups(_ units: ArraySlice<UInt8>, mayEndInIPv4: Bool) -> [UInt8]? {
        if units.isEmpty { return [] }
        var out: [UInt8] = []
        let parts = units.split(separator: 58, omittingEmptySubsequences: false)
        guard parts.count <= 8 else { return nil }
        for (number, part) in parts.enumerated() {
            if part.contains(46) {
                guard mayEndInIPv4, number == parts.count - 1, let tail = ipv4(part) else { return nil }
                out += tail
                continue
            }
            guard (1...4).contains(part.count) else { return nil }
            var value: UInt16 = 0
            for unit in part {
                switch unit {
                case 48...57: value = value << 4 | UInt16(unit - 48)
                case 97...102: value = value << 4 | UInt16(unit - 87)
                case 65...70: value = value << 4 | UInt16(unit - 55)
                default: return nil
                }
            }
            out += [UInt8(value >> 8), UInt8(value & 255)]
        }
        return out.count <= 16 ? out : nil
    }

    /// How far an address reaches. Private (RFC 1918, fc00::/7) addresses count as `global`: object stores of a
    /// site live there.
    package enum Scope: String, Sendable {
        case global, loopback, linkLocal, metadata, unusable
    }

    /// The scope; IPv4 addresses embedded in IPv6 (mapped, compatible, NAT64) are judged as the IPv4 address.
    package var scope: Scope {
        if let embedded = embeddedIPv4 { return Self.scope(ofIPv4: embedded) }
        guard isIPv6 else { return Self.scope(ofIPv4: bytes) }
        if bytes.allSatisfy({ $0 == 0 }) { return .unusable }
        if bytes.dropLast().allSatisfy({ $0 == 0 }), bytes[15] == 1 { return .loopback }
        if bytes[0] == 0xFF { return .unusable }
        if bytes[0] == 0xFE, bytes[1] & 0xC0 == 0x80 { return .linkLocal }
        // fd00:ec2::254, the instance metadata service over IPv6.
        if bytes == [0xFD, 0, 0x0E, 0xC2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54] { return .metadata }
        return .global
    }

    private var embeddedIPv4: [UInt8]? {
        guard isIPv6 else { return nil }
        let head = Array(bytes[0..<12])
        let zeros = [UInt8](repeating: 0, count: 10)
        let isMapped = head == zeros + [0xFF, 0xFF]
        let isNAT64 = head == [0, 0x64, 0xFF, 0x9B] + [UInt8](repeating: 0, count: 8)
        // ::a.b.c.d is deprecated but still routed by some stacks; :: and ::1 are judged as IPv6.
        let isCompatible = head == zeros + [0, 0] && (bytes[12] != 0 || bytes[13] != 0)
        return isMapped || isNAT64 || isCompatible ? Array(bytes[12...]) : nil
    }

    private static func scope(ofIPv4 bytes: [UInt8]) -> Scope {
        switch (bytes[0], bytes[1]) {
        case (0, _), (224..., _): .unusable
        case (127, _): .loopback
        case (169, 254): bytes[2] == 169 && bytes[3] == 254 ? .metadata : .linkLocal
        case (100, 100): bytes[2] == 100 && bytes[3] == 200 ? .metadata : .global
        default: .global
        }
    }
}
