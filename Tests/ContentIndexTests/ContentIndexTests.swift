import ChunkModel
import ContentIndex
import Testing

@Suite struct ContentIndexTests {
    private let blob = Names.blob(1)
    private func node(_ number: Int) -> NodeName { Names.node(number) }

    /// An index with nodes that have everything (`complete`) or the first half of 8 chunks.
    private func index(complete: [Int], half: [Int] = [], zone: (Int) -> String = { _ in "" }) -> ContentIndex {
        var index = ContentIndex()
        for number in complete + half { index.setMember(node(number), zone: zone(number), now: .zero) }
        for number in complete {
            _ = index.apply(node(number), blob, version: 1, ContentRecord(.complete), now: .zero)
        }
        for number in half {
            _ = index.apply(
                node(number), blob, version: 1, ContentRecord(residency: [0x0F], chunkCount: 8), now: .zero)
        }
        return index
    }

    private func holders(_ index: ContentIndex, _ chunk: Int, for asker: Int = 99, at now: Duration = .zero) -> [Int] {
        index.holders(ofChunk: chunk, of: 8, in: blob, for: node(asker), now: now)
            .compactMap { Int($0.node.text.dropFirst("node-".count)) }
    }

    private func apply(
        _ index: inout ContentIndex, _ node: NodeName, _ blob: WireID, version: UInt64, payload: [UInt8], now: Duration
    ) -> ContentIndex.Applied { index.apply(node, blob, version: version, payload: payload, now: now) }

    @Test func onlyANewerVersionCounts() {
        var index = ContentIndex()
        #expect(apply(&index, node(1), blob, version: 5, payload: [3], now: .zero) == .changed)
        #expect(apply(&index, node(1), blob, version: 5, payload: [4], now: .zero) == .stale)
        #expect(apply(&index, node(1), blob, version: 4, payload: [4], now: .zero) == .stale)
        #expect(index.record(of: node(1), blob) == ContentRecord(.complete))
        #expect(apply(&index, node(1), blob, version: 6, payload: [1], now: .zero) == .changed)
        #expect(index.record(of: node(1), blob) == ContentRecord(.registered))
        #expect(apply(&index, node(1), blob, version: 7, payload: [9], now: .zero) == .invalid(.state))
        #expect(index.recordCount == 1)
    }

    @Test func aNodeThatBeganAnewCountsFromTheStart() {
        var index = index(complete: [1, 2])
        index.void(node(1))
        #expect(index.recordCount == 1)
        #expect(index.record(of: node(1), blob) == nil)
        #expect(apply(&index, node(1), blob, version: 1, payload: [1], now: .zero) == .changed)
    }

    @Test func holdersAreLiveHaveTheChunkAndAreNotTheAsker() {
        var index = index(complete: [1, 2], half: [3])
        #expect(Set(holders(index, 0)) == [1, 2, 3])
        #expect(Set(holders(index, 7)) == [1, 2])
        #expect(holders(index, 7, for: 1) == [2])
        index.forget(node(2), now: .zero)
        #expect(holders(index, 7) == [1])
        // Records of a node the membership does not know are not heeded.
        _ = index.apply(node(8), blob, version: 1, payload: [3], now: .zero)
        #expect(holders(index, 7) == [1])
    }

    @Test func aNodeThatComesBackSoonHasWhatItSaidBefore() {
        var index = index(complete: [1])
        index.forget(node(1), now: .zero)
        index.sweep(now: .seconds(599))
        index.setMember(node(1), zone: "", now: .seconds(599))
        #expect(holders(index, 7) == [1])
        index.forget(node(1), now: .seconds(600))
        index.sweep(now: .seconds(1200))
        #expect(index.recordCount == 0)
        #expect(index.nodeCount == 0)
        index.setMember(node(1), zone: "", now: .seconds(1201))
        #expect(holders(index, 7).isEmpty)
    }

    @Test func aNumberGivenToAnotherNodeTakesNothingAlong() {
        var index = index(complete: [1])
        index.forget(node(1), now: .zero)
        index.sweep(now: .seconds(600))
        index.setMember(node(2), zone: "", now: .seconds(600))
        #expect(index.record(of: node(2), blob) == nil)
        #expect(holders(index, 0, at: .seconds(600)).isEmpty)
    }

    @Test func theAskersZoneComesFirst() {
        let index = index(complete: [1, 2, 3, 4, 99], zone: { $0 == 3 || $0 == 99 ? "b" : "a" })
        let found = index.holders(ofChunk: 0, of: 8, in: blob, for: node(99), now: .zero)
        #expect(found.map(\.isSameZone) == [true, false, false, false])
        #expect(found.first?.node == node(3))
    }

    @Test func theLikelierComesFirst() throws {
        var index = index(complete: [1])
        index.setMember(node(2), zone: "", now: .zero)
        // 128 chunks, the first of two in each bucket: half or more.
        let bits = [UInt8](repeating: 0x55, count: 16)
        _ = index.apply(node(2), blob, version: 1, ContentRecord(residency: bits, chunkCount: 128), now: .zero)
        let found = index.holders(ofChunk: 3, of: 128, in: blob, for: node(99), now: .zero)
        #expect(found.map(\.probability) == [1, 0.75])
        #expect(found.map(\.node) == [node(1), node(2)])
    }

    @Test func aReplysWordGoesBeforeGossipsUntilItIsOld() throws {
        var index = index(complete: [1], half: [2])
        index.learn(node(1), blob, try #require(ResidencyWindow(first: 0, bits: [0x01])), now: .zero)
        index.learn(node(2), blob, try #require(ResidencyWindow(first: 0, bits: [0xFF])), now: .zero)
        #expect(holders(index, 7) == [2], "node 1 claimed it and has not got it, node 2 has it by now")
        #expect(Set(holders(index, 0)) == [1, 2])
        // "Not here" is soon forgotten, "here" later.
        #expect(Set(holders(index, 7, at: .seconds(3))) == [1, 2])
        #expect(holders(index, 7, at: .seconds(61)) == [1])
        index.learn(node(2), blob, chunk: 7, isResident: true, now: .seconds(61))
        #expect(Set(holders(index, 7, at: .seconds(61))) == [1, 2])
    }

    @Test func exactResidencyIsBoundedPerBlob() throws {
        var index = index(complete: Array(1...200))
        let window = try #require(ResidencyWindow(first: 0, bits: [0]))
        for number in 1...200 { index.learn(node(number), blob, window, now: .zero) }
        #expect(index.byteCount < 200 * 400 + 64 * 100)
        // The latest 64 are known to lack it; of the others enough are left.
        #expect(holders(index, 0).count == 16)
        #expect(holders(index, 0).allSatisfy { $0 <= 136 })
    }

    @Test func askersLookAtDifferentHoldersFirst() {
        let index = index(complete: Array(1...1000))
        let firsts = Set((2000..<2100).compactMap { holders(index, 0, for: $0).first })
        #expect(firsts.count > 50)
    }

    @Test func limitsAreKept() {
        var limits = ContentIndex.Limits()
        limits.nodes = 2
        limits.records = 3
        limits.recordsPerNode = 2
        var index = ContentIndex(limits: limits)
        #expect(apply(&index, node(1), Names.blob(1), version: 1, payload: [1], now: .zero) == .changed)
        #expect(apply(&index, node(1), Names.blob(2), version: 1, payload: [1], now: .zero) == .changed)
        #expect(apply(&index, node(1), Names.blob(3), version: 1, payload: [1], now: .zero) == .full)
        #expect(apply(&index, node(2), Names.blob(1), version: 1, payload: [1], now: .zero) == .changed)
        #expect(apply(&index, node(2), Names.blob(2), version: 1, payload: [1], now: .zero) == .full)
        #expect(apply(&index, node(3), Names.blob(1), version: 1, payload: [1], now: .zero) == .full)
        #expect(apply(&index, node(1), Names.blob(1), version: 2, payload: [3], now: .zero) == .changed)
        let isMember = index.setMember(node(3), zone: "", now: .zero)
        #expect(!isMember)
    }

    @Test func whoIsRefusedDoesNotTakeAnothersPlaceAmongTheHolders() {
        let index = index(complete: Array(1...99))
        let found = index.holders(ofChunk: 0, of: 8, in: blob, for: node(99), now: .zero) { $0 >= node(50) }
        #expect(found.count == index.limits.holders)
        #expect(found.allSatisfy { $0.node >= node(50) })
    }

    @Test func goneRecordsLeaveAfterTwoSweeps() {
        var index = index(complete: [1, 2])
        _ = index.apply(node(1), blob, version: 9, payload: [4], now: .zero)
        #expect(holders(index, 0) == [2])
        #expect(index.interested(in: blob) == [node(2)])
        index.sweep(now: .seconds(60))
        #expect(apply(&index, node(1), blob, version: 8, payload: [3], now: .zero) == .stale)
        index.sweep(now: .seconds(120))
        #expect(index.recordCount == 1)
    }

    @Test func whatANodeHoldsIsListedByBlob() {
        var index = index(complete: [1])
        _ = index.apply(node(1), Names.blob(2), version: 1, payload: [1], now: .zero)
        #expect(index.records(of: node(1)).map(\.blob) == [Names.blob(1), Names.blob(2)])
        #expect(index.records(of: node(1)).map(\.record.state) == [.complete, .registered])
        #expect(index.records(of: node(7)).isEmpty)
    }

    /// The figure of the issue: 10,000 nodes × 40 images within 32 MiB. `byteCount` counts what the arrays and
    /// dictionaries hold, growth included.
    @Test func tenThousandNodesWithFortyImagesFitInto32MiB() {
        var index = ContentIndex()
        let record = ContentRecord(residency: [UInt8](repeating: 0x5A, count: 128), chunkCount: 1024)
        let images = (1...40).map(Names.blob)
        for number in 1...10_000 {
            let name = node(number)
            index.setMember(name, zone: "zone-\(number % 3)", now: .zero)
            for image in images { _ = index.apply(name, image, version: UInt64(number), record, now: .zero) }
        }
        #expect(index.recordCount == 400_000)
        #expect(index.byteCount <= 32 << 20, "\(index.byteCount) bytes")
        #expect(index.byteCount >= 400_000 * 29, "nothing was left out of the count")
    }
}
