import ChunkModel
import GRDB
import Glibc
import LinuxSystem
import Testing

@testable import Catalogue

/// A directory that goes with the test.
final class Scratch: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/catalogue-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemError(errno, "mkdtemp") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? Directory.removeFlat(path) }

    var database: String { path + "/catalogue.sqlite" }
}

@Suite struct CatalogueTests {
    private func digest(_ number: UInt64) throws -> Digest {
        var bytes = [UInt8](repeating: 7, count: 32)
        for place in 0..<8 { bytes[place] = UInt8(truncatingIfNeeded: number >> (8 * place)) }
        return try #require(Digest(rawBytes: bytes))
    }

    private func key(_ number: UInt64) throws -> BlobKey {
        BlobKey(blob: try digest(number), index: try digest(number + 1000))
    }

    private func index(_ contents: [UInt64]) throws -> ChunkIndex {
        var chunks: [(end: UInt64, digest: Digest)] = []
        for (number, content) in contents.enumerated() {
            chunks.append((UInt64(number + 1) * 4096, try digest(content + 100_000)))
        }
        return try ChunkIndex(chunks: chunks)
    }

    private func image(_ number: UInt64, blobs: [UInt64], references: [String], lastUsed: Double = 1) throws
        -> CatalogueImage
    {
        CatalogueImage(
            manifest: try digest(number), repository: "registry.test/app", references: references, lastUsed: lastUsed,
            bootstrapSize: 4096,
            blobs: try blobs.map { CatalogueBlob(key: try key($0), rawSize: 8192, chunkCount: 2) })
    }

    @Test func anImageComesBackAsItWasRecorded() async throws {
        let scratch = try Scratch()
        let catalogue = try Catalogue(path: scratch.database)
        #expect(catalogue.condition == .created)
        let image = try image(1, blobs: [11, 10], references: ["registry.test/app:a", "registry.test/app:b"])
        try await catalogue.record(image)
        #expect(try await catalogue.images() == [image])
        #expect(try await catalogue.image(image.manifest) == image)
        #expect(try await catalogue.manifest(of: "registry.test/app:b") == image.manifest)
        #expect(try await catalogue.manifest(of: "registry.test/app:c") == nil)
        let again = try Catalogue(path: scratch.database)
        #expect(again.condition == .opened)
        #expect(try await again.images() == [image])
    }

    @Test func aTagThatMovesStandsForTheNewImageAndTimesOnlyGrow() async throws {
        let scratch = try Scratch()
        let catalogue = try Catalogue(path: scratch.database)
        try await catalogue.record(try image(1, blobs: [10], references: ["registry.test/app:a"], lastUsed: 50))
        try await catalogue.record(try image(2, blobs: [10], references: ["registry.test/app:a"], lastUsed: 60))
        #expect(try await catalogue.manifest(of: "registry.test/app:a") == (try digest(2)))
        #expect(try await catalogue.image(try digest(1))?.references == [])
        try await catalogue.touch([(try digest(1), 40), (try digest(2), 70), (try digest(99), 70)])
        #expect(try await catalogue.images().map(\.lastUsed).sorted() == [50, 70])
        #expect(try await catalogue.setPinned(try digest(1), true))
        #expect(try await !catalogue.setPinned(try digest(99), true))
        #expect(try await catalogue.image(try digest(1))?.isPinned == true)
    }

    @Test func equalContentIsFoundInEveryBlobAndGoesWithItsLastImage() async throws {
        let scratch = try Scratch()
        let catalogue = try Catalogue(path: scratch.database)
        try await catalogue.record(try image(1, blobs: [10], references: []))
        try await catalogue.record(try image(2, blobs: [10, 20], references: []))
        try await catalogue.addPlaces(of: try key(10), try index([1, 2]))
        try await catalogue.addPlaces(of: try key(20), try index([3, 2]))
        try await catalogue.addPlaces(of: try key(20), try index([3, 2]))
        let shared = try digest(2 + 100_000)
        let alone = try digest(3 + 100_000)
        #expect(
            try await catalogue.places(of: [alone, shared, try digest(5)]) == [
                [ChunkPlace(blob: try key(20), chunk: 0)],
                [ChunkPlace(blob: try key(10), chunk: 1), ChunkPlace(blob: try key(20), chunk: 1)], [],
            ])
        try await catalogue.remove(try digest(2))
        #expect(try await catalogue.places(of: [shared, alone]) == [[ChunkPlace(blob: try key(10), chunk: 1)], []])
        try await catalogue.remove(try digest(1))
        #expect(try await catalogue.places(of: [shared]) == [[]])
    }

    @Test func manyChunksGoInBatches() async throws {
        let scratch = try Scratch()
        let catalogue = try Catalogue(path: scratch.database)
        try await catalogue.record(try image(1, blobs: [10], references: []))
        let contents = (0..<UInt64(Catalogue.batch * 2 + 17)).map { $0 }
        try await catalogue.addPlaces(of: try key(10), try index(contents))
        let last = try digest(UInt64(contents.count - 1) + 100_000)
        #expect(try await catalogue.places(of: [last]) == [[ChunkPlace(blob: try key(10), chunk: contents.count - 1)]])
    }

    @Test func aNewerSchemaIsRefusedAndLeftAlone() throws {
        let scratch = try Scratch()
        _ = try Catalogue(path: scratch.database)
        let queue = try DatabaseQueue(path: scratch.database)
        try queue.write { try $0.execute(sql: "INSERT INTO grdb_migrations (identifier) VALUES ('2')") }
        try queue.close()
        let error = #expect(throws: CatalogueError.self) { try Catalogue(path: scratch.database) }
        #expect(error?.code == .newerSchema)
        #expect(error?.message.contains("newer chunkd") == true)
        #expect(Directory.exists(scratch.database))
    }

    @Test(arguments: [0, 100, 5000, 20_000])
    func aDamagedDatabaseIsSetAsideAndANewOneWorks(offset: Int) async throws {
        let scratch = try Scratch()
        do {
            let catalogue = try Catalogue(path: scratch.database)
            for number in UInt64(1)...200 {
                try await catalogue.record(
                    try image(number, blobs: [number], references: ["registry.test/a:\(number)"]))
            }
        }
        // The last connection's end checkpointed the log into the file.
        let file = try File(path: scratch.database, flags: O_RDWR)
        let rubbish = [UInt8](repeating: 0xA5, count: 4096)
        try rubbish.withUnsafeBytes { try file.writeAll($0, at: UInt64(offset)) }
        let catalogue = try Catalogue(path: scratch.database)
        guard case .damaged(let aside, _) = catalogue.condition else {
            Issue.record("damage at \(offset) was not seen: \(catalogue.condition)")
            return
        }
        #expect(Directory.exists(aside))
        #expect(try await catalogue.images().isEmpty)
        try await catalogue.record(try image(1, blobs: [1], references: []))
        #expect(try await catalogue.images().count == 1)
    }

    @Test func aPlaceWhereNothingCanBeWrittenIsAnErrorThatNamesIt() {
        let error = #expect(throws: CatalogueError.self) { try Catalogue(path: "/proc/none/catalogue.sqlite") }
        #expect(error?.message.contains("/proc/none/catalogue.sqlite") == true)
    }
}
