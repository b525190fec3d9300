import ChunkModel
import Testing

@Suite("Chunks are cut by content, on block boundaries, between the bounds")
struct ContentChunkerTests {
    /// Smaller sizes than the defaults keep the data small; the rules are the same.
    private let small = ContentChunker.Parameters(min: 16 << 10, average: 64 << 10, max: 128 << 10)

    private func ends(
        _ data: [UInt8], _ parameters: ContentChunker.Parameters, edges: [UInt64] = [], pieces: Int = .max
    ) -> [UInt64] {
        var chunker = ContentChunker(parameters, edges: edges)
        var out: [UInt64] = []
        data.withUnsafeBytes { raw in
            var at = 0
            while at < raw.count {
                let next = min(raw.count, at + min(pieces, raw.count - at))
                chunker.feed(UnsafeRawBufferPointer(rebasing: raw[at..<next])) { out.append($0) }
                at = next
            }
        }
        if let last = chunker.finish() { out.append(last) }
        return out
    }

    private func random(_ count: Int, seed: UInt64) -> [UInt8] {
        var state = seed
        var out: [UInt8] = []
        out.reserveCapacity(count + 8)
        while out.count < count {
            state &+= 0x9E37_79B9_7F4A_7C15
            var value = state
            value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
            value ^= value >> 31
            withUnsafeBytes(of: value.littleEndian) { out.append(contentsOf: $0) }
        }
        return Array(out.prefix(count))
    }

    private func sizes(_ ends: [UInt64]) -> [UInt64] { zip(ends, [0] + ends).map { $0 - $1 } }

    @Test func theHashIsFrozen() {
        // These values are part of the image format: an image built by any version must cut alike.
        func hash(_ block: [UInt8]) -> UInt64 { block.withUnsafeBytes { ContentChunker.hash(block: $0) } }
        #expect(hash([UInt8](repeating: 0, count: 4096)) == 0xEAF3_F157_E852_0CCA)
        #expect(hash((0..<4096).map { UInt8(truncatingIfNeeded: $0) }) == 0x873E_E736_8F32_7CA3)
        #expect(hash((0..<4096).map { UInt8(truncatingIfNeeded: ($0 * 7) >> 3) }) == 0x41BD_6424_A854_BAFD)
    }

    @Test func parametersThatMakeNoSenseAreRefused() {
        #expect(ContentChunker.Parameters(min: 0, average: 4096, max: 4096) == nil)
        #expect(ContentChunker.Parameters(min: 4097, average: 8192, max: 16384) == nil)
        #expect(ContentChunker.Parameters(min: 4096, average: 12288, max: 16384) == nil, "not a power of two")
        #expect(ContentChunker.Parameters(min: 16384, average: 8192, max: 32768) == nil)
        #expect(ContentChunker.Parameters(min: 4096, average: 8192, max: Limits.maxChunkSize + 4096) == nil)
        #expect(ContentChunker.Parameters(min: 131072, average: 524288, max: 1_048_576) == .standard)
    }

    @Test func howTheBytesArriveDoesNotMatter() throws {
        let parameters = try #require(small)
        let data = random(2_000_003, seed: 1)
        let whole = ends(data, parameters)
        for pieces in [1000, 4096, 4097, 65_536, 1_000_000] {
            #expect(ends(data, parameters, pieces: pieces) == whole, "pieces of \(pieces)")
        }
    }

    @Test func boundsAndAlignmentHold() throws {
        let parameters = try #require(small)
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let cuts = ends(random(8 << 20 | 1234, seed: seed), parameters)
        #expect(cuts.last == UInt64(8 << 20 | 1234))
        #expect(cuts.dropLast().allSatisfy { $0 % 4096 == 0 })
        #expect(sizes(cuts).dropLast().allSatisfy { $0 >= UInt64(parameters.min) && $0 <= UInt64(parameters.max) })
        #expect((sizes(cuts).last ?? 0) <= UInt64(parameters.max))
    }

    @Test func theMeanIsNearTheAverage() throws {
        let parameters = try #require(small)
        let data = random(32 << 20, seed: 2)
        let mean = Double(data.count) / Double(ends(data, parameters).count)
        // Exact expectation for these sizes is about 61 KiB; 500 chunks give a standard error near 1.5 KiB.
        #expect(abs(mean / 1024 - 61) < 7, "mean \(mean / 1024) KiB")
    }

    @Test func zerosAreCutByTheMaximum() throws {
        let zeros = [UInt8](repeating: 0, count: 4 << 20)
        for parameters in [try #require(small), .standard] {
            #expect(sizes(ends(zeros, parameters)).allSatisfy { $0 == UInt64(parameters.max) })
        }
    }

    @Test(arguments: [1, 2, 7, 40]) func insertedBlocksMoveNoLaterCut(blocks: Int) throws {
        let parameters = try #require(small)
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let data = random(8 << 20, seed: seed)
        let at = 1 << 20
        let shift = UInt64(blocks * 4096)
        let longer = data[..<at] + random(Int(shift), seed: seed ^ 1) + data[at...]
        let before = ends(data, parameters)
        let after = Set(ends(Array(longer), parameters))
        // Behind the first cut that both share, every cut is the same. It comes within a few chunks.
        let behind = before.filter { $0 > UInt64(at + 2 << 20) }
        #expect(behind.count > 50)
        #expect(behind.allSatisfy { after.contains($0 + shift) }, "seed \(seed)")
        #expect(before.filter { $0 <= UInt64(at) }.allSatisfy { after.contains($0) })
    }

    @Test func edgesEndChunksAndAFileIsCutAlikeWhereverItLies() throws {
        let parameters = try #require(small)
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let file = random(3 << 20, seed: seed)
        var cuts: [[UInt64]] = []
        for before in [4096, 1 << 20, 1_204_224] {
            let data = random(before, seed: seed &+ 1) + file + random(1 << 20, seed: seed &+ 2)
            let edges = [UInt64(before), UInt64(before + file.count)]
            let all = ends(data, parameters, edges: edges, pieces: 10_000)
            #expect(Set(all).isSuperset(of: edges), "seed \(seed)")
            cuts.append(all.filter { (edges[0]...edges[1]).contains($0) }.map { $0 - edges[0] })
            // A chunk below the minimum ends at an edge that follows another one closely, or a cut by the maximum.
            for (end, size) in zip(all, sizes(all)) where size < parameters.min && end != all.last {
                let start = end - size
                let isAfterEdge = start == 0 || edges.contains(start)
                let before = all.last { $0 < start } ?? 0
                #expect(edges.contains(end) && (isAfterEdge || start - before == parameters.max), "seed \(seed)")
            }
        }
        #expect(cuts[0].count > 20 && cuts[1] == cuts[0] && cuts[2] == cuts[0], "seed \(seed)")
    }

    @Test func nothingGivesNoChunkAndLittleGivesOne() {
        #expect(ends([], .standard) == [])
        #expect(ends([1], .standard) == [1])
        #expect(ends([UInt8](repeating: 3, count: 4096), .standard) == [4096])
    }
}
