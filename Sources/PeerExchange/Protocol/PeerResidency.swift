/// Which chunks of a blob a node has: bits from a first chunk on. Advice. Value type.
package struct PeerResidency: Sendable, Equatable {
    /// The chunk of the first bit, a multiple of 8.
    package let first: Int
    /// Bit n%8 of byte n/8 is chunk `first` + n, as in a residency map; what lies outside is not said.
    package let bits: [UInt8]

    /// Nil when `first` is not a multiple of 8 or out of bounds.
    package init?(first: Int, bits: [UInt8]) {
        guard first >= 0, first % 8 == 0, first <= PeerProtocol.maxChunkNumber,
            bits.count <= PeerProtocol.maxResidencyBytes
        else { return nil }
        self.first = first
        self.bits = bits
    }

    /// Whether a chunk is resident; nil for one that nothing is said of.
    package func has(_ chunk: Int) -> Bool? {
        guard chunk >= first, (chunk - first) / 8 < bits.count else { return nil }
        return bits[(chunk - first) / 8] >> UInt8((chunk - first) % 8) & 1 == 1
    }

    /// The part around a chunk that fits a header: `maxHeaderBits` bytes from a little before it.
    package func window(around chunk: Int) -> PeerResidency {
        guard bits.count > PeerProtocol.maxHeaderBits else { return self }
        let wanted = (max(chunk, first) - first) / 8 - PeerProtocol.maxHeaderBits / 8
        let start = min(max(0, wanted), bits.count - PeerProtocol.maxHeaderBits)
        return PeerResidency(
            unchecked: first + start * 8, Array(bits[start..<start + PeerProtocol.maxHeaderBits]))
    }

    private init(unchecked first: Int, _ bits: [UInt8]) {
        self.first = first
        self.bits = bits
    }

    /// `<first>:<hex bits>`
    package var headerValue: String {
        let digits = Array("0123456789abcdef".utf8)
        var out: [UInt8] = Array("\(first):".utf8)
        for byte in bits {
            out.append(digits[Int(byte >> 4)])
            out.append(digits[Int(byte & 15)])
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// Parses a header value; nil for anything malformed or too long.
    package init?(headerValue text: some StringProtocol) {
        guard let colon = text.firstIndex(of: ":"), let first = decimal(text[..<colon]) else { return nil }
        let digits = text[text.index(after: colon)...].utf8
        guard digits.count % 2 == 0, digits.count <= PeerProtocol.maxHeaderBits * 2 else { return nil }
        var bits: [UInt8] = []
        var high: UInt8?
        for digit in digits {
            let value: UInt8
            switch digit {
            case 48...57: value = digit - 48
            case 97...102: value = digit - 87
            default: return nil
            }
            if let upper = high {
                bits.append(upper << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        self.init(first: first, bits: bits)
    }
}
