import ChunkModel
import ContentIndex
import Testing

@Suite struct RendezvousTests {
    private func node(_ number: Int) -> NodeName { Names.node(number) }
    private var sevens: WireID {
        guard let id = WireID(rawBytes: [UInt8](repeating: 7, count: 32)) else { fatalError("32 bytes are an id") }
        return id
    }

    /// Computed by another program (Python) from docs/formats/content.md: all versions must agree.
    @Test func scoresAreTheProtocols() {
        #expect(Rendezvous.hash(of: node(1)) == 0x94A9_D409_86DA_123D)
        #expect(Rendezvous.key(sevens, segment: 0) == 0x2C4C_B114_0FE0_9805)
        #expect(Rendezvous.key(sevens, segment: 1) == 0x01F6_0B03_AB64_F446)
        let nodes = (1...8).map(node)
        #expect(
            Rendezvous.best(8, of: nodes, key: Rendezvous.key(sevens, segment: 0)).map(\.text)
                == [4, 7, 2, 6, 5, 1, 3, 8].map { "node-\($0)" })
        #expect(Rendezvous.trackers(of: sevens, among: nodes) == [node(3), node(1), node(4)])
    }

    @Test func theIndexNamesTheSame() {
        var index = Names.index(8)
        for number in 1...8 { _ = index.apply(node(number), sevens, version: 1, payload: [1], now: .zero) }
        #expect(index.rendezvous(sevens, segment: 0, limit: 3) == [node(4), node(7), node(2)])
        #expect(index.trackers(of: sevens) == [node(3), node(1), node(4)])
        // Who is not usable or not alive is passed over.
        #expect(index.rendezvous(sevens, segment: 0) { $0 != node(4) } == [node(7)])
        index.forget(node(3), now: .zero)
        #expect(index.trackers(of: sevens) == [node(1), node(4), node(5)])
    }

    @Test func segmentsSpreadEvenlyAndOnlyThoseOfAMissingNodeMove() {
        let nodes = (1...50).map(node)
        var counts: [NodeName: Int] = [:]
        for segment in UInt64(0)..<10_000 {
            let key = Rendezvous.key(sevens, segment: segment)
            guard let best = Rendezvous.best(1, of: nodes, key: key).first else { continue }
            counts[best, default: 0] += 1
            let without = Rendezvous.best(1, of: nodes.dropLast(), key: key).first
            #expect(best == node(50) || without == best)
        }
        // 200 each; 6 standard deviations are 84.
        #expect(counts.count == 50)
        #expect(counts.values.allSatisfy { $0 > 116 && $0 < 284 })
    }

    @Test func theTreeOfASegmentIsFlatEvenAndWithoutCircles() {
        let index = Names.index(1000)
        let blob = Names.blob(1)
        for segment in UInt64(0)..<2 {
            let top = index.rendezvous(blob, segment: segment).first
            var children: [NodeName: Int] = [:]
            for number in 1...1000 {
                let path = index.above(node(number), blob, segment: segment, fanOut: 4) { _ in true }
                #expect(path.count <= 6)
                guard let parent = path.first else {
                    #expect(node(number) == top)
                    continue
                }
                #expect(path.last == top)
                children[parent, default: 0] += 1
                var below = node(number)
                for name in path {
                    #expect(ContentIndex.mayAsk(below, name, blob, segment: segment))
                    #expect(!ContentIndex.mayAsk(name, below, blob, segment: segment))
                    below = name
                }
            }
            #expect(children.values.allSatisfy { $0 <= 4 })
        }
    }

    @Test func aSegmentCrossesToAZoneOnce() {
        let zones = ["a", "b", "c"]
        let index = Names.index(90) { zones[$0 % 3] }
        let blob = Names.blob(1)
        var crossings = 0
        for number in 1...90 {
            guard let parent = index.above(node(number), blob, segment: 5, fanOut: 4, where: { _ in true }).first else {
                continue
            }
            if !index.isSameZone(node(number), parent) { crossings += 1 }
        }
        #expect(crossings == 2)
    }

    @Test func aNodeThatIsOutIsPassedOver() {
        let index = Names.index(20)
        let blob = Names.blob(1)
        let order = index.rendezvous(blob, segment: 0, limit: 20)
        let top = order[0]
        #expect(index.above(order[1], blob, segment: 0, fanOut: 4) { $0 != top }.isEmpty)
        #expect(index.above(order[5], blob, segment: 0, fanOut: 4) { $0 != top } == [order[1]])
        let path = index.above(order[19], blob, segment: 0, fanOut: 4) { $0 != top }
        #expect(path.last == order[1])
        #expect(!path.contains(top))
    }
}
