internal import ChunkModel

/// Which of some consecutive chunks a node has, exactly: what an answer's `Chunkd-Residency: <first>:<hex bits>` says.
package struct ResidencyWindow: Equatable, Sendable {
    /// Chunks one window tells of at most: 512 bytes of bits, 1 KiB of header.
    package static let maxChunks = 4096

    /// Number of the chunk the first bit is.
    package let first: Int
    /// Bit n % 8 of byte n / 8 is chunk `first` + n.
    package private(set) var bits: [UInt8]

    /// Nil when there are no bits, too many of them, or the chunks could not exist.
    package init?(first: Int, bits: [UInt8]) {
        guard !bits.isEmpty, bits.count * 8 <= Self.maxChunks, first >= 0,
            first <= Limits.maxChunksPerBlob
        else { return nil }
        self.first = first
        self.bits = bits
    }

    /// Parses `<first>:<lower-case hex bits>`; nil for anything else. Never traps, whatever the text.
    package init?(header: some StringProtocol) {
        let bytes = Array(header.utf8.prefix(Self.maxChunks / 4 + 32))
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")), colon > 0, colon <= 9 else { return nil }
        var first = 0
        for byte in bytes[..<colon] {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            first = first * 10 + Int(byte - UInt8(ascii: "0"))
        }
        let digits = bytes[(colon + 1)...]
        guard digits.count % 2 == 0, digits.count <= Self.maxChunks / 4 else { return nil }
        var bits: [UInt8] = []
        bits.reserveCapacity(digits.count / 2)
        for (number, byte) in digits.enumerated() {
            let nibble: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): nibble = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): nibble = byte - UInt8(ascii: "a") + 10
            default: return nil
            }
            if number % 2 == 0 { bits.append(nibble << 4) } else { bits[bits.count - 1] |= nibble }
        }
        self.init(first: first, bits: bits)
    }

    /// `<first>:<lower-case hex bits>`.
    package var header: String {
        let digits = Array("0123456789abcdef".utf8)
        var out = Array("\(first):".utf8)
        for byte in bits {
            out.append(digits[Int(byte >> 4)])
            out.append(digits[Int(byte & 15)])
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// Whether the chunk is resident there; nil when the window does not tell.
    package subscript(chunk: Int) -> Bool? {
        let at = chunk - first
        guard at >= 0, at >> 3 < bits.count else { return nil }
        return bits[at >> 3] >> UInt8(at & 7) & 1 == 1
    }

    /// Notes one chunk; false when it lies outside.
    mutating func set(_ chunk: Int, _ isResident: Bool) -> Bool {
        let at = chunk - first
        guard at >= 0, at >> 3 < bits.count else { return false }
        if isResident { bits[at >> 3] |= 1 << UInt8(at & 7) } else { bits[at >> 3] &= ~(1 << UInt8(at & 7)) }
        return true
    }
}
