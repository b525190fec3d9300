/// A SHA-256 digest. It exists only by parsing a well-formed string, by reading 32 raw bytes from a verified
/// format, or by hashing (`Integrity`); there is no default and no partial value.
///
/// Value type, safe to use from any thread.
package struct Digest: Hashable, Sendable {
    /// The digest's 32 bytes as four big-endian words, so that word order is byte order.
    private let words: (UInt64, UInt64, UInt64, UInt64)

    /// Bytes in a raw digest.
    package static let byteCount = 32

    /// Reads a digest from exactly 32 raw bytes; nil for any other count.
    package init?(rawBytes bytes: some Sequence<UInt8>) {
        var parts: [UInt64] = [0, 0, 0, 0]
        var count = 0
        for byte in bytes {
            guard count < Self.byteCount else { return nil }
            parts[count / 8] = parts[count / 8] << 8 | UInt64(byte)
            count += 1
        }
        guard count == Self.byteCount else { return nil }
        words = (parts[0], parts[1], parts[2], parts[3])
    }

    /// Parses 64 lower-case hexadecimal digits; nil for anything else (upper case, other lengths, separators).
    package init?(hex: some StringProtocol) {
        var parts: [UInt64] = [0, 0, 0, 0]
        var count = 0
        for unit in hex.utf8 {
            guard count < 64, let nibble = Self.nibble(unit) else { return nil }
            parts[count / 16] = parts[count / 16] << 4 | UInt64(nibble)
            count += 1
        }
        guard count == 64 else { return nil }
        words = (parts[0], parts[1], parts[2], parts[3])
    }

    /// Parses the OCI form `sha256:<64 lower-case hex digits>`. No other algorithm is accepted
    /// (OCI image-spec, descriptor.md "Digests"; CVE-2024-3727 is what comes of trusting the string).
    package init?(_ string: some StringProtocol) {
        let prefix = "sha256:"
        guard string.utf8.count == prefix.utf8.count + 64, string.hasPrefix(prefix) else { return nil }
        self.init(hex: string.dropFirst(prefix.count))
    }

    private static func nibble(_ unit: UInt8) -> UInt8? {
        switch unit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): unit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): unit - UInt8(ascii: "a") + 10
        default: nil
        }
    }

    /// The 32 raw bytes.
    package var rawBytes: [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(Self.byteCount)
        for word in [words.0, words.1, words.2, words.3] {
            for shift in stride(from: 56, through: 0, by: -8) { out.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        return out
    }

    /// 64 lower-case hexadecimal digits: a name that is safe in a path.
    package var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(unsafeUninitializedCapacity: 64) { buffer in
            var at = 0
            for word in [words.0, words.1, words.2, words.3] {
                for shift in stride(from: 60, through: 0, by: -4) {
                    buffer[at] = digits[Int(word >> UInt64(shift) & 15)]
                    at += 1
                }
            }
            return 64
        }
    }

    /// The first 12 hexadecimal digits, for people.
    package var short: String { String(hex.prefix(12)) }

    package static func == (a: Digest, b: Digest) -> Bool { a.words == b.words }

    package func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
}

extension Digest: CustomStringConvertible, Comparable, LosslessStringConvertible {
    /// `sha256:<hex>`.
    package var description: String { "sha256:" + hex }

    package static func < (a: Digest, b: Digest) -> Bool { a.words < b.words }
}

extension Digest: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let string = try container.decode(String.self)
        guard let value = Digest(string) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not a sha256 digest: \(string.prefix(80))")
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
