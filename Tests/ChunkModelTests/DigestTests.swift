import ChunkModel
import Testing

@Suite struct DigestTests {
    let hex = "00ff10203040506070809000a0b0c0d0e0f0112233445566778899aabbccddee"

    @Test func parsesAndPrintsTheSameText() throws {
        let digest = try #require(Digest("sha256:" + hex))
        #expect(digest.description == "sha256:" + hex)
        #expect(digest.hex == hex)
        #expect(Digest(rawBytes: digest.rawBytes) == digest)
    }

    @Test(arguments: [
        "", "sha256:", "sha256:../../etc/passwd", "sha512:" + String(repeating: "a", count: 64),
        "sha256:" + String(repeating: "A", count: 64), "sha256:" + String(repeating: "a", count: 63),
        "sha256:" + String(repeating: "a", count: 65), " sha256:" + String(repeating: "a", count: 64),
        "sha256:" + String(repeating: "a", count: 63) + "\n", String(repeating: "a", count: 64),
        "sha256:" + String(repeating: "ä", count: 32),
    ])
    func refusesWhatIsNoDigest(_ text: String) { #expect(Digest(text) == nil) }

    @Test func refusesOtherLengthsOfRawBytes() {
        #expect(Digest(rawBytes: [UInt8](repeating: 1, count: 31)) == nil)
        #expect(Digest(rawBytes: [UInt8](repeating: 1, count: 33)) == nil)
    }

    @Test func ordersAsItsHexadecimalText() throws {
        var random = SystemRandomNumberGenerator()
        let digests = (0..<100).compactMap { _ in
            Digest(rawBytes: (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) })
        }
        #expect(digests.sorted().map(\.hex) == digests.map(\.hex).sorted())
    }

    @Test func crc32cMatchesItsPublishedVector() {
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xE306_9283)
    }
}
