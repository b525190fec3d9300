import ChunkModel
import Testing

@Suite struct ResidencyMapTests {
    private let key: ResidencyMap.Key
    private let chunkCount = 100
    private let rawSize: UInt64 = 100 * 4096

    init() throws {
        let digest = { (byte: UInt8) in Digest(rawBytes: [UInt8](repeating: byte, count: 32)) }
        key = .init(blob: try #require(digest(1)), index: try #require(digest(2)))
    }

    private func decode(_ file: [UInt8]) throws -> (map: ResidencyMap, condition: ResidencyMap.Condition) {
        try ResidencyMap.decode(file, key: key, chunkCount: chunkCount, rawSize: rawSize)
    }

    /// A file of two banks: the map after `writes` updates, each adding one more chunk.
    private func file(writes: Int) -> ([UInt8], ResidencyMap) {
        let size = ResidencyMap.bankSize(chunkCount: chunkCount)
        var file = [UInt8](repeating: 0, count: 2 * size)
        var map = ResidencyMap(key: key, chunkCount: chunkCount, rawSize: rawSize)
        for write in 0..<writes {
            var bits = map.bits
            bits[write / 8] |= 1 << UInt8(write % 8)
            map = map.with(bits: bits, sequence: map.sequence + 1)
            file.replaceSubrange(Int(map.bankOffset)..<Int(map.bankOffset) + size, with: map.encodeBank())
        }
        return (file, map)
    }

    @Test func aNewFileIsAnEmptyMap() throws {
        let (map, condition) = try decode(file(writes: 0).0)
        #expect(map.residentCount == 0)
        #expect(condition == .good)
    }

    @Test(arguments: [1, 2, 3, 40, 100])
    func theLastWriteIsTheMap(_ writes: Int) throws {
        let (bytes, expected) = file(writes: writes)
        let (map, condition) = try decode(bytes)
        #expect(map == expected)
        #expect(map.residentCount == writes)
        #expect(condition == .good)
        #expect(map.isComplete == (writes == 100))
    }

    @Test func aFlippedBitFallsBackToTheBankBeforeAndNeverAhead() throws {
        let (bytes, newest) = file(writes: 5)
        let start = Int(newest.bankOffset)
        let used = 104 + (chunkCount + 7) / 8 + 4
        for offset in start..<start + used {
            for bit in [0, 3, 7] {
                var damaged = bytes
                damaged[offset] ^= 1 << UInt8(bit)
                let (map, condition) = try decode(damaged)
                #expect(map.residentCount == 4, "byte \(offset) bit \(bit)")
                #expect(condition == .fellBack)
            }
        }
    }

    @Test func aTornWriteFallsBack() throws {
        let (old, _) = file(writes: 4)
        let (new, newest) = file(writes: 5)
        let start = Int(newest.bankOffset)
        for cut in stride(from: 1, to: 130, by: 1) {
            var torn = old
            torn.replaceSubrange(start..<start + cut, with: new[start..<start + cut])
            let (map, _) = try decode(torn)
            #expect((3...5).contains(map.residentCount))
            if map.residentCount == 5 { #expect(Array(torn[start...].prefix(121)) == Array(new[start...].prefix(121))) }
        }
    }

    @Test func bothBanksDamagedMeansAbsent() throws {
        var (bytes, _) = file(writes: 5)
        bytes[20] ^= 1
        bytes[ResidencyMap.bankSize(chunkCount: chunkCount) + 20] ^= 1
        let (map, condition) = try decode(bytes)
        #expect(map.residentCount == 0)
        #expect(condition == .lost)
        #expect(try decode([]).condition == .lost)
    }

    @Test func aNewerFormatIsRefusedAndAnotherBlobsMapToo() throws {
        var (bytes, map) = file(writes: 1)
        let start = Int(map.bankOffset)
        bytes[start + 8] = 9
        let length = 104 + (chunkCount + 7) / 8
        let crc = CRC32C.checksum(bytes[start..<start + length])
        for at in 0..<4 { bytes[start + length + at] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * at)) }
        #expect(throws: ResidencyMap.Refused.newerVersion(found: 9)) { try decode(bytes) }
        let other = ResidencyMap.Key(blob: key.index, index: key.blob)
        #expect(throws: ResidencyMap.Refused.self) {
            try ResidencyMap.decode(file(writes: 1).0, key: other, chunkCount: chunkCount, rawSize: rawSize)
        }
    }
}
