/// The id of a blob or of a chunk as it goes over the wire between peers: 32 bytes.
///
/// For what a public image names, a blob's id is SHA-256("chunkd blob 1\0" + blob digest + index digest) and a
/// chunk's is its digest. For an image that needed credentials the id is an HMAC-SHA256 under a key that only a holder
/// of the manifest's bytes can compute. So a `WireID` is not a `Digest`: it proves nothing about bytes, and bytes
/// are never checked against it.
///
/// Value type, safe to use from any thread. Ordered by bytes.
package struct WireID: Hashable, Sendable {
    /// The 32 bytes as four big-endian words, so that word order is byte order.
    private let a: UInt64
    private let b: UInt64
    private let c: UInt64
    private let d: UInt64

    /// Bytes in an id.
    package static let byteCount = 32

    /// Reads an id from exactly 32 raw bytes; nil for any other count.
    package init?(rawBytes bytes: some Sequence<UInt8>) {
        var parts: [UInt64] = [0, 0, 0, 0]
        var count = 0
        for byte in bytes {
            guard count < Self.byteCount else { return nil }
            parts[count / 8] = parts[count / 8] << 8 | UInt64(byte)
            count += 1
        }
        guard count == Self.byteCount else { return nil }
        (a, b, c, d) = (parts[0], parts[1], parts[2], parts[3])
    }

    /// Parses 64 lower-case hexadecimal digits; nil for anything else.
    package init?(hex: some StringProtocol) {
        guard let digest = Digest(hex: hex) else { return nil }
        self.init(digest)
    }

    /// The id whose bytes are a digest's: what a chunk of a public image is called on the wire.
    package init(_ digest: Digest) {
        let bytes = digest.rawBytes
        var parts: [UInt64] = [0, 0, 0, 0]
        for at in 0..<Self.byteCount { parts[at / 8] = parts[at / 8] << 8 | UInt64(bytes[at]) }
        (a, b, c, d) = (parts[0], parts[1], parts[2], parts[3])
    }

    /// The 32 raw bytes.
    package var rawBytes: [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(Self.byteCount)
        for word in [a, b, c, d] {
            for shift in stride(from: 56, through: 0, by: -8) { out.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        return out
    }

    /// 64 lower-case hexadecimal digits: safe in a path and in a URL.
    package var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        var out: [UInt8] = []
        out.reserveCapacity(Self.byteCount * 2)
        for byte in rawBytes {
            out.append(digits[Int(byte >> 4)])
            out.append(digits[Int(byte & 15)])
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// The first 12 hexadecimal digits, for people.
    package var short: String { String(hex.prefix(12)) }

    /// The id as four big-endian words, for mixing into scores and digests without an array.
    package var bigEndianWords: (UInt64, UInt64, UInt64, UInt64) { (a, b, c, d) }
}

extension WireID: Comparable, CustomStringConvertible {
    package static func < (x: WireID, y: WireID) -> Bool { x.bigEndianWords < y.bigEndianWords }

    package var description: String { hex }
}
