import HTTPTransfer
import OCISpec
import TestSupport
import Testing

@testable import RegistryClient

private func head(_ status: Int, _ headers: (String, String)...) -> ResponseHead {
    ResponseHead(status: status, headers: headers.map { (name: $0.0, value: $0.1) })
}

@Suite struct OCIJSONTests {
    let good = """
        {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a/b",\
        "digest":"sha256:\(String(repeating: "ab", count: 32))","size":5,\
        "platform":{"os":"linux","architecture":"arm"},\
        "annotations":{"k":"v"}},"layers":[],"annotations":{"é":"\\u0000"}}
        """

    @Test func encodingIsCanonical() throws {
        let (document, _) = try OCIJSON.document(Array(good.utf8), mediaType: nil)
        guard case .manifest(let manifest) = document else {
            Issue.record("not a manifest")
            return
        }
        let bytes = try OCIJSON.encode(manifest)
        #expect(try OCIJSON.encode(manifest) == bytes)
        let text = String(decoding: bytes, as: UTF8.self)
        #expect(text.hasPrefix(#"{"annotations":{"#) && text.contains("a/b") && !text.contains(" "))
        #expect(try OCIJSON.document(bytes, mediaType: nil).document == document)
    }

    /// Mutated documents are read or refused; what is read can be written and read again to the same.
    @Test func mutatedDocumentsNeverTrap() throws {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        var accepted = 0
        for _ in 0..<4000 {
            var bytes = Array(good.utf8)
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: at)
                case 2: bytes.insert(contentsOf: bytes[at...].prefix(12), at: at)
                default: bytes[at] = Array(#"{}[]",:0-9e"#.utf8).randomElement(using: &random) ?? 0
                }
            }
            guard let read = try? OCIJSON.document(bytes, mediaType: nil), case .manifest(let manifest) = read.document
            else { continue }
            accepted += 1
            #expect(try OCIJSON.document(OCIJSON.encode(manifest), mediaType: nil).document == read.document)
        }
        #expect(accepted > 100)
    }
}

@Suite struct RangeReaderTests {
    @Test func aWholeBlobIsAskedForWithoutARange() {
        #expect(RangeReader(wanted: 0..<100, totalSize: 100).request == nil)
        #expect(RangeReader(wanted: 0..<100, totalSize: 101).request == 0..<100)
        #expect(RangeReader(wanted: 0..<100, totalSize: nil).request == 0..<100)
        #expect(RangeReader(wanted: 5..<100, totalSize: 100).request == 5..<100)
    }

    @Test func anExactPartIsTakenWhole() throws {
        var reader = RangeReader(wanted: 10..<30, totalSize: 100)
        try reader.accept(head(206, ("content-range", "bytes 10-29/100"), ("Content-Length", "20")), asked: 10..<30)
        #expect(reader.keep(15) == 0..<15)
        reader.took(15)
        #expect(reader.keep(5) == 0..<5)
        reader.took(5)
        #expect(reader.isDone)
        #expect(reader.keep(10).isEmpty)
    }

    @Test func aShorterPartIsGoneOnFrom() throws {
        var reader = RangeReader(wanted: 10..<30, totalSize: nil)
        try reader.accept(head(206, ("Content-Range", "bytes 10-14/*")), asked: 10..<30)
        // More bytes than the part announces are not taken.
        #expect(reader.keep(50) == 0..<5)
        #expect(!reader.isBeyond)
        reader.took(50)
        #expect(reader.isBeyond)
        #expect(reader.position == 15 && !reader.isDone)
        #expect(reader.request == 15..<30)
    }

    @Test func ofAWholeBodyTheWantedPartIsKept() throws {
        var reader = RangeReader(wanted: 10..<30, totalSize: 100)
        try reader.accept(head(200, ("Content-Length", "100")), asked: 10..<30)
        #expect(reader.isRangeIgnored)
        #expect(reader.keep(8).isEmpty)
        reader.took(8)
        #expect(reader.keep(12) == 2..<12)
        reader.took(12)
        #expect(reader.position == 20)
        #expect(reader.keep(80) == 0..<10)
        reader.took(80)
        #expect(reader.isDone)
        // After a reset in the middle the part that was passed on is skipped.
        var again = RangeReader(wanted: 10..<30, totalSize: 100)
        try again.accept(head(206, ("Content-Range", "bytes 10-29/100")), asked: 10..<30)
        again.took(12)
        try again.accept(head(200), asked: again.request)
        #expect(again.keep(40) == 22..<30)
    }

    @Test(
        arguments: [
            [("Content-Range", "bytes 0-19/100")], [("Content-Range", "bytes 10-30/100")],
            [("Content-Range", "bytes 11-29/100")],
            [("Content-Range", "bytes 10-29/101")], [("Content-Range", "bytes 29-10/100")],
            [("Content-Range", "bytes */100")],
            [("Content-Range", "nonsense")], [], [("Content-Range", "bytes 10-29/100"), ("Content-Length", "21")],
            [("Content-Range", "bytes 10-29/100"), ("Content-Range", "bytes 10-29/100")],
            [("Content-Range", "bytes 10-29/100"), ("Content-Type", "multipart/byteranges; boundary=x")],
        ] as [[(String, String)]])
    func wrongPartsAreRefused(headers: [(String, String)]) {
        var reader = RangeReader(wanted: 10..<30, totalSize: 100)
        let response = ResponseHead(status: 206, headers: headers.map { (name: $0.0, value: $0.1) })
        #expect(throws: RegistryError.self) { try reader.accept(response, asked: 10..<30) }
    }

    @Test func otherStatusesAreRefused() {
        var reader = RangeReader(wanted: 10..<30, totalSize: 100)
        #expect { try reader.accept(head(416, ("Content-Range", "bytes */20")), asked: 10..<30) } throws: { error in
            (error as? RegistryError)?.code == .sizeMismatch && "\(error)".contains("20")
        }
        #expect(throws: RegistryError.self) { try reader.accept(head(204), asked: 10..<30) }
        // A part although no range was asked for.
        #expect(throws: RegistryError.self) {
            try reader.accept(head(206, ("Content-Range", "bytes 0-9/10")), asked: nil)
        }
        #expect(throws: RegistryError.self) { try reader.accept(head(200, ("Content-Length", "99")), asked: 10..<30) }
        var far = RangeReader(wanted: (8 << 30)..<(9 << 30), totalSize: nil)
        #expect(throws: RegistryError.self) { try far.accept(head(200), asked: far.request) }
    }

    /// Whatever the server does, what is passed on is the wanted range, once and in order.
    @Test func randomServersNeverBreakTheOrder() {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let total = UInt64.random(in: 1...200, using: &random)
            let start = UInt64.random(in: 0..<total, using: &random)
            let end = UInt64.random(in: start + 1...total, using: &random)
            var reader = RangeReader(wanted: start..<end, totalSize: Bool.random(using: &random) ? total : nil)
            var out: [UInt64] = []
            var responses = 0
            while !reader.isDone && responses < 1000 {
                responses += 1
                let asked = reader.request
                let isWhole = Int.random(in: 0..<4, using: &random) == 0 || asked == nil
                let from = isWhole ? 0 : reader.position
                let to = isWhole ? total : UInt64.random(in: from + 1...end, using: &random)
                let response = isWhole ? head(200) : head(206, ("Content-Range", "bytes \(from)-\(to - 1)/\(total)"))
                guard (try? reader.accept(response, asked: asked)) != nil else {
                    Issue.record("refused a good response")
                    return
                }
                var offset = from
                // The response may be reset anywhere.
                let cut = UInt64.random(in: from...to, using: &random)
                while offset < cut {
                    let count = Int.random(in: 1...Int(cut - offset), using: &random)
                    let kept = reader.keep(count)
                    out += kept.map { offset + UInt64($0) }
                    reader.took(count)
                    offset += UInt64(count)
                }
            }
            #expect(out == Array(start..<end))
        }
    }
}
