import ChunkModel
import OCISpec
import Testing

@Suite struct AccessTraceTests {
    static func digest(_ letter: String) throws -> Digest {
        try #require(Digest(hex: String(repeating: letter, count: 64)))
    }

    private func sample() throws -> AccessTrace {
        try AccessTrace(
            image: Self.digest("a"),
            blobs: [.init(digest: Self.digest("b"), chunks: 100), .init(digest: Self.digest("c"), chunks: 7)],
            runs: [.init(blob: 0, chunks: 17..<20), .init(blob: 1, chunks: 0..<1), .init(blob: 0, chunks: 3..<4)],
            bytes: 2_600_000)
    }

    private var text: String {
        """
        chunkd-trace 1.0
        image sha256:\(String(repeating: "a", count: 64))
        blob sha256:\(String(repeating: "b", count: 64)) 100
        blob sha256:\(String(repeating: "c", count: 64)) 7
        bytes 2600000
        runs 3
        0 17 3
        1 0
        0 3

        """
    }

    private func error(_ text: String) -> OCISpecError? {
        do throws(OCISpecError) {
            _ = try AccessTrace(decoding: Array(text.utf8))
            return nil
        } catch { return error }
    }

    @Test func theDocumentIsAsTheFormatSays() throws {
        let trace = try sample()
        #expect(String(decoding: trace.encoded(), as: UTF8.self) == text)
        #expect(try AccessTrace(decoding: Array(text.utf8)) == trace)
        #expect(trace.chunkCount == 5 && trace.imageChunkCount == 107)
    }

    @Test func whatANewerMinorVersionAddsIsSkipped() throws {
        let newer = text.replacing("1.0", with: "1.7").replacing("bytes 2600000", with: "bytes 2600000 raw\nhost x y z")
            .replacing("0 17 3\n", with: "0 17 3 5ms\n")
        #expect(try AccessTrace(decoding: Array(newer.utf8)) == sample())
        #expect(error(text.replacing("runs 3", with: "host x\nruns 3"))?.code == .invalidDocument)
    }

    @Test func aNewerMajorVersionIsRefusedAndSaysSo() {
        let found = error(text.replacing("1.0", with: "2.0"))
        #expect(found?.message.contains("version 2.0, expected 1") == true, "\(found?.message ?? "taken")")
    }

    @Test(arguments: [
        ("0 17 3", "0 17"), ("runs 3", "runs 2"), ("runs 3", "runs 4"), ("runs 3", "runs 0"), ("0 17 3", "0 99 3"),
        ("0 17 3", "2 17 3"), ("0 17 3", "0 17 0"), ("0 17 3", "0 017 3"), ("0 17 3", "0 -1 3"), ("0 17 3", "0 2 3"),
        ("image sha256:a", "image sha256:A"), ("chunkd-trace", "trace"), ("1 0\n", "1 0 \n"), ("1 0\n", "\n1 0\n"),
        ("bytes 2600000", "bytes 2600000\nbytes 1"), (" 100\n", " 1048577\n"), ("0 3\n", "0 3"),
        ("0 17 3", "0 17 9999999999999999999"), ("runs 3", "runs 65537"),
    ])
    func whatDoesNotHoldIsRefused(old: String, new: String) throws {
        // One case is no error: a shorter run is another good trace.
        if new == "0 17" { return #expect(error(text.replacing(old, with: new, maxReplacements: 1)) == nil) }
        let found = error(text.replacing(old, with: new, maxReplacements: 1))
        #expect(found != nil, "\(new) was taken")
        #expect((found?.message.utf8.count ?? 0) < 400)
    }

    @Test func aCutDocumentIsRefusedWhereverItIsCut() {
        let bytes = Array(text.utf8)
        for count in 0..<bytes.count {
            #expect(throws: OCISpecError.self, "cut at \(count)") { try AccessTrace(decoding: Array(bytes[..<count])) }
        }
    }

    @Test func theLargestTraceFitsItsLimitAndALargerOneIsRefused() throws {
        let blobs = try (0..<Limits.maxBlobsPerImage).map { _ in
            AccessTrace.Blob(digest: try Self.digest("f"), chunks: Limits.maxChunksPerBlob)
        }
        let runs = (0..<AccessTrace.maxRuns).map { number in
            AccessTrace.Run(
                blob: 63, chunks: Limits.maxChunksPerBlob - 2 * number - 1..<Limits.maxChunksPerBlob - 2 * number)
        }
        let trace = try AccessTrace(image: Self.digest("a"), blobs: blobs, runs: runs, bytes: AccessTrace.maxChunkBytes)
        #expect(trace.encoded().count <= AccessTrace.maxBytes)
        #expect(throws: OCISpecError.self) {
            try AccessTrace(
                image: Self.digest("a"), blobs: blobs, runs: runs + [.init(blob: 0, chunks: 0..<1)], bytes: 0)
        }
        #expect(throws: OCISpecError.self) {
            try AccessTrace(decoding: [UInt8](repeating: UInt8(ascii: "\n"), count: AccessTrace.maxBytes + 1))
        }
    }

    @Test func aTraceIsCheckedAgainstItsImage() throws {
        let trace = try sample()
        try trace.check(image: trace.image, blobs: trace.blobs)
        let other = try Self.digest("d")
        #expect(throws: OCISpecError.self) { try trace.check(image: other, blobs: trace.blobs) }
        #expect(throws: OCISpecError.self) { try trace.check(image: trace.image, blobs: [trace.blobs[0]]) }
        #expect(throws: OCISpecError.self) {
            try trace.check(image: trace.image, blobs: [trace.blobs[0], .init(digest: other, chunks: 7)])
        }
        #expect(throws: OCISpecError.self) {
            try trace.check(image: trace.image, blobs: [trace.blobs[1], trace.blobs[0]])
        }
    }
}
