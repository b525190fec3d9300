import ChunkModel
import ChunkStore
import Glibc
import Integrity
import LinuxSystem
import PreContent
import TestSupport
import Testing

/// The store on a real file system, without the kernel's events.
@Suite struct ChunkStoreTests {
    private let scratch: ScratchDirectory
    private let chunks: [[UInt8]]
    private let index: ChunkIndex
    private let manifest: [UInt8]
    private let bootstrap = [UInt8](repeating: 3, count: 5000)

    init() throws {
        scratch = try ScratchDirectory("store")
        chunks = (0..<5).map { number in [UInt8](repeating: UInt8(number + 1), count: number == 4 ? 1000 : 8192) }
        var end: UInt64 = 0
        index = try ChunkIndex(
            chunks: chunks.map { chunk in
                end += UInt64(chunk.count)
                return (end, SHA256.hash(chunk))
            })
        manifest = Self.manifest([bootstrap, Array("blob".utf8), index.caibx(sizes: (1, 2, 3))])
    }

    private static func manifest(_ parts: [[UInt8]]) -> [UInt8] {
        Array(([Array("config".utf8)] + parts).map { "\(SHA256.hash($0))" }.joined(separator: " ").utf8)
    }

    private func open() throws -> Store { try Store(root: scratch.appending("gate"), kept: [:]) { _, _ in } }

    private func memory(_ bytes: [UInt8]) throws -> File {
        try bytes.withUnsafeBytes { try File.sealed(name: "test", $0) }
    }

    private func add(to store: Store) throws -> StoredImage {
        try store.add(
            SHA256.hash(manifest), manifest: try memory(manifest), bootstrap: try memory(bootstrap),
            indexes: [try memory(index.caibx(sizes: (1, 2, 3)))]
        ) { _, _ in }
    }

    private func write(_ number: Int, to blob: Blob) throws {
        try chunks[number].withUnsafeBytes { raw in
            try blob.write(try VerifiedChunk(checking: raw, against: try blob.entry(number)), at: number)
        }
    }

    @Test func whatIsSyncedIsThereAgainAndWhatIsNotIsAbsent() throws {
        let blob = try #require(try add(to: open()).blobs.first)
        try write(0, to: blob)
        try write(2, to: blob)
        #expect(try blob.sync() == .synced)
        try write(3, to: blob)
        #expect(blob.resident.count == 3)
        let again = try #require(try open().image(SHA256.hash(manifest)).blobs.first)
        #expect((0..<5).filter { again.resident.contains($0) } == [0, 2])
        #expect(!again.isGraduated)
    }

    @Test func aCompleteBlobSaysSoOnceAndStaysComplete() throws {
        let blob = try #require(try add(to: open()).blobs.first)
        for number in 0..<5 { try write(number, to: blob) }
        #expect(try blob.sync() == .graduated)
        #expect(try blob.sync() == .clean)
        let again = try #require(try open().image(SHA256.hash(manifest)).blobs.first)
        #expect(again.isGraduated)
        #expect(try again.data.contents(limit: 1 << 20).starts(with: chunks.flatMap { $0 }))
    }

    @Test func damagedFilesAreRefusedWithWhatWasExpected() throws {
        let image = try add(to: open())
        let blob = try #require(image.blobs.first)
        for path in [image.directory + "/manifest", blob.path.replacing("/data", with: "/index.caibx")] {
            let file = try File(path: path, flags: O_RDWR)
            let original = try file.contents(limit: 1 << 20)
            var damaged = original
            damaged[damaged.count - 1] ^= 1
            try file.writeAll(damaged, at: 0)
            #expect(throws: StoreError.self, "\(path)") { try open().image(image.digest) }
            try file.writeAll(original, at: 0)
        }
        let bootstrapFile = try File(path: image.bootstrapPath, flags: O_RDWR)
        try bootstrapFile.writeAll([9], at: 100)
        #expect(throws: StoreError.self) { try open().checkBootstrap(image) }
        #expect(try open().image(image.digest).blobs.count == 1)
    }

    @Test func aCutBackingFileIsRefused() throws {
        let image = try add(to: open())
        try #require(image.blobs.first).data.truncate(to: 4096)
        #expect(throws: StoreError.self) { try open().image(image.digest) }
    }

    @Test func aDamagedChunkIsFoundByVerify() throws {
        let blob = try #require(try add(to: open()).blobs.first)
        try write(1, to: blob)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 4096)
        defer { buffer.deallocate() }
        #expect(try blob.verify(1, buffer: buffer))
        try blob.data.writeAll([0xFF], at: 8192 + 77)
        #expect(try !blob.verify(1, buffer: buffer))
    }

    @Test func oneBlobUnderTwoIndexesIsTwoThings() throws {
        let store = try open()
        let first = try add(to: store)
        try write(0, to: #require(first.blobs.first))
        // The same blob digest, with an index that says other bytes are its content.
        let evil = [UInt8](repeating: 66, count: 8192)
        let forged = try ChunkIndex(chunks: [(8192, SHA256.hash(evil))]).caibx(sizes: (1, 2, 3))
        let other = Self.manifest([bootstrap, Array("blob".utf8), forged])
        let second = try store.add(
            SHA256.hash(other), manifest: try memory(other), bootstrap: try memory(bootstrap),
            indexes: [try memory(forged)]
        ) { _, _ in }
        let (a, b) = (try #require(first.blobs.first), try #require(second.blobs.first))
        #expect(a.key.blob == b.key.blob)
        #expect(a.inode != b.inode)
        #expect(b.resident.count == 0)
    }

    @Test func localCopiesAreVerifiedAndRemovalKeepsWhatOthersName() throws {
        let store = try open()
        let first = try add(to: store)
        let source = try #require(first.blobs.first)
        try write(1, to: source)
        let shared = try ChunkIndex(chunks: [(8192, SHA256.hash(chunks[1]))]).caibx(sizes: (1, 2, 3))
        let other = Self.manifest([bootstrap, Array("blob2".utf8), shared])
        let second = try store.add(
            SHA256.hash(other), manifest: try memory(other), bootstrap: try memory(bootstrap),
            indexes: [try memory(shared)]
        ) { _, _ in }
        let target = try #require(second.blobs.first)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 4096)
        defer { buffer.deallocate() }
        #expect(throws: StoreError.self) { try target.copy(0, from: source, chunk: 0, buffer: buffer) }
        #expect(!target.resident.contains(0))
        try target.copy(0, from: source, chunk: 1, buffer: buffer)
        #expect(target.resident.contains(0))
        #expect(try target.data.bytes(at: 0, count: 8192) == chunks[1])
        let (gone, bytes) = try store.remove(first.digest)
        #expect(gone.map(\.key) == [source.key])
        #expect(bytes >= 8192)
        #expect(try store.imageDigests() == [second.digest])
        #expect(Directory.exists(target.path))
    }

    @Test func aFileSystemWithoutPreContentEventsIsRefusedByName() throws {
        let error = #expect(throws: StoreError.self) { try Store(root: "/dev/shm/chunkd-test", kept: [:]) { _, _ in } }
        #expect(error?.message.contains("tmpfs") == true)
        try Directory.removeFlat("/dev/shm/chunkd-test")
    }

    @Test func aNewerStoreIsRefused() throws {
        _ = try open()
        try Directory.replaceFile(scratch.appending("gate/FORMAT"), Array("2\n".utf8))
        #expect(throws: StoreError.self) { try open() }
    }

    @Test func aJournalRemembersWhatWasNotAnswered() throws {
        let journal = try AccessJournal.create(capacity: 1000)
        let record = AccessJournal.Record(descriptor: 37, shard: 2, device: 5, inode: 6, range: 4096..<8192)
        journal.record(record)
        journal.record(.init(descriptor: 40, shard: 0, device: 5, inode: 6, range: 0..<1))
        journal.clear(40)
        #expect(try AccessJournal(file: journal.file).pending() == [record])
    }
}
