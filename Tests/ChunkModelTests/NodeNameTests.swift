import ChunkModel
import Testing

@Suite struct NodeNameTests {
    @Test(arguments: [
        "a", "0", "node-1", "node-1.rack-2.example", "a--b", "a-.b", String(repeating: "x", count: 63),
    ])
    func accepts(_ text: String) throws {
        let name = try #require(NodeName(text))
        #expect(name.text == text)
        #expect(NodeName(name.description) == name)
    }

    @Test(arguments: [
        "", ".", "..", "-", "a.", ".a", "-a", "a-", "a..b", "A", "a_b", "a/b", "a b", "a\u{0}b", "ä", "a\u{301}",
        String(repeating: "x", count: 64),
    ])
    func refuses(_ text: String) {
        #expect(NodeName(text) == nil)
    }

    @Test func isOrderedByBytes() throws {
        let names = try ["b", "a.b", "a-b", "a0", "a"].map { try #require(NodeName($0)) }
        #expect(names.sorted().map(\.text) == ["a", "a-b", "a.b", "a0", "b"])
    }
}

@Suite struct WireIDTests {
    @Test func bytesAndHexRoundTrip() throws {
        let bytes = (0..<32).map { UInt8($0 * 7) }
        let id = try #require(WireID(rawBytes: bytes))
        #expect(id.rawBytes == bytes)
        #expect(id.hex.count == 64)
        #expect(WireID(hex: id.hex) == id)
        #expect(id.hex.hasPrefix("00070e15"))
        #expect(id.short == "00070e151c23")
        #expect(id.bigEndianWords.0 == 0x0007_0e15_1c23_2a31)
    }

    @Test func anotherLengthOrCaseIsRefused() {
        #expect(WireID(rawBytes: [UInt8](repeating: 1, count: 31)) == nil)
        #expect(WireID(rawBytes: [UInt8](repeating: 1, count: 33)) == nil)
        #expect(WireID(hex: String(repeating: "A", count: 64)) == nil)
        #expect(WireID(hex: String(repeating: "a", count: 63)) == nil)
    }

    @Test func hasTheBytesOfTheDigestItWasMadeFrom() throws {
        let digest = try #require(Digest(rawBytes: (0..<32).map { UInt8(255 - $0) }))
        #expect(WireID(digest).rawBytes == digest.rawBytes)
        #expect(WireID(digest).hex == digest.hex)
    }

    @Test func isOrderedByBytes() throws {
        var low = [UInt8](repeating: 0, count: 32)
        low[31] = 1
        var high = [UInt8](repeating: 0, count: 32)
        high[0] = 1
        let (a, b) = try (#require(WireID(rawBytes: low)), #require(WireID(rawBytes: high)))
        #expect(a < b)
        #expect(!(b < a))
    }
}
