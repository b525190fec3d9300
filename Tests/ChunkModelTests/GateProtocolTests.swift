import ChunkModel
import Testing

@Suite struct GateProtocolTests {
    private let digest: Digest
    init() throws { digest = try #require(Digest(rawBytes: (0..<32).map { UInt8($0) })) }

    private var requests: [GateProtocol.Request] {
        let at = GateProtocol.ChunkAddress(blob: 7, chunk: 9)
        return [
            .hello(slotSize: 1 << 20, slotCount: 16), .openImage(manifest: digest, mount: true, blobCount: 3),
            .closeImage(manifest: digest), .fill(at: at, slot: 2, length: 4096, repair: false), .fail(at: at, errno: 5),
            .copy(to: at, from: .init(blob: 1, chunk: 2)), .residency(blob: 4), .list, .stat,
            .verify(blob: 1, first: 2, count: 3), .removeImage(manifest: digest),
            .makeSnapshot(id: 1 << 40, like: .none), .makeSnapshot(id: 2, like: .snapshot(1 << 41)),
            .makeSnapshot(id: 3, like: .image(digest)), .removeSnapshot(id: .max), .snapshotUsage(id: 5),
            .listSnapshots(after: 6), .listBlocked, .keepListener, .keptListener,
        ]
    }

    private var events: [GateProtocol.Event] {
        let at = GateProtocol.ChunkAddress(blob: 7, chunk: 9)
        let blob = GateProtocol.BlobInfo(
            handle: 3, digest: digest, rawSize: 1 << 40, chunkCount: 5, residentCount: 2, residentBytes: 1 << 33,
            graduated: true)
        return [
            .helloReply(integrityGap: true, epoch: 12), .miss(at), .touched([at, at]), .touched([]),
            .filled(at: at, slot: 1, status: .writeFailed, errno: 28),
            .reply(errno: 2, value: 1 << 50, message: "not here: ä"),
            .image(
                .init(
                    manifest: digest, mounted: true, tainted: true, bootstrapSize: 77, path: "/x/y z",
                    blobs: [blob, blob])),
            .end, .residencyBits(blob: 1, chunkCount: 9, bits: [0xFF, 1]), .counters([.hits: 5, .selfEvents: 0]),
            .verified(blob: 1, checked: 10, absent: 2, bad: [3, 4]),
            .snapshotUsage(id: 1 << 40, bytes: 1 << 41, inodes: 3), .snapshots([1, 2, .max]), .snapshots([]),
            .blocked([]),
            .blocked([.init(pid: 1, at: at, milliseconds: .max), .init(pid: 0, at: at, milliseconds: 2)]),
        ]
    }

    @Test func everyFrameDecodesToWhatWasEncoded() throws {
        for request in requests {
            let (decoded, number) = try GateProtocol.decodeRequest(GateProtocol.encode(request, number: 42))
            #expect(decoded == request)
            #expect(number == 42)
        }
        for event in events {
            let (decoded, number) = try GateProtocol.decodeEvent(GateProtocol.encode(event, number: 43))
            #expect(decoded == event)
            #expect(number == 43)
        }
    }

    @Test func fillHasTheDocumentedBytes() {
        let frame = GateProtocol.encode(
            .fill(at: .init(blob: 1, chunk: 2), slot: 3, length: 4096, repair: true), number: 5)
        #expect(
            frame == [
                4, 0, 1, 0, 5, 0, 0, 0,  // kind fill, version 1, request 5
                1, 0, 0, 0, 2, 0, 0, 0,  // blob 1, chunk 2
                3, 0, 0, 0, 0, 16, 0, 0, 1, 0, 0, 0,  // slot 3, 4096 bytes, repair
            ])
    }

    @Test func makeSnapshotHasTheDocumentedBytes() {
        #expect(
            GateProtocol.encode(.makeSnapshot(id: 258, like: .snapshot(7)), number: 5) == [
                14, 0, 1, 0, 5, 0, 0, 0,  // kind makeSnapshot, version 1, request 5
                2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0,  // id 258, like snapshot 7
            ])
        var unknown = GateProtocol.encode(.makeSnapshot(id: 258, like: .none), number: 5)
        unknown[16] = 3
        #expect(throws: GateProtocol.Malformed.badValue(field: "like")) { try GateProtocol.decodeRequest(unknown) }
    }

    @Test func aListOfSnapshotsFitsItsFrameAndEndsAtItsLimit() throws {
        let most = (1...UInt64(GateProtocol.maxListedSnapshots)).map { $0 << 32 }
        let frame = GateProtocol.encode(.snapshots(most + [1 << 60]))
        #expect(frame.count <= GateProtocol.maxFrameSize)
        #expect(try GateProtocol.decodeEvent(frame).event == .snapshots(most))
        #expect(throws: GateProtocol.Malformed.self) {
            try GateProtocol.decodeEvent(frame + [UInt8](repeating: 0, count: 8))
        }
    }

    @Test func cutAndLongFramesAreRefused() {
        for request in requests {
            let frame = GateProtocol.encode(request, number: 1)
            for count in 0..<frame.count {
                #expect(throws: GateProtocol.Malformed.self) { try GateProtocol.decodeRequest(Array(frame[..<count])) }
            }
            #expect(throws: GateProtocol.Malformed.self) { try GateProtocol.decodeRequest(frame + [0]) }
        }
    }

    @Test func anotherVersionIsRefusedByName() {
        var frame = GateProtocol.encode(.list, number: 1)
        frame[2] = 2
        #expect(throws: GateProtocol.Malformed.version(2)) { try GateProtocol.decodeRequest(frame) }
    }

    @Test func randomBytesNeverTrap() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var state = seed
        func next() -> UInt64 {
            // splitmix64
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
            return z ^ z >> 31
        }
        for _ in 0..<20_000 {
            var frame = (0..<Int(next() % 80)).map { _ in UInt8(truncatingIfNeeded: next()) }
            if frame.count > 4 { (frame[1], frame[2], frame[3]) = (0, 1, 0) }
            _ = try? GateProtocol.decodeRequest(frame)
            _ = try? GateProtocol.decodeEvent(frame)
        }
    }

    @Test func manifestTokensAreTakenInOrderAndNothingElse() throws {
        let digests = try (0..<6).map { number in
            try #require(Digest(rawBytes: [UInt8](repeating: UInt8(number), count: 32)))
        }
        let text = "{" + digests.map { "\"digest\":\"\($0)\"" }.joined(separator: ",") + "}"
        let found = try ManifestDigests(manifest: Array(text.utf8))
        #expect(found.config == digests[0])
        #expect(found.bootstrap == digests[1])
        #expect(
            found.blobs == [.init(blob: digests[2], index: digests[3]), .init(blob: digests[4], index: digests[5])])
        #expect(throws: ManifestDigests.Invalid.wrongCount(5)) {
            try ManifestDigests(manifest: Array(text.replacing(digests[5].description, with: "").utf8))
        }
        #expect(throws: ManifestDigests.Invalid.self) { try ManifestDigests(manifest: Array("sha256:abc".utf8)) }
        #expect(throws: ManifestDigests.Invalid.wrongCount(0)) { try ManifestDigests(manifest: []) }
        let many = String(repeating: "\(digests[0]) ", count: 200)
        #expect(throws: ManifestDigests.Invalid.self) { try ManifestDigests(manifest: Array(many.utf8)) }
    }
}
