/// The record of which chunks of a blob are on disk: docs/formats/map.md.
///
/// The file has two banks, written in turn; the valid one with the higher sequence number is the map. A torn or
/// flipped bank is not valid (CRC-32C), so a reader falls back to the other, which is older: the map on disk is only
/// ever behind the data, never ahead. With no valid bank every chunk is absent.
package struct ResidencyMap: Equatable, Sendable {
    /// What the map belongs to. One blob under two different chunk indexes is two things: an index decides what
    /// bytes count as the blob's, so sharing residency across indexes would let one image vouch for another's bytes.
    package struct Key: Hashable, Sendable {
        package let blob: Digest
        package let index: Digest
        package init(blob: Digest, index: Digest) {
            self.blob = blob
            self.index = index
        }
    }

    package let key: Key
    package let chunkCount: Int
    package let rawSize: UInt64
    /// One more than the bank it replaces.
    package var sequence: UInt64
    /// Bit n%8 of byte n/8 is chunk n; unused bits are 0.
    package private(set) var bits: [UInt8]

    package static let version: UInt32 = 1
    private static let magic: [UInt8] = Array("CHKDMAP\n".utf8)
    private static let headerSize = 104

    /// An empty map.
    package init(key: Key, chunkCount: Int, rawSize: UInt64) {
        self.key = key
        self.chunkCount = chunkCount
        self.rawSize = rawSize
        sequence = 0
        bits = [UInt8](repeating: 0, count: (chunkCount + 7) / 8)
    }

    /// The same map with other bits; unused bits are cleared.
    package func with(bits: [UInt8], sequence: UInt64) -> ResidencyMap {
        precondition(bits.count == self.bits.count, "a map of \(chunkCount) chunks has \(self.bits.count) bytes")
        var copy = self
        copy.bits = bits
        copy.sequence = sequence
        if chunkCount % 8 != 0 { copy.bits[bits.count - 1] &= 1 << UInt8(chunkCount % 8) - 1 }
        return copy
    }

    package func isResident(_ chunk: Int) -> Bool { bits[chunk / 8] >> UInt8(chunk % 8) & 1 == 1 }

    /// Chunks that are resident.
    package var residentCount: Int { bits.reduce(0) { $0 + $1.nonzeroBitCount } }

    /// Every chunk is resident.
    package var isComplete: Bool { residentCount == chunkCount }

    /// Bytes of one bank: header, bits and CRC, rounded up to a block so that banks never share one.
    package static func bankSize(chunkCount: Int) -> Int {
        let used = headerSize + (chunkCount + 7) / 8 + 4
        return (used + Limits.blockSize - 1) / Limits.blockSize * Limits.blockSize
    }

    /// Why a map file cannot be used. Damage is not here: it reads as absent chunks.
    package enum Refused: Error, Equatable, CustomStringConvertible {
        case newerVersion(found: UInt32)
        case wrongKey(expected: Key, found: Key)

        package var description: String {
            switch self {
            case .newerVersion(let found):
                "residency map has format \(found), this program knows \(ResidencyMap.version): upgrade chunkgate"
            case .wrongKey(let expected, let found):
                "residency map is of blob \(found.blob) index \(found.index), expected \(expected.blob) \(expected.index)"
            }
        }
    }

    /// What `decode` found.
    package enum Condition: Equatable, Sendable {
        /// Both banks are valid, or one is and the other was never written.
        case good
        /// A damaged bank was passed over.
        case fellBack
        /// No valid bank: all absent.
        case lost
    }

    /// Reads the newest valid bank of a map file. Never traps, whatever the bytes.
    package static func decode(
        _ file: [UInt8], key: Key, chunkCount: Int, rawSize: UInt64
    ) throws(Refused) -> (map: ResidencyMap, condition: Condition) {
        let empty = ResidencyMap(key: key, chunkCount: chunkCount, rawSize: rawSize)
        let size = bankSize(chunkCount: chunkCount)
        var best: ResidencyMap?
        var damaged = 0
        for bank in 0..<2 {
            guard file.count >= (bank + 1) * size else {
                damaged += 1
                continue
            }
            let bytes = file[bank * size..<(bank + 1) * size]
            if bytes.allSatisfy({ $0 == 0 }) { continue }
            guard let map = try decodeBank(bytes, empty) else {
                damaged += 1
                continue
            }
            if best.map({ map.sequence > $0.sequence }) ?? true { best = map }
        }
        let condition: Condition = damaged == 0 ? .good : best == nil ? .lost : .fellBack
        return (best ?? empty, condition)
    }

    private static func decodeBank(_ bytes: ArraySlice<UInt8>, _ empty: ResidencyMap) throws(Refused) -> ResidencyMap? {
        var reader = ByteReader(bytes)
        guard let magic = reader.take(8), Array(magic) == Self.magic, let version = reader.integer(UInt32.self),
            let stated = reader.integer(UInt32.self), let sequence = reader.integer(UInt64.self),
            let blob = reader.digest(), let index = reader.digest(), let count = reader.integer(UInt32.self),
            reader.take(4) != nil, let rawSize = reader.integer(UInt64.self)
        else { return nil }
        let length = Int(stated)
        guard length >= headerSize, length + 4 <= bytes.count else { return nil }
        var tail = ByteReader(bytes[(bytes.startIndex + length)...])
        guard CRC32C.checksum(bytes[bytes.startIndex..<bytes.startIndex + length]) == tail.integer(UInt32.self)
        else { return nil }
        // The CRC holds, so these are what a writer meant, not damage.
        guard version == Self.version else { throw .newerVersion(found: version) }
        let key = Key(blob: blob, index: index)
        guard key == empty.key, count == empty.chunkCount, rawSize == empty.rawSize else {
            throw .wrongKey(expected: empty.key, found: key)
        }
        guard let bits = reader.take(empty.bits.count) else { return nil }
        return empty.with(bits: Array(bits), sequence: sequence)
    }

    /// Where this map's bank lies in the file, in bytes.
    package var bankOffset: UInt64 { sequence % 2 * UInt64(Self.bankSize(chunkCount: chunkCount)) }

    /// This map as one bank, `bankSize` bytes.
    package func encodeBank() -> [UInt8] {
        var out = ByteWriter(capacity: Self.bankSize(chunkCount: chunkCount))
        out.raw(Self.magic)
        out.integer(Self.version)
        out.integer(UInt32(Self.headerSize + bits.count))
        out.integer(sequence)
        out.digest(key.blob)
        out.digest(key.index)
        out.integer(UInt32(chunkCount))
        out.integer(UInt32(0))
        out.integer(rawSize)
        out.raw(bits)
        out.integer(CRC32C.checksum(out.bytes))
        out.pad(to: Self.bankSize(chunkCount: chunkCount))
        return out.bytes
    }
}
