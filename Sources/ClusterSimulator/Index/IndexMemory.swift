internal import ChunkModel
internal import ContentIndex

/// The agent's content index as gossip fills it in a large cluster, and what it makes the process grow by.
package enum IndexMemory {
    /// What may be varied.
    package struct Options: Sendable {
        package var nodes: Int
        package var images: Int
        package var seed: UInt64

        package init(nodes: Int, images: Int, seed: UInt64) {
            self.nodes = nodes
            self.images = images
            self.seed = seed
        }
    }

    /// Fills an index: each node says twice something of each image, in random order, and replies told for as many nodes
    /// as the index remembers exactly what they have of every image. `residentBytes`: of this process, now.
    package static func run(_ options: Options, residentBytes: () -> Int) -> SimulationReport {
        var report = SimulationReport(
            simulation: "index", scenario: "memory", nodes: options.nodes, seed: options.seed)
        var random = SplitMix64(seed: options.seed)
        let blobs = (0..<options.images).map { MembershipScenario.blob(options.seed &+ UInt64($0)) }
        // What arrives: nothing of it is kept here, or it would be counted.
        var order = (0..<options.nodes * options.images).map { UInt32($0) }
        let before = residentBytes()
        var index = ContentIndex()
        for number in 0..<options.nodes { index.setMember(name(number), zone: "zone-\(number % 3)", now: .zero) }
        var refused = 0
        for version in 1...2 as ClosedRange<UInt64> {
            order.shuffle(using: &random)
            for item in order {
                let record = version == 1 ? ContentRecord(.registered) : partial(&random)
                let applied = index.apply(
                    name(Int(item) / options.images), blobs[Int(item) % options.images], version: version, record,
                    now: .zero)
                if applied != .changed { refused += 1 }
            }
        }
        learnExactly(&index, blobs, options.nodes)
        let growth = residentBytes() - before
        report.add("records", Double(index.recordCount), "")
        report.add("memory of the index", Double(growth) / 1_048_576, "MiB", target: 32)
        report.add("the same by its own count", Double(index.byteCount) / 1_048_576, "MiB")
        if index.recordCount != options.nodes * options.images || refused > 0 {
            report.violate("\(index.recordCount) records, \(refused) refused")
        }
        return report
    }

    /// A name as long as those clouds give.
    private static func name(_ number: Int) -> NodeName {
        guard let name = NodeName("ip-10-\(number >> 8)-\(number & 255).eu-central-1.compute.internal") else {
            preconditionFailure("no name for node \(number)")
        }
        return name
    }

    /// What a node that is fetching a blob of 512 chunks says.
    private static func partial(_ random: inout SplitMix64) -> ContentRecord {
        let bits = (0..<8).flatMap { _ -> [UInt8] in
            let word = random.next()
            return (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
        }
        return ContentRecord(residency: bits, chunkCount: bits.count * 8)
    }

    private static func learnExactly(_ index: inout ContentIndex, _ blobs: [WireID], _ nodes: Int) {
        let bits = [UInt8](repeating: 0x5A, count: ResidencyWindow.maxChunks / 8)
        for (place, blob) in blobs.enumerated() {
            for number in 0..<min(nodes, index.limits.exactPerBlob) {
                // Each its own copy, as from the wire.
                var own = bits
                own[0] = UInt8(truncatingIfNeeded: number)
                guard let window = ResidencyWindow(first: 0, bits: own) else { continue }
                index.learn(name((number * 7 + place) % nodes), blob, window, now: .zero)
            }
        }
    }
}
