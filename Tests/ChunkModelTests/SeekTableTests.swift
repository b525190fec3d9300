import ChunkModel
import Testing

@Suite("The seek table says where each chunk's frame lies, and refuses what does not add up")
struct SeekTableTests {
    private let frames = [
        SeekTable.Frame(storedSize: 100, rawSize: 4096), SeekTable.Frame(storedSize: 50, rawSize: 8192),
        SeekTable.Frame(storedSize: 7, rawSize: 5),
    ]

    private func table() throws -> SeekTable { try SeekTable(frames: frames) }

    private func index(_ ends: [UInt64]) throws -> ChunkIndex {
        let digest = try #require(Digest(rawBytes: [UInt8](repeating: 7, count: 32)))
        return try ChunkIndex(chunks: ends.map { ($0, digest) })
    }

    @Test func theEncodingIsTheSpecifications() throws {
        // Zstandard Seekable Format 0.1.0: skippable magic, frame size, entries, footer.
        let one = try SeekTable(frames: [SeekTable.Frame(storedSize: 0x0102, rawSize: 0x0304)])
        let expected: [UInt8] = [
            0x5E, 0x2A, 0x4D, 0x18,  // 0x184D2A5E
            17, 0, 0, 0,  // bytes that follow
            0x02, 0x01, 0, 0, 0x04, 0x03, 0, 0,  // compressed and decompressed size
            1, 0, 0, 0, 0,  // frames, descriptor
            0xB1, 0xEA, 0x92, 0x8F,  // 0x8F92EAB1
        ]
        #expect(one.encoded() == expected)
        #expect(SeekTable.encodedSize(frames: 1) == expected.count)
    }

    @Test func whatIsEncodedIsDecoded() throws {
        #expect(try SeekTable(decoding: try table().encoded()) == table())
        let empty = try SeekTable(frames: [])
        #expect(try SeekTable(decoding: empty.encoded()) == empty)
        #expect(try table().encoded().count == SeekTable.encodedSize(frames: 3))
    }

    @Test func framesAreFoundByNumber() throws {
        let table = try table()
        #expect(table.storedRange(ofFrame: 0) == 0..<100)
        #expect(table.storedRange(ofFrame: 2) == 150..<157)
        #expect(table.storedRange(ofFrames: 1..<3) == 100..<157)
        #expect(table.blobSize == 157 + 41)
    }

    @Test func framesMustBeTheChunksAndFillTheBlob() throws {
        let table = try table()
        try table.check(against: index([4096, 12288, 12293]), blobSize: 198)
        #expect(throws: SeekTable.Invalid.wrongBlobSize(expected: 198, found: 199)) {
            try table.check(against: index([4096, 12288, 12293]), blobSize: 199)
        }
        #expect(throws: SeekTable.Invalid.wrongFrameCount(expected: 2, found: 3)) {
            try table.check(against: index([4096, 12288]), blobSize: 198)
        }
        #expect(throws: SeekTable.Invalid.wrongRawSize(frame: 1, expected: 4096, found: 8192)) {
            try table.check(against: index([4096, 8192, 12293]), blobSize: 198)
        }
    }

    @Test func damageIsRefusedAndNamed() throws {
        let good = try table().encoded()
        func refusal(_ edit: (inout [UInt8]) -> Void) -> SeekTable.Invalid? {
            var bytes = good
            edit(&bytes)
            do throws(SeekTable.Invalid) {
                _ = try SeekTable(decoding: bytes)
                return nil
            } catch { return error }
        }
        let last = good.count - 1
        #expect(refusal { $0 = [] } == .wrongSize(expected: 17, found: 0))
        #expect(refusal { $0[last] ^= 1 } == .badMagic)
        #expect(refusal { $0[0] ^= 1 } == .badMagic)
        #expect(refusal { $0[4] ^= 1 } == .badMagic)
        #expect(refusal { $0[last - 4] = 0x80 } == .checksums)
        #expect(refusal { $0[last - 4] = 0x04 } == .reservedBits(4))
        #expect(refusal { $0[last - 4] = 0x03 } == nil, "unused bits mean nothing")
        #expect(refusal { $0[last - 8] = 4 } == .wrongSize(expected: 49, found: 41))
        #expect(refusal { for at in 5...8 { $0[last - at] = 0xFF } } == .tooManyFrames(0xFFFF_FFFF))
        #expect(refusal { $0.removeFirst() } == .wrongSize(expected: 41, found: 40))
        #expect(refusal { $0[8] = 0 } == .emptyFrame(0))
        #expect(refusal { $0[11] = 1 }?.reason == "limit")
        #expect(refusal { $0[15] = 1 }?.reason == "limit")
    }

    @Test func noBytesMakeTheDecoderTrap() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var state = seed
        let good = try table().encoded()
        var accepted = 0
        for _ in 0..<20_000 {
            var bytes = good
            for _ in 0...2 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes[Int(state >> 33) % bytes.count] = UInt8(truncatingIfNeeded: state >> 24)
            }
            if let table = try? SeekTable(decoding: bytes) {
                accepted += 1
                #expect(table.frames.count == 3)
            }
        }
        #expect(accepted < 20_000)
    }
}
