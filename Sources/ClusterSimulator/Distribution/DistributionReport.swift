/// What is counted in a run.
struct DistributionCounts {
    var registryBytes = 0
    var registryRequests = 0
    var tooMany = 0
    var peerBytes = 0
    var crossZoneBytes = 0
    var peerRequests = 0
    var demandPeerBytes = 0
    var doubleBytes = 0
    var mountBytes = 0
    var misses = 0
    var answers = 0
    var answeredTwice = 0
    var errors = 0
    var refusedChunks = 0
    var quarantines = 0
    var innocents = 0
    var complaints = 0
    var absent = 0
    var busy = 0
    var stalls = 0
    var cancelled = 0
    var crashed = 0
    var mostUploads = 0
    /// Seconds of requests to each kind of liar, whatever came of them, and of those to the registry.
    var lost: [DistributionNode.Lie: Double] = [:]
    var longestAtRegistry = 0.0
}

extension DistributionSimulation {
    /// How long the readers took, shortest first.
    private var times: [Double] {
        nodes.compactMap { node in
            guard let begun = node.begun, let finished = node.finished else { return nil }
            return (finished - begun).inSeconds
        }.sorted()
    }

    func report(to report: inout SimulationReport, alone: DistributionSimulation) {
        let image = Double(options.imageBytes)
        let times = times
        let slowest = times.last ?? 0
        let single = alone.times.last ?? 0
        report.add(
            "registry copies", Double(counts.registryBytes) / image, "× the image",
            target: options.liars == 0 && options.crashes == 0 ? 1.1 : nil)
        report.add("time of one node alone", single, "s")
        report.add("time, half of the nodes", times.isEmpty ? 0 : times[times.count / 2], "s")
        report.add("time, slowest node", slowest, "s")
        report.add(
            "slowest ÷ alone", single > 0 ? slowest / single : 0, "×", target: options.liars == 0 ? 1.5 : nil)
        report.add("wrong bytes accepted", Double(wrongChunks), "chunks", target: 0)
        report.add("readers' errors (EIO)", Double(counts.errors), "reads", target: 0)
        report.add("wrong chunks refused", Double(counts.refusedChunks), "chunks")
        report.add("honest nodes quarantined", Double(counts.innocents), "", target: 0)
        if options.crashes > 0 { report.add("nodes killed", Double(counts.crashed), "") }
        report.add("from peers", Double(counts.peerBytes) / image / Double(max(1, times.count)), "× the image a node")
        report.add("came twice", Double(counts.doubleBytes) / Double(max(1, counts.peerBytes)), "of the peers' bytes")
        report.add(
            "across zones", Double(counts.crossZoneBytes) / Double(max(1, counts.peerBytes)), "of the peers' bytes")
        report.add("most uploads at one node", Double(counts.mostUploads), "at once")
        let most = nodes.map { Double(simulation.traffic(of: $0.number).sentBytes) }.max() ?? 0
        report.add("sent by the busiest node", most / image, "× the image")
        report.add("requests to peers", Double(counts.peerRequests) / Double(max(1, times.count)), "a node")
        report.add("of them refused as busy", Double(counts.busy) / Double(max(1, counts.peerRequests)), "")
        report.add("of them not there", Double(counts.absent) / Double(max(1, counts.peerRequests)), "")
        report.add("stalled", Double(counts.stalls), "requests")
        report.add("requests to the registry", Double(counts.registryRequests), "")
        report.add("refused by the registry (429)", Double(counts.tooMany), "")
        report.add("longest wait for the registry", counts.longestAtRegistry, "s")
        for lie in DistributionNode.Lie.allCases where options.liars > 0 {
            report.add(
                "waited for liars: \(lie)", counts.lost[lie, default: 0] / Double(max(1, times.count)), "s a node")
        }
        report.add("trackers' answers", Double(counts.mountBytes) / Double(max(1, options.nodes)), "bytes a node")
        check(&report)
    }

    /// Chunks the scheduler took for resident although the right bytes were never written.
    private var wrongChunks: Int { nodes.reduce(0) { $0 + $1.wrongChunks } }

    private func check(_ report: inout SimulationReport) {
        if wrongChunks > 0 { report.violate("\(wrongChunks) chunks were accepted unverified") }
        if counts.errors > 0 { report.violate("\(counts.errors) reads failed though the registry could be reached") }
        if counts.answeredTwice > 0 { report.violate("\(counts.answeredTwice) misses were answered twice") }
        let open = nodes.filter(\.isUp).reduce(0) { $0 + $1.misses.count }
        if unfinished > 0 || open > 0 {
            report.violate("\(unfinished) readers did not finish, \(open) misses were never answered")
        }
        if counts.crashed == 0, counts.misses != counts.answers {
            report.violate("\(counts.misses) misses, \(counts.answers) answers")
        }
    }
}
