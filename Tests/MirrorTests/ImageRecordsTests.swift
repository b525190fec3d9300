import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import Mirror
import TestSupport
import Testing

@Suite("What is remembered of images over restarts") struct ImageRecordsTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory(prefix: "chunkd-records") }

    private var path: String { directory.path + "/images" }

    private func record(_ number: Int, isPublic: Bool = true) -> ImageRecords.Record {
        let manifest = Array("{\"number\": \(number)}\n".utf8)
        return ImageRecords.Record(name: "registry.example:5000/app/\(number)", isPublic: isPublic, manifest: manifest)
    }

    @Test("what was written is read, and what was removed is not")
    func keeps() throws {
        let records = try ImageRecords(directory: path)
        for number in 0..<4 { try records.write(record(number, isPublic: number % 2 == 0)) }
        records.remove(SHA256.hash(record(2).manifest))
        let found = try ImageRecords(directory: path).load(limit: 10)
        let kept = [record(0), record(1, isPublic: false), record(3, isPublic: false)]
        #expect(found.sorted { $0.name < $1.name } == kept)
    }

    @Test("the latest are kept, up to the limit")
    func limit() throws {
        let records = try ImageRecords(directory: path)
        for number in 0..<5 {
            try records.write(record(number))
            let file = path + "/" + SHA256.hash(record(number).manifest).hex
            try Command.run("touch", "-d", "@\(1_000_000 + (number + 2) % 5)", file)
        }
        #expect(try records.load(limit: 2) == [record(1), record(2)])
        #expect(try Directory.names(path).count == 2, "the others are deleted")
    }

    @Test("whatever is damaged, half-written or not of this form is deleted")
    func damaged() throws {
        let records = try ImageRecords(directory: path)
        let good = record(0)
        try records.write(good)
        let name = SHA256.hash(good.manifest).hex
        let whole = try File(path: path + "/" + name, flags: O_RDONLY).contents(limit: 4096)
        let line = Array("chunkd-mirror-image 1 public registry.example/app\n".utf8)
        func form(_ text: String) -> [UInt8] { Array(text.utf8) + good.manifest }
        let bad: [[UInt8]] = [
            [], line, Array(whole.dropLast()), whole + [0], Array(whole.dropFirst()),
            form("chunkd-mirror-image 2 public registry.example/app\n"),
            form("chunkd-mirror-image 1 open registry.example/app\n"),
            form("chunkd-mirror-image 1 public registry.example/app more\n"), form("chunkd-mirror-image 1 public\n"),
            form("chunkd-mirror-image 1 public " + String(repeating: "a", count: 2000) + "\n"),
        ]
        for bytes in bad {
            try Directory.replaceFile(path + "/" + name, bytes)
            #expect(try records.load(limit: 10) == [], "\(String(decoding: bytes.prefix(60), as: UTF8.self))")
            #expect(try Directory.names(path) == [])
        }
        for name in ["x.new", String(repeating: "0", count: 64)] { try Directory.replaceFile(path + "/" + name, whole) }
        try Directory.create(path + "/" + String(repeating: "1", count: 64), mode: 0o700)
        #expect(try records.load(limit: 10) == [])
    }
}
