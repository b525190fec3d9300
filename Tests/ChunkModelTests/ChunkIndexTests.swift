import ChunkModel
import Testing

@Suite struct ChunkIndexTests {
    private func digest(_ number: Int) throws -> Digest {
        try #require(Digest(rawBytes: (0..<32).map { UInt8(truncatingIfNeeded: number &* 31 &+ $0) }))
    }

    private func index(_ sizes: [Int]) throws -> ChunkIndex {
        var end: UInt64 = 0
        return try ChunkIndex(
            chunks: sizes.enumerated().map { number, size in
                end += UInt64(size)
                return (end, try digest(number))
            })
    }

    @Test func encodesToTheBytesCasyncWrites() throws {
        let bytes = try index([4096]).caibx(sizes: (64, 256, 1024))
        // Header: size 48, CA_FORMAT_INDEX, flags 0, min, average, max (casync, caformat.h), all little-endian.
        #expect(Array(bytes[0..<8]) == [48, 0, 0, 0, 0, 0, 0, 0])
        #expect(Array(bytes[8..<16]) == [0xF9, 0x9F, 0x12, 0x7B, 0x9C, 0x4D, 0x82, 0x96])
        #expect(Array(bytes[24..<26]) == [64, 0])
        // Table: size unknown, CA_FORMAT_TABLE, then one entry of end offset and id.
        #expect(Array(bytes[48..<56]) == [UInt8](repeating: 0xFF, count: 8))
        #expect(Array(bytes[56..<64]) == [0x7D, 0x41, 0x17, 0x2F, 0x11, 0x9E, 0x5B, 0xE7])
        #expect(Array(bytes[64..<72]) == [0, 0x10, 0, 0, 0, 0, 0, 0])
        #expect(bytes.count == 48 + 16 + 40 + 40)
        // Tail: zeros, index offset 48, table size 96, marker.
        #expect(Array(bytes[120..<136]) == [48, 0, 0, 0, 0, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0])
        #expect(Array(bytes[136...]) == [0xD1, 0xEC, 0x49, 0x55, 0x0E, 0x05, 0x4F, 0x4B])
    }

    @Test func decodesWhatItEncodes() throws {
        for sizes in [[], [1], [4096], [8192, 4096, 100], [Limits.maxChunkSize, 4096]] {
            let original = try index(sizes)
            #expect(try ChunkIndex(caibx: original.caibx(sizes: (1, 2, 3))) == original)
        }
    }

    @Test func refusesChunksThatBreakARule() throws {
        #expect(throws: ChunkIndex.Invalid.unsorted(chunk: 1, previousEnd: 4096, end: 4096)) { try index([4096, 0]) }
        #expect(throws: ChunkIndex.Invalid.chunkTooLarge(chunk: 0, size: UInt64(Limits.maxChunkSize + 4096))) {
            try index([Limits.maxChunkSize + 4096])
        }
        #expect(throws: ChunkIndex.Invalid.misaligned(chunk: 0, end: 100)) { try index([100, 4096]) }
    }

    @Test func refusesSha512AndBrokenFraming() throws {
        let good = try index([4096, 4096]).caibx(sizes: (1, 2, 3))
        var sha512 = good
        sha512[23] = 0x20
        #expect(throws: ChunkIndex.Invalid.wrongDigestAlgorithm) { try ChunkIndex(caibx: sha512) }
        for offset in [0, 8, 48, 56, good.count - 40, good.count - 24, good.count - 16, good.count - 1] {
            var broken = good
            broken[offset] ^= 0x40
            #expect(throws: ChunkIndex.Invalid.self, "byte \(offset)") { try ChunkIndex(caibx: broken) }
        }
        for count in 0..<good.count {
            #expect(throws: ChunkIndex.Invalid.self, "\(count) bytes") { try ChunkIndex(caibx: Array(good[..<count])) }
        }
    }

    @Test func boundariesAgreeWithTheIndex() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<50 {
            var sizes = (0..<Int.random(in: 1...40, using: &random)).map { _ in
                Int.random(in: 1...64, using: &random) * 4096
            }
            sizes[sizes.count - 1] -= Int.random(in: 0...4095, using: &random)
            let index = try index(sizes)
            let boundaries = ChunkBoundaries(index)
            #expect(boundaries.count == index.count)
            #expect(boundaries.rawSize == index.rawSize)
            for chunk in 0..<index.count { #expect(boundaries.range(of: chunk) == index[chunk].range) }
            for _ in 0..<50 {
                let start = UInt64.random(in: 0...index.rawSize + 5000, using: &random)
                let range = start..<start + UInt64.random(in: 0...300_000, using: &random)
                let expected = (0..<index.count).filter { index[$0].range.overlaps(range) }
                #expect(Array(boundaries.chunks(covering: range)) == expected, "\(sizes) \(range)")
                #expect(Array(index.chunks(covering: range)) == expected, "\(sizes) \(range)")
            }
        }
    }
}
