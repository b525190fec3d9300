package import ChunkModel

extension ContentIndex {
    /// Live nodes that may have a chunk, best first: the asker's zone, then the likelier; equals in an order that
    /// differs from asker to asker, so that not all ask the same one. Never the asker itself.
    ///
    /// A reply's word goes before gossip's. When there are many, only some are named, none of them that `isUsable`
    /// refuses.
    package func holders(
        ofChunk chunk: Int, of chunkCount: Int, in blob: WireID, for asker: NodeName, now: Duration,
        where isUsable: (NodeName) -> Bool = { _ in true }
    ) -> [Holder] {
        guard let table = blobs[blob] else { return [] }
        let own = nodes.number(of: asker)
        let zone = own.map { nodes[$0].zone } ?? 0
        let salt = Rendezvous.hash(of: asker)
        var near = Candidates(limit: limits.holders)
        var far = Candidates(limit: limits.holders)

        func offer(_ number: UInt32, _ probability: Double) {
            let node = nodes[number]
            guard node.isLive, number != own, probability > 0, isUsable(node.name) else { return }
            let candidate = Candidates.One(
                probability: probability, order: SplitMix64.mix(node.hash ^ salt), name: node.name)
            if zone != 0, node.zone == zone { near.add(candidate) } else { far.add(candidate) }
        }

        var told: [UInt32] = []
        for fact in table.exact {
            guard let isResident = fact.window[chunk] else { continue }
            let age = now - fact.learned
            guard age <= (isResident ? limits.presentFor : limits.absentFor) else { continue }
            told.append(fact.node)
            offer(fact.node, isResident ? 1 : 0)
        }
        // From a place of the asker's own: all look at different ones, and nobody at all of 10,000.
        let count = table.entries.count
        let start = count == 0 ? 0 : Int((salt ^ UInt64(chunk >> 4)) % UInt64(count))
        for offset in 0..<count where !near.isFull {
            let entry = table.entries[start + offset < count ? start + offset : start + offset - count]
            guard entry.state == .complete || entry.state == .partial, !told.contains(entry.node) else { continue }
            offer(entry.node, entry.record.probability(ofChunk: chunk, of: chunkCount))
        }
        return near.holders(isSameZone: true) + far.holders(isSameZone: false)
    }

    /// The first so many that were offered, in order.
    private struct Candidates {
        struct One {
            let probability: Double
            let order: UInt64
            let name: NodeName
        }

        let limit: Int
        private var list: [One] = []

        init(limit: Int) { self.limit = limit }

        var isFull: Bool { list.count >= limit }

        mutating func add(_ one: One) { if !isFull { list.append(one) } }

        func holders(isSameZone: Bool) -> [Holder] {
            list.sorted { a, b in
                a.probability == b.probability
                    ? (a.order, a.name) < (b.order, b.name) : a.probability > b.probability
            }.map { Holder(node: $0.name, probability: $0.probability, isSameZone: isSameZone) }
        }
    }

    /// Live nodes that are interested in a blob: registered, or with some of it, by name.
    package func interested(in blob: WireID) -> [NodeName] {
        guard let table = blobs[blob] else { return [] }
        return table.entries.filter { $0.state != .gone && nodes[$0.node].isLive }.map { nodes[$0.node].name }.sorted()
    }

    /// What live nodes say of a blob, by name.
    package func standings(of blob: WireID) -> [(name: NodeName, record: ContentRecord)] {
        guard let table = blobs[blob] else { return [] }
        return table.entries.filter { $0.state != .gone && nodes[$0.node].isLive }
            .map { (nodes[$0.node].name, $0.record) }.sorted { $0.0 < $1.0 }
    }

    /// Live nodes with some of a blob or all, so with the parts of its image; equals in an order that differs from asker
    /// to asker. Never the asker itself.
    package func mounted(_ blob: WireID, for asker: NodeName, limit: Int) -> [NodeName] {
        guard let table = blobs[blob] else { return [] }
        let own = nodes.number(of: asker)
        let salt = Rendezvous.hash(of: asker)
        var best = Rendezvous.Best<NodeName>(limit)
        for entry in table.entries where entry.state == .complete || entry.state == .partial {
            let node = nodes[entry.node]
            guard node.isLive, entry.node != own else { continue }
            best.add(node.name, score: SplitMix64.mix(node.hash ^ salt))
        }
        return best.list.map(\.value)
    }

    /// The interested nodes that are to fetch a segment, best first; those that `isUsable` refuses are passed over.
    package func rendezvous(
        _ blob: WireID, segment: UInt64, limit: Int = 1, where isUsable: (NodeName) -> Bool = { _ in true }
    ) -> [NodeName] {
        guard let table = blobs[blob] else { return [] }
        let key = Rendezvous.key(blob, segment: segment)
        var best = Rendezvous.Best<NodeName>(limit)
        for entry in table.entries where entry.state != .gone {
            let node = nodes[entry.node]
            let score = Rendezvous.score(node.hash, key)
            guard best.accepts(score), node.isLive, isUsable(node.name) else { continue }
            best.add(node.name, score: score)
        }
        return best.list.map(\.value)
    }

    /// The nodes to ask who else is interested in a blob, best first, of all live ones.
    package func trackers(of blob: WireID) -> [NodeName] {
        let key = Rendezvous.trackerKey(blob)
        var best = Rendezvous.Best<NodeName>(Rendezvous.trackerCount)
        for number in nodes.live {
            best.add(nodes[number].name, score: Rendezvous.score(nodes[number].hash, key))
        }
        return best.list.map(\.value)
    }

    /// Whether a node is in the same zone as another; false when either has none.
    package func isSameZone(_ a: NodeName, _ b: NodeName) -> Bool {
        guard let first = nodes.number(of: a), let second = nodes.number(of: b) else { return false }
        return nodes[first].zone != 0 && nodes[first].zone == nodes[second].zone
    }
}

// MARK: - The tree of a segment

extension ContentIndex {
    /// The nodes to ask to fetch a segment, nearest first: the one next above `name` in the tree that the scores make,
    /// the one above that, and so on to the top. Empty when `name` is the top: it asks the registry.
    ///
    /// Every node named has a higher score than `name`, whatever anybody's view of the members is, so nodes that wait
    /// for each other never form a circle. Of n nodes above it, in order of score, the node asks number ⌊(n-1)/k⌋: each
    /// is asked by about k, and the tree is log_k deep. Nodes of a zone make a tree of their own, and only each zone's
    /// best stand in the tree across zones, so a chunk crosses to a zone once.
    package func above(
        _ name: NodeName, _ blob: WireID, segment: UInt64, fanOut: Int, where isUsable: (NodeName) -> Bool
    ) -> [NodeName] {
        guard let table = blobs[blob] else { return [] }
        let key = Rendezvous.key(blob, segment: segment)
        let own = nodes.number(of: name)
        let ownHash = own.map { nodes[$0].hash } ?? Rendezvous.hash(of: name)
        let ownScore = Rendezvous.score(ownHash, key)
        let ownZone = own.map { nodes[$0].zone } ?? 0
        var near: [Standing] = []
        /// The best of each other zone, if it is above.
        var tops: [UInt16: Standing] = [:]
        for entry in table.entries where entry.state != .gone && entry.node != own {
            let node = nodes[entry.node]
            let standing = Standing(score: Rendezvous.score(node.hash, key), number: entry.node)
            guard standing.score > ownScore, node.isLive else { continue }
            if node.zone == ownZone {
                if isUsable(node.name) { near.append(standing) }
            } else if (tops[node.zone]?.score ?? 0) < standing.score, isUsable(node.name) {
                tops[node.zone] = standing
            }
        }
        return Self.path(near.isEmpty ? Array(tops.values) : near, fanOut, nodes)
    }

    private struct Standing {
        let score: UInt64
        let number: UInt32
    }

    /// Parent, grandparent and so on of the one that comes after all of these.
    private static func path(_ above: [Standing], _ fanOut: Int, _ nodes: NodeTable) -> [NodeName] {
        let sorted = above.sorted { a, b in
            a.score == b.score ? nodes[a.number].name < nodes[b.number].name : a.score > b.score
        }
        var path: [NodeName] = []
        var rank = sorted.count
        while rank > 0 {
            rank = (rank - 1) / max(1, fanOut)
            path.append(nodes[sorted[rank].number].name)
        }
        return path
    }

    /// Whether `asker` may have `name` fetch a segment: only from below, so that no circle of waiting can be made, nor
    /// a node be had to fetch for one that ought to.
    package static func mayAsk(_ asker: NodeName, _ name: NodeName, _ blob: WireID, segment: UInt64) -> Bool {
        let key = Rendezvous.key(blob, segment: segment)
        return Rendezvous.score(Rendezvous.hash(of: asker), key) < Rendezvous.score(Rendezvous.hash(of: name), key)
    }
}
