import Testing
import Zstandard

@Suite("A chunk is one frame, and a frame gives exactly its chunk or an error")
struct FrameTests {
    private let text = Array(String(repeating: "chunks of a tree, ", count: 4000).utf8)

    private func frame(_ bytes: [UInt8], level: Int = 3) throws -> [UInt8] {
        let compressor = try FrameCompressor(level: level)
        return try bytes.withUnsafeBytes { try compressor.compress($0) }
    }

    private func decompress(_ frame: [UInt8], expecting count: Int) throws -> [UInt8] {
        let decompressor = try FrameDecompressor()
        var out = [UInt8](repeating: 0xEE, count: count)
        try frame.withUnsafeBytes { input in
            try out.withUnsafeMutableBytes { try decompressor.decompress(input, into: $0) }
        }
        return out
    }

    private func refusal(_ frame: [UInt8], expecting count: Int) -> ZstandardError.Code? {
        do {
            _ = try decompress(frame, expecting: count)
            return nil
        } catch { return (error as? ZstandardError)?.code }
    }

    @Test(arguments: [1, 3, 19]) func whatIsCompressedComesBack(level: Int) throws {
        let compressed = try frame(text, level: level)
        #expect(compressed.count < text.count / 10)
        #expect(try decompress(compressed, expecting: text.count) == text)
    }

    @Test func contextsAreReusable() throws {
        let compressor = try FrameCompressor()
        let decompressor = try FrameDecompressor()
        for size in [1, 4096, 70_000] {
            let chunk = Array(text.prefix(size))
            let compressed = try chunk.withUnsafeBytes { try compressor.compress($0) }
            #expect(try compressed == frame(chunk), "what came before leaves no trace")
            var out = [UInt8](repeating: 0, count: size)
            try compressed.withUnsafeBytes { input in
                try out.withUnsafeMutableBytes { try decompressor.decompress(input, into: $0) }
            }
            #expect(out == chunk)
        }
    }

    @Test func incompressibleBytesStayBelowTheBound() throws {
        var generator = SystemRandomNumberGenerator()
        let noise = (0..<1_000_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
        let compressed = try frame(noise)
        #expect(compressed.count <= FrameCompressor.bound(rawSize: noise.count))
        #expect(try decompress(compressed, expecting: noise.count) == noise)
    }

    @Test func aFrameThatHoldsMoreOrLessIsRefused() throws {
        let compressed = try frame(text)
        #expect(refusal(compressed, expecting: text.count - 1) == .wrongSize)
        #expect(refusal(compressed, expecting: text.count + 1) == .wrongSize)
        #expect(refusal(compressed, expecting: 0) == .wrongSize)
        let bomb = try frame([UInt8](repeating: 0, count: 64 << 20))
        #expect(bomb.count < 10_000)
        #expect(refusal(bomb, expecting: 4096) == .wrongSize)
    }

    @Test func aFrameThatLiesAboutItsSizeIsRefused() throws {
        // A 2-byte content size field follows the descriptor in frames of 256 to 65,791 bytes (RFC 8878, 3.1.1.1).
        let chunk = Array(text.prefix(5000))
        var compressed = try frame(chunk)
        #expect(compressed[4] & 0xC0 == 0x40 && compressed[4] & 0x20 != 0, "single segment, 2 bytes of size")
        compressed[5] &+= 1
        #expect(refusal(compressed, expecting: 5001) == .wrongSize || refusal(compressed, expecting: 5001) == .badFrame)
        compressed[5] &-= 2
        #expect(refusal(compressed, expecting: 4999) != nil)
    }

    @Test func onlyOneWholeFrameIsTaken() throws {
        let compressed = try frame(text)
        #expect(refusal(compressed + compressed, expecting: text.count) == .badFrame)
        #expect(refusal(compressed + [0], expecting: text.count) == .badFrame)
        #expect(refusal(Array(compressed.dropLast()), expecting: text.count) == .badFrame)
        #expect(refusal([], expecting: 10) == .badFrame)
        #expect(refusal([1, 2, 3, 4, 5], expecting: 10) == .badFrame)
        let skippable: [UInt8] = [0x5E, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]
        #expect(refusal(skippable, expecting: 10) == .wrongSize)
    }

    @Test func flippedBitsNeverGiveMoreThanAsked() throws {
        let compressed = try frame(text)
        for bit in stride(from: 0, to: compressed.count * 8, by: 3) {
            var damaged = compressed
            damaged[bit / 8] ^= UInt8(1) << UInt8(bit % 8)
            // There is no checksum: a flip may decode to other bytes. It must not trap, nor write beyond the buffer.
            _ = refusal(damaged, expecting: text.count)
        }
        #expect(refusal(compressed, expecting: text.count) == nil)
    }

    @Test func streamsOfManyFramesComeOutWhole() throws {
        let stream = try frame(text) + frame(Array(text.prefix(3))) + frame(text)
        let expected = text + text.prefix(3) + text
        for piece in [1, 1000, stream.count] {
            var decompressor = try StreamDecompressor(limit: UInt64(expected.count))
            var out: [UInt8] = []
            for start in Swift.stride(from: 0, to: stream.count, by: piece) {
                let part = Array(stream[start..<min(stream.count, start + piece)])
                try part.withUnsafeBytes { try decompressor.feed($0) { out.append(contentsOf: $0) } }
            }
            let isWhole = decompressor.isAtFrameEnd
            #expect(isWhole)
            #expect(out == expected, "pieces of \(piece)")
        }
    }

    @Test func streamsStopAtTheLimitAndTellTruncation() throws {
        let compressed = try frame([UInt8](repeating: 0, count: 8 << 20))
        var limited = try StreamDecompressor(limit: 1 << 20)
        var refused = false
        do { try compressed.withUnsafeBytes { try limited.feed($0) { _ in } } } catch is ZstandardError {
            refused = true
        }
        #expect(refused)
        let produced = limited.produced
        #expect(produced <= 2 << 20)
        var cut = try StreamDecompressor(limit: 8 << 20)
        try Array(compressed.dropLast(3)).withUnsafeBytes { try cut.feed($0) { _ in } }
        let isWhole = cut.isAtFrameEnd
        #expect(!isWhole)
    }

    @Test func unknownLevelsAreRefused() {
        #expect(throws: ZstandardError.self) { _ = try FrameCompressor(level: 0) }
        #expect(throws: ZstandardError.self) { _ = try FrameCompressor(level: 23) }
    }
}
