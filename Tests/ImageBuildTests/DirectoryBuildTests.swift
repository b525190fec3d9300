import ChunkModel
import ErofsFormat
import Glibc
import ImageBuild
import Integrity
import LinuxSystem
import OCISpec
import Testing
import TestSupport

@Suite("An image built from a directory is the directory, in parts that other tools read")
struct DirectoryBuildTests {
    private let workshop: Workshop

    init() throws { workshop = try Workshop("directory") }

    private func sample(_ name: String = "tree", seed: UInt64, smallFiles: Int = 100) throws -> String {
        let tree = try workshop.scratch.makeDirectory(name)
        var options = SampleTree.Options(seed: seed)
        options.smallFiles = smallFiles
        options.largeFileSize = 2 << 20
        options.sockets = true
        try SampleTree.make(at: tree, options)
        return tree
    }

    @Test(.enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"), arguments: [true, false])
    func theMountedImageIsTheTree(compressed: Bool) async throws {
        let seed = printedSeed()
        let tree = try sample(seed: seed)
        let result = try await workshop.build(.directory(tree)) { $0.format = compressed ? .zstd(level: 3) : .raw }
        let report = try await workshop.compare(tree, seed: seed)
        #expect(report.files > 120 && report.bytes == result.fileBytes + linkedBytes(report, result))
        #expect(workshop.leftovers == [])
    }

    /// Hard links: the reader counts each name, the image each file.
    private func linkedBytes(_ report: GoldenReader.Report, _ result: BuildResult) -> UInt64 {
        report.bytes - result.fileBytes
    }

    @Test func otherToolsReadThePartsAlike() async throws {
        let seed = printedSeed()
        let tree = try sample(seed: seed)
        let raw = try await workshop.build(.directory(tree), to: "raw") { $0.format = .raw }
        let zstd = try await workshop.build(.directory(tree), to: "zstd")
        #expect(raw.rawSize == zstd.rawSize && raw.storedSize == raw.rawSize && zstd.storedSize < raw.storedSize)
        let (rawParts, zstdParts) = (try await workshop.parts("raw"), try await workshop.parts("zstd"))
        let rawBlob = try #require(rawParts.blob)
        let zstdBlob = try #require(zstdParts.blob)
        // zstd(1) made zstdParts.blob of the seekable blob.
        #expect(try workshop.contents(rawBlob) == workshop.contents(zstdBlob))
        #expect(rawParts.bootstrap.split(separator: "/").last == zstdParts.bootstrap.split(separator: "/").last)
        #expect(rawParts.index?.split(separator: "/").last == zstdParts.index?.split(separator: "/").last)
        try Command.run("fsck.erofs", "--device=\(rawBlob)", rawParts.bootstrap)
        let dump = try Command.run("dump.erofs", "-s", "--device=\(rawBlob)", rawParts.bootstrap)
        #expect(dump.contains("chunked_file device_table"))
    }

    @Test func casyncExtractsTheBlobFromIndexAndChunks() async throws {
        let seed = printedSeed()
        let tree = try sample(seed: seed)
        try await workshop.build(.directory(tree)) { $0.format = .raw }
        let parts = try await workshop.parts()
        let blob = try #require(parts.blob)
        let index = try ChunkIndex(caibx: try workshop.contents(try #require(parts.index)))
        let bytes = try workshop.contents(blob)
        let store = try workshop.scratch.makeDirectory("store.castr")
        #expect(index.count > 10)
        for number in 0..<index.count {
            let entry = index[number]
            let chunk = Array(bytes[Int(entry.range.lowerBound)..<Int(entry.range.upperBound)])
            #expect(SHA256.hash(chunk) == entry.digest)
            // casync's store: the first four digits are a directory, chunks are zstd files.
            let directory = store + "/" + entry.digest.hex.prefix(4)
            try Directory.create(directory, mode: 0o755)
            let file = directory + "/" + entry.digest.hex
            try Directory.replaceFile(file, chunk)
            try Command.run("zstd", "-q", "-f", "--rm", "-o", file + ".cacnk", file)
        }
        try Command.run("cp", try #require(parts.index), workshop.path("blob.caibx"))
        try Command.run(
            "casync", "extract", "--store=\(store)", workshop.path("blob.caibx"), workshop.path("extracted"))
        #expect(try workshop.contents(workshop.path("extracted")) == bytes)
    }

    @Test func theSameTreeGivesTheSameDigests() async throws {
        let seed = printedSeed()
        let tree = try sample(seed: seed)
        // A copy made in another order: tar sorts names backwards, and its directories are filled the other way round.
        let copy = try workshop.scratch.makeDirectory("copy")
        try Command.run(
            "sh", "-c",
            "cd '\(tree)' && find . -mindepth 1 -not -type s -print0 | sort -zr "
                + "| tar --null --no-recursion --xattrs --xattrs-include='*' --format=pax -cf - -T - "
                + "| tar --xattrs --xattrs-include='*' --same-owner -xpf - -C '\(copy)'")
        try Command.run("rm", "-f", tree + "/special/socket")
        try Command.run("touch", "-r", tree + "/links", tree + "/special", copy + "/special")
        try Command.run("touch", "-r", tree, copy)
        let first = try await workshop.build(.directory(tree), to: "one") { $0.workers = 2 }
        let second = try await workshop.build(.directory(copy), to: "two") { $0.workers = 1 }
        #expect(first.manifestDigest == second.manifestDigest)
        let again = try await workshop.build(.directory(tree + "/../tree/."), to: "three") { $0.workers = 5 }
        #expect(first.manifestDigest == again.manifestDigest)
    }

    @Test func aLargeFileHasChunksOfItsOwnAndTheSameOnesInEveryImage() async throws {
        let seed = printedSeed()
        let sizes = [200_000, 1_000_000, 3_000_001]
        var indexes: [ChunkIndex] = []
        for (number, names) in [["b", "d", "f"], ["0", "c", "z"]].enumerated() {
            let tree = try workshop.scratch.makeDirectory("tree-\(number)")
            var neighbours = SeededGenerator(seed: seed &+ UInt64(number))
            for name in ["a", "c1", "e", "y"] {
                try Directory.replaceFile(tree + "/" + name, neighbours.bytes(30_000 * (number + 1)))
            }
            for (name, size) in zip(names, sizes) {
                var large = SeededGenerator(seed: ~seed &+ UInt64(size))
                try Directory.replaceFile(tree + "/" + name, large.bytes(size))
            }
            try await workshop.build(.directory(tree), to: "image-\(number)")
            let parts = try await workshop.parts("image-\(number)")
            indexes.append(try ChunkIndex(caibx: try workshop.contents(try #require(parts.index))))
        }
        let chunks = indexes.map { index in
            Set((0..<index.count).map { Sized(digest: index[$0].digest, size: index[$0].range.count) })
        }
        // What both have: all of the large files, and nothing else.
        let shared = chunks[0].intersection(chunks[1]).reduce(0) { $0 + $1.size }
        #expect(shared == sizes.reduce(0) { $0 + ($1 + 4095) / 4096 * 4096 }, "seed \(seed)")
    }

    private struct Sized: Hashable {
        let digest: Digest
        let size: Int
    }

    @Test func aTreeWithoutDataHasABootstrapAlone() async throws {
        let tree = try workshop.scratch.makeDirectory("tree")
        try Command.run(
            "sh", "-c", "cd '\(tree)' && mkdir -p a/b && touch a/empty && ln -s empty a/link && mkfifo pipe")
        let result = try await workshop.build(.directory(tree))
        #expect(result.rawSize == 0 && result.chunks == 0 && result.storedSize == 0 && result.files == 6)
        let summary = try await workshop.inspect()
        #expect(summary.layers.count == 1 && summary.blobs.isEmpty)
        #expect(summary.tree.files == 1 && summary.tree.directories == 3 && summary.tree.symlinks == 1)
        let bootstrap = try workshop.contents(workshop.blob(summary.layers[0].digest))
        let superblock = try bootstrap.withUnsafeBytes { try Superblock(image: $0) }
        #expect(superblock.extraDevices == 0)
        try Command.run("fsck.erofs", workshop.blob(summary.layers[0].digest))
    }

    @Test func inspectTellsWhatIsThere() async throws {
        let seed = printedSeed()
        let tree = try sample(seed: seed)
        let result = try await workshop.build(.directory(tree), tag: "v1")
        let summary = try await workshop.inspect(tag: "v1")
        #expect(summary.manifestDigest == result.manifestDigest && summary.version == "1")
        #expect(summary.config.platform == Platform.current.description)
        #expect(summary.config.created == "1970-01-01T00:00:00Z")
        #expect(summary.layers.map(\.mediaType) == [MediaTypes.bootstrap, MediaTypes.blobZstd, MediaTypes.chunkIndex])
        let blob = try #require(summary.blobs.first)
        #expect(blob.rawSize == result.rawSize && blob.storedSize == result.storedSize)
        #expect(blob.chunks == result.chunks && blob.distinctChunks == result.distinctChunks)
        #expect(blob.histogram.reduce(0) { $0 + $1.chunks } == blob.chunks)
        #expect(blob.largestChunk <= 1 << 20 && blob.smallestChunk <= blob.meanChunk)
        #expect(summary.tree.fileBytes == result.fileBytes)
    }

    @Test func damagedPartsAreFoundByInspect() async throws {
        let tree = try workshop.scratch.makeDirectory("tree")
        try Command.run("sh", "-c", "head -c 3000000 /dev/urandom >'\(tree)/data'")
        try await workshop.build(.directory(tree))
        let summary = try await workshop.inspect()
        let blob = workshop.blob(summary.layers[1].digest)
        // The last byte of the seek table's magic; the blob itself is not hashed by inspect.
        let size = try File(path: blob, flags: O_RDONLY).size()
        let file = try File(path: blob, flags: O_RDWR)
        try [UInt8(0)].withUnsafeBytes { try file.writeAll($0, at: size - 1) }
        await #expect(throws: ImageBuildError.self) { try await workshop.inspect() }
        try Command.run("sh", "-c", "printf x >>'\(workshop.blob(summary.layers[0].digest))'")
        await #expect(throws: ImageBuildError.self) { try await workshop.inspect() }
    }

    @Test func equalFilesOfTwoTreesShareTheirChunks() async throws {
        var random = SeededGenerator(seed: printedSeed())
        let (one, two) = (try workshop.scratch.makeDirectory("one"), try workshop.scratch.makeDirectory("two"))
        for number in 0..<6 {
            let bytes = random.bytes(3 << 20)
            for tree in [one, two] { try Directory.replaceFile("\(tree)/m\(number)", bytes) }
        }
        try Directory.replaceFile(two + "/a-first", random.bytes(123_456))
        let before = try await workshop.build(.directory(one), to: "before")
        try await workshop.build(.directory(two), to: "after")
        func digests(_ layout: String) async throws -> Set<Digest> {
            let index = try ChunkIndex(
                caibx: try workshop.contents(try #require(try await workshop.parts(layout).index)))
            return Set((0..<index.count).map { index[$0].digest })
        }
        let shared = try await digests("before").intersection(try await digests("after"))
        #expect(shared.count >= before.chunks - 2, "\(shared.count) of \(before.chunks)")
    }

    @Test func progressOfEachPhaseEndsAtItsTotal() async throws {
        let seed = printedSeed()
        let tree = try sample(seed: seed, smallFiles: 10)
        let log = ProgressLog()
        _ = try await ImageBuilder(options: try workshop.options()).build(
            source: .directory(tree), destination: .layout(path: workshop.path("image"), tag: nil)
        ) { log.add($0) }
        for phase in [BuildProgress.Phase.format, .cut, .pack, .store] {
            let steps = log.all.filter { $0.phase == phase }
            #expect(steps.last.map { $0.bytesDone == $0.bytesTotal && $0.bytesTotal > 0 } == true, "\(phase)")
            #expect(zip(steps, steps.dropFirst()).allSatisfy { $0.bytesDone <= $1.bytesDone }, "\(phase)")
        }
    }
}
