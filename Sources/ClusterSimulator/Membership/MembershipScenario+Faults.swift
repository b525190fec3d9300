internal import ChunkModel
internal import Membership

extension MembershipScenario {
    /// An id that differs for different numbers.
    static func blob(_ number: UInt64) -> WireID {
        var words = SplitMix64(seed: number)
        let bytes = (0..<WireID.byteCount).map { _ in UInt8(truncatingIfNeeded: words.next()) }
        guard let id = WireID(rawBytes: bytes) else { preconditionFailure("32 bytes are an id") }
        return id
    }

    // MARK: - False deaths

    /// Lifeguard's anomaly: a slow node runs for some time, then does nothing for some time. Here 20 s and 1 s on
    /// average, 5 s at most.
    static let slowness = Stalls(running: .seconds(20), stalled: .seconds(1), longest: .seconds(5))

    static func falseDead(_ options: Options, _ report: inout SimulationReport) {
        var cluster = cluster(options, countsBytes: false)
        cluster.addKnown(options.nodes)
        let slow = max(1, options.nodes / 20)
        for number in 0..<slow {
            cluster.simulation.setStalls(slowness, of: number * (options.nodes / slow))
        }
        let length = options.duration ?? .seconds(24 * 3600)
        cluster.run(until: length)
        report.add("simulated", length.inSeconds / 3600, "h")
        report.add("slow nodes", Double(slow), "")
        report.add("suspicions begun at nodes", Double(cluster.suspicions), "")
        report.add(
            "refutations", Double(cluster.nodes.reduce(0) { $0 + $1.statistics.refutations }), "")
        report.add("probes", Double(cluster.nodes.reduce(0) { $0 + $1.statistics.probes }), "")
        report.add("probes failed", Double(cluster.nodes.reduce(0) { $0 + $1.statistics.probesFailed }), "")
        report.add("false deaths", Double(cluster.falseDeaths), "", target: 0)
        for number in 0..<slow { cluster.simulation.setStalls(nil, of: number * (options.nodes / slow)) }
        expectAgreement(&cluster, within: .seconds(300), "slow nodes recovered: all agree after", &report)
    }

    // MARK: - Partition

    static func partition(_ options: Options, _ report: inout SimulationReport) {
        var cluster = cluster(options)
        cluster.addKnown(options.nodes)
        cluster.run(until: .seconds(5))
        // All seeds are on one side.
        let half = options.nodes / 2
        for number in 0..<half { cluster.simulation.setGroup(1, of: number) }
        let cut = cluster.simulation.now
        var settled: Double?
        while cluster.simulation.now < cut + .seconds(600) {
            cluster.run(until: cluster.simulation.now + .seconds(5))
            let isCut = cluster.nodes.indices.allSatisfy { number in
                let counts = cluster.nodes[number].counts
                return counts.alive + counts.suspect == (number < half ? half : options.nodes - half)
            }
            if isCut {
                settled = (cluster.simulation.now - cut).inSeconds
                break
            }
        }
        if let settled {
            report.add("halves settled after", settled, "s")
        } else {
            report.violate("ten minutes after the cut a half still has members of the other")
        }
        let before = cluster.simulation.totalTraffic.sentBytes
        for number in 0..<half { cluster.simulation.setGroup(0, of: number) }
        expectAgreement(&cluster, within: .seconds(900), "healed: all agree after", &report)
        let bytes = Double(cluster.simulation.totalTraffic.sentBytes - before)
        report.add("healing: frame bytes per node", bytes / Double(options.nodes), "B")
    }

    // MARK: - Restarts and joins

    static func restart(_ options: Options, _ report: inout SimulationReport) {
        var cluster = cluster(options)
        cluster.addKnown(options.nodes)
        cluster.run(until: .seconds(5))
        let start = cluster.simulation.now
        var order = Array(cluster.nodes.indices)
        order.shuffle(using: &cluster.simulation.random)
        for (place, number) in order.enumerated() {
            cluster.run(until: start + .seconds(10) * (Double(place) / Double(order.count)))
            cluster.simulation.stop(number)
            cluster.restart(number, clockError: number % 10 == 0 ? -3_600_000 : 0)
        }
        expectAgreement(&cluster, within: .seconds(900), "last restarted: all agree after", &report)
        report.add("false deaths", Double(cluster.falseDeaths), "", target: 0)
    }

    static func joinStorm(_ options: Options, _ report: inout SimulationReport) {
        var cluster = cluster(options)
        cluster.addKnown(options.nodes)
        cluster.run(until: .seconds(5))
        let before = cluster.simulation.totalTraffic.sentBytes
        let seedBefore = cluster.simulation.traffic(of: 0).sentBytes
        cluster.addCold(options.joining)
        expectAgreement(&cluster, within: .seconds(900), "all agree after", &report)
        report.add("joining", Double(options.joining), "")
        let bytes = Double(cluster.simulation.totalTraffic.sentBytes - before)
        report.add("frame bytes per node", bytes / Double(cluster.nodes.count), "B")
        report.add("frame bytes of one seed", Double(cluster.simulation.traffic(of: 0).sentBytes - seedBefore), "B")
        report.add("false deaths", Double(cluster.falseDeaths), "", target: 0)
    }

    // MARK: - One-way loss

    static func oneWay(_ options: Options, _ report: inout SimulationReport) {
        var cluster = cluster(options)
        cluster.addKnown(options.nodes)
        cluster.run(until: .seconds(5))
        // Between each of a few nodes and half of the others nothing passes in one direction.
        let odd = max(1, options.nodes / 20)
        for number in 0..<odd {
            for other in odd..<options.nodes where other % 2 == 0 {
                let link = number % 2 == 0 ? Link(from: number, to: other) : Link(from: other, to: number)
                cluster.simulation.setLink(link, LinkModel(loss: 1))
            }
        }
        cluster.run(until: .seconds(605))
        report.add("nodes with one-way loss to half of the others", Double(odd), "")
        report.add("suspicions begun at nodes", Double(cluster.suspicions), "")
        report.add("false deaths", Double(cluster.falseDeaths), "", target: 0)
        for number in 0..<odd {
            for other in odd..<options.nodes {
                cluster.simulation.setLink(Link(from: number, to: other), nil)
                cluster.simulation.setLink(Link(from: other, to: number), nil)
            }
        }
        expectAgreement(&cluster, within: .seconds(300), "healed: all agree after", &report)
    }

    // MARK: - Checking

    /// Runs until all views are the same and right, and reports how long that took.
    static func expectAgreement(
        _ cluster: inout MembershipCluster, within limit: Duration, _ name: String, _ report: inout SimulationReport
    ) {
        let start = cluster.simulation.now
        while cluster.simulation.now < start + limit {
            cluster.run(until: cluster.simulation.now + .milliseconds(500))
            // With losses there is always a suspicion somewhere in a large cluster.
            if cluster.disagreement(allowingSuspects: true) == nil {
                report.add(name, (cluster.simulation.now - start).inSeconds, "s")
                return
            }
        }
        report.violate("\(name): not in \(limit.inSeconds) s: \(cluster.disagreement(allowingSuspects: true) ?? "")")
    }
}
