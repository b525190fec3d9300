import ChunkModel
import Integrity
import Testing

@Suite struct IntegrityTests {
    @Test func hashesThePublishedVectors() {
        // FIPS 180-4 examples.
        #expect(
            SHA256.hash(Array("abc".utf8)).hex == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(SHA256.hash([]).hex == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }

    @Test func aStreamHashesLikeItsWhole() {
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        var hasher = SHA256()
        for start in stride(from: 0, to: bytes.count, by: 977) {
            bytes[start..<min(start + 977, bytes.count)].withUnsafeBytes { hasher.update($0) }
        }
        #expect(hasher.finalize() == SHA256.hash(bytes))
        // Starts over after finalize.
        #expect(hasher.finalize() == SHA256.hash([]))
    }

    @Test func aChunkIsVerifiedOnlyWithItsOwnBytesAndSize() throws {
        let bytes = [UInt8](repeating: 9, count: 4096)
        let entry = try ChunkIndex(chunks: [(4096, SHA256.hash(bytes))])[0]
        try bytes.withUnsafeBytes { raw in
            let chunk = try VerifiedChunk(checking: raw, against: entry)
            #expect(chunk.digest == entry.digest)
        }
        var flipped = bytes
        flipped[4095] ^= 1
        _ = flipped.withUnsafeBytes { raw in
            #expect(throws: ChunkMismatch.self) { _ = try VerifiedChunk(checking: raw, against: entry) }
        }
        _ = bytes.withUnsafeBytes { raw in
            #expect(throws: ChunkMismatch.size(expected: 4096, found: 4095)) {
                _ = try VerifiedChunk(checking: UnsafeRawBufferPointer(rebasing: raw[..<4095]), against: entry)
            }
        }
    }
}
