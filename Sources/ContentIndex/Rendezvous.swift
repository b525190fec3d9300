package import ChunkModel

/// Highest-random-weight hashing: every node gets a score for a key, and the highest one is it. All nodes that see the
/// same candidates name the same one without talking, and when it goes only its own keys move.
///
/// Source: Thaler, Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 1998. The scores are
/// part of the protocol (docs/formats/content.md): all versions must compute the same.
package enum Rendezvous {
    /// Raw bytes of a blob that one node fetches for all: long enough for long registry ranges, short enough that a
    /// 1 GiB blob has 128 parts to spread.
    package static let segmentBytes: UInt64 = 8 << 20

    /// Nodes that keep track of who is interested in a blob: one may be down and one wrong.
    package static let trackerCount = 3

    /// The segment a chunk belongs to: that of its first byte in the raw blob.
    package static func segment(ofRawOffset offset: UInt64) -> UInt64 { offset / segmentBytes }

    /// What a node brings to every score: FNV-1a (64 bit) of its name, mixed.
    package static func hash(of node: NodeName) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in node.text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return SplitMix64.mix(hash)
    }

    /// The key of one segment of a blob.
    package static func key(_ blob: WireID, segment: UInt64) -> UInt64 {
        let words = blob.bigEndianWords
        let name = SplitMix64.mix(
            SplitMix64.mix(SplitMix64.mix(words.0 ^ SplitMix64.mix(words.1)) ^ words.2) ^ SplitMix64.mix(words.3))
        return SplitMix64.mix(name &+ SplitMix64.mix(segment))
    }

    /// The key that names a blob's trackers: no segment has this number.
    package static func trackerKey(_ blob: WireID) -> UInt64 { key(blob, segment: .max) }

    /// The score of a node (by its hash) for a key; the higher one wins, equal ones by name.
    package static func score(_ nodeHash: UInt64, _ key: UInt64) -> UInt64 { SplitMix64.mix(nodeHash ^ key) }

    /// The best `count` of these nodes for a key, best first.
    package static func best(_ count: Int, of nodes: some Sequence<NodeName>, key: UInt64) -> [NodeName] {
        var best = Best<NodeName>(count)
        for node in nodes { best.add(node, score: score(hash(of: node), key)) }
        return best.list.map(\.value)
    }

    /// The nodes to ask who else is interested in a blob, best first, of all live members.
    package static func trackers(of blob: WireID, among members: some Sequence<NodeName>) -> [NodeName] {
        best(trackerCount, of: members, key: trackerKey(blob))
    }

    /// The few best of many, in order, by insertion.
    struct Best<Value: Comparable> {
        private(set) var list: [(score: UInt64, value: Value)] = []
        private let limit: Int

        init(_ limit: Int) {
            self.limit = limit
            list.reserveCapacity(limit + 1)
        }

        /// Whether a value of this score could still get in.
        func accepts(_ score: UInt64) -> Bool { list.count < limit || score >= (list.last?.score ?? 0) }

        mutating func add(_ value: Value, score: UInt64) {
            guard limit > 0, accepts(score) else { return }
            var at = list.count
            while at > 0, (list[at - 1].score, value) < (score, list[at - 1].value) { at -= 1 }
            list.insert((score, value), at: at)
            if list.count > limit { list.removeLast() }
        }
    }
}
