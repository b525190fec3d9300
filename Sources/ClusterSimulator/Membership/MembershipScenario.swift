internal import Membership

/// The experiments with membership. Each builds its cluster from the node count and the seed, and reports figures.
package enum MembershipScenario: String, CaseIterable, Sendable {
    /// Nothing happens: what does it cost?
    case idle
    /// Something changes: how long until all know?
    case change
    /// A long time with losses and slow nodes: is anybody declared dead who is not?
    case falseDead = "false-dead"
    /// The cluster is cut in two until each half thinks the other dead, then healed.
    case partition
    /// All nodes restart within ten seconds, a tenth of them with a clock that went back.
    case restart
    /// Many cold nodes join at once.
    case joinStorm = "join-storm"
    /// A node can send but not receive, another the reverse.
    case oneWay = "one-way"

    /// What may be varied; the rest is each scenario's own.
    package struct Options: Sendable {
        package var nodes: Int
        package var seed: UInt64
        /// Chance that a frame is lost.
        package var loss = 0.01
        /// How long `idle` and `false-dead` run.
        package var duration: Duration?
        /// Nodes that join in `join-storm`.
        package var joining = 1_000
        /// How many changes of each kind `change` makes.
        package var repetitions = 5

        package init(nodes: Int, seed: UInt64) {
            self.nodes = nodes
            self.seed = seed
        }
    }

    package func run(_ options: Options) -> SimulationReport {
        var report = SimulationReport(
            simulation: "membership", scenario: rawValue, nodes: options.nodes, seed: options.seed)
        switch self {
        case .idle: Self.idle(options, &report)
        case .change: Self.change(options, &report)
        case .falseDead: Self.falseDead(options, &report)
        case .partition: Self.partition(options, &report)
        case .restart: Self.restart(options, &report)
        case .joinStorm: Self.joinStorm(options, &report)
        case .oneWay: Self.oneWay(options, &report)
        }
        return report
    }

    /// A cluster of this many nodes with an ordinary data centre's network and the losses asked for.
    static func cluster(_ options: Options, countsBytes: Bool = true) -> MembershipCluster {
        var settings = MembershipCluster.Settings(nodes: options.nodes, seed: options.seed)
        settings.countsBytes = countsBytes
        settings.network.loss = options.loss
        return MembershipCluster(settings)
    }

    // MARK: - Idle

    private static func idle(_ options: Options, _ report: inout SimulationReport) {
        var cluster = cluster(options)
        cluster.addKnown(options.nodes)
        cluster.run(until: .seconds(10))
        let before = (cluster.simulation.totalTraffic, cluster.requests, cluster.suspicions, cluster.handshakes)
        let length = options.duration ?? .seconds(60)
        cluster.run(until: .seconds(10) + length)
        let after = (cluster.simulation.totalTraffic, cluster.requests, cluster.suspicions, cluster.handshakes)
        let scale = Double(options.nodes) * length.inSeconds
        let bytes = Double(after.0.sentBytes - before.0.sentBytes)
        let frames = after.0.sentMessages - before.0.sentMessages
        let requests = after.1 - before.1
        let overhead =
            requests * MembershipCluster.requestOverhead
            + (Int(frames) - requests) * MembershipCluster.answerOverhead
        report.add("frame bytes per node and second", bytes / scale, "B")
        report.add(
            "with HTTP heads and TLS records", (bytes + Double(overhead)) / scale, "B",
            target: options.nodes <= 1_000 ? 2_000 : 5_000)
        let handshakes = after.3 - before.3
        report.add(
            "and with TLS handshakes of new connections",
            (bytes + Double(overhead + handshakes * MembershipCluster.handshakeBytes)) / scale, "B")
        report.add("frames per node and second", Double(frames) / scale, "")
        report.add("requests per node and second", Double(requests) / scale, "")
        // A view of the same change is one at each node.
        report.add("suspicions begun at nodes", Double(after.2 - before.2), "")
        report.add("false deaths", Double(cluster.falseDeaths), "", target: 0)
    }

    // MARK: - Time until all know

    private static func change(_ options: Options, _ report: inout SimulationReport) {
        var cluster = cluster(options)
        cluster.addKnown(options.nodes)
        cluster.run(until: .seconds(5))
        let before = cluster.simulation.totalTraffic.sentBytes
        var records: [Spread] = []
        var contents: [Spread] = []
        for round in 0..<options.repetitions {
            records.append(spread(ofRecord: round, &cluster))
            contents.append(spread(ofContent: round, &cluster))
        }
        let bytes = Double(cluster.simulation.totalTraffic.sentBytes - before)
        add("record changed", records, &report)
        add("content changed", contents, &report)
        report.add(
            "frame bytes per node and change (probes meanwhile included)",
            bytes / Double(options.nodes * options.repetitions * 2), "B")
        var deaths: [Spread] = []
        var detected: [Double] = []
        for round in 0..<min(2, options.repetitions) {
            let victim = options.nodes / 2 + round
            let (spread, seconds) = spread(ofDeath: victim, &cluster)
            deaths.append(spread)
            detected.append(seconds)
        }
        report.add("node killed: first dead verdict after (worst)", detected.max() ?? 0, "s")
        add("dead verdict", deaths, &report)
        report.add("false deaths", Double(cluster.falseDeaths), "", target: 0)
    }

    /// When 99 % and all of the nodes had learned something, in seconds; infinite when that did not happen in a minute.
    private struct Spread {
        var most = Double.infinity
        var all = Double.infinity
    }

    private static func add(_ what: String, _ spreads: [Spread], _ report: inout SimulationReport) {
        let isVerdict = what.hasPrefix("dead")
        report.add(
            "\(what): known to 99 % (worst)", spreads.map(\.most).max() ?? 0, "s", target: isVerdict ? nil : 2.5)
        report.add("\(what): known to all (worst)", spreads.map(\.all).max() ?? 0, "s", target: isVerdict ? nil : 5)
    }

    private static func follow(_ cluster: inout MembershipCluster) -> Spread {
        let start = cluster.simulation.now
        let present = cluster.present.count
        cluster.run(until: start + .seconds(60)) { $0.seenCount >= present }
        let times = cluster.seenAt.compactMap { $0 }.sorted()
        var spread = Spread()
        let most = (present * 99 + 99) / 100
        if times.count >= most { spread.most = (times[most - 1] - start).inSeconds }
        if times.count >= present { spread.all = (times[present - 1] - start).inSeconds }
        cluster.run(until: cluster.simulation.now + .seconds(5))
        return spread
    }

    private static func spread(ofRecord round: Int, _ cluster: inout MembershipCluster) -> Spread {
        let origin = (round * 7919 + 11) % cluster.nodes.count
        let own = cluster.nodes[origin].own
        cluster.beginWatch(.record(own.name, incarnation: own.incarnation + 1), origin: origin)
        cluster.act(origin, .update(address: own.address, zone: "moved-\(round)", version: own.version))
        return follow(&cluster)
    }

    private static func spread(ofContent round: Int, _ cluster: inout MembershipCluster) -> Spread {
        let origin = (round * 6007 + 5) % cluster.nodes.count
        let blob = blob(UInt64(round))
        cluster.beginWatch(.content(cluster.nodes[origin].own.name, blob), origin: origin)
        cluster.act(origin, .publish(blob: blob, isGone: false, payload: [3]))
        return follow(&cluster)
    }

    private static func spread(ofDeath victim: Int, _ cluster: inout MembershipCluster) -> (Spread, Double) {
        let killed = cluster.simulation.now
        cluster.beginWatch(.dead(cluster.names[victim]), origin: victim)
        cluster.simulation.stop(victim)
        cluster.run(until: killed + .seconds(300)) { $0.seenCount >= 2 }
        let first = cluster.simulation.now
        var spread = Spread()
        let present = cluster.present.count
        // The victim itself counts as having seen it.
        cluster.run(until: first + .seconds(120)) { $0.seenCount >= present + 1 }
        let times = cluster.seenAt.enumerated().filter { $0.offset != victim }.compactMap(\.element).sorted()
        let most = (present * 99 + 99) / 100
        if times.count >= most { spread.most = (times[most - 1] - first).inSeconds }
        if times.count >= present { spread.all = (times[present - 1] - first).inSeconds }
        return (spread, (first - killed).inSeconds)
    }
}
