import ChunkModel
import Integrity
import Testing

/// The vectors were computed with Python's hashlib and hmac.
@Suite struct WireKeysTests {
    private func digest(_ fill: UInt8) throws -> Digest {
        try #require(Digest(rawBytes: [UInt8](repeating: fill, count: 32)))
    }

    @Test func aPublicBlobIsNamedByTheHashOfItsTwoDigests() throws {
        #expect(
            WireID.blob(try digest(1), index: try digest(2), key: nil).hex
                == "3bcfa3718601eb00abe9c7dd3d61323da78be646c55de93a216a2d995d3a361d")
    }

    @Test func aPublicChunkIsNamedByItsDigest() throws {
        let digest = try digest(3)
        #expect(WireID.chunk(digest, key: nil).hex == digest.hex)
    }

    @Test func aPrivateIdIsTheHMACUnderTheManifestsKey() throws {
        let key = ManifestKey(manifest: Array(#"{"schemaVersion":2}"#.utf8))
        #expect(
            WireID.blob(try digest(1), index: try digest(2), key: key).hex
                == "1df2af17bab64f5c018a9d04f9883be8cf227e0acd523527c5d7c5462ed52841")
        #expect(
            WireID.chunk(try digest(3), key: key).hex
                == "c7d9c855f340afc65df78d8fc0a204de238a84bceb2d099929c826801a42c835")
    }

    @Test func anOrdinaryImageIsNamedByItsManifest() throws {
        let key = ManifestKey(manifest: Array(#"{"schemaVersion":2}"#.utf8))
        #expect(
            WireID.wholeImage(try digest(1), key: nil).hex
                == "36f04d1ec91f0f7026e7741d67b5c6b41145c8eeceb05debc6776efac2deec9a")
        #expect(
            WireID.wholeImage(try digest(1), key: key).hex
                == "8f9f2f750a05e52cebc4fe90b86ec49c3d92ce37339a234563959879ce147e06")
    }

    @Test func anotherManifestGivesOtherIds() throws {
        let one = ManifestKey(manifest: Array("a".utf8))
        let other = ManifestKey(manifest: Array("b".utf8))
        #expect(WireID.chunk(try digest(3), key: one) != WireID.chunk(try digest(3), key: other))
        #expect(WireID.chunk(try digest(3), key: one) == WireID.chunk(try digest(3), key: one))
    }

    @Test func aKeyIsNotPrinted() {
        #expect("\(ManifestKey(manifest: [1, 2, 3]))" == "manifest key")
    }
}
