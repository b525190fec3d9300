/// The name of a node: the last path segment of its identity `spiffe://<trust-domain>/chunkd/node/<name>`. A peer is
/// its name; addresses are advice.
///
/// A name exists only by validation: 1...63 characters of `[a-z0-9.-]`, the first and the last a letter or digit, no
/// two dots in a row. So it is safe as a path segment, a host label, an HTTP header token and a metric label, and never
/// `.` or `..` (SPIFFE-ID section 2.2 forbids those segments).
///
/// Value type, safe to use from any thread. Ordered by bytes.
package struct NodeName: Hashable, Sendable {
    /// The validated text.
    package let text: String

    /// Longest name in bytes: a DNS label (RFC 1035, section 2.3.4).
    package static let maxByteCount = 63

    /// Validates a name; nil when it breaks the rule above.
    package init?(_ text: some StringProtocol) {
        let bytes = text.utf8
        guard !bytes.isEmpty, bytes.count <= Self.maxByteCount else { return nil }
        var previous: UInt8 = 0
        for byte in bytes {
            let isDot = byte == UInt8(ascii: ".")
            guard Self.isLetterOrDigit(byte) || isDot || byte == UInt8(ascii: "-") else { return nil }
            if isDot, previous == byte { return nil }
            previous = byte
        }
        guard let first = bytes.first, Self.isLetterOrDigit(first), Self.isLetterOrDigit(previous) else { return nil }
        self.text = String(text)
    }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: false
        }
    }
}

extension NodeName: Comparable, CustomStringConvertible, LosslessStringConvertible {
    package static func < (a: NodeName, b: NodeName) -> Bool { a.text < b.text }

    package var description: String { text }
}

extension NodeName: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let string = try container.decode(String.self)
        guard let value = NodeName(string) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not a node name: \(string.prefix(80))")
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
}
