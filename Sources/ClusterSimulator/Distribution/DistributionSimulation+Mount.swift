internal import ChunkModel
internal import ChunkResolution
internal import ContentIndex

/// Mounting: the trackers, what gossip brings later, and the reader.
extension DistributionSimulation {
    /// Gossip reaches the others in so many waves.
    static let waves = 8
    /// After the mount the trackers are asked again: nodes that mount in the same moment come to them one by one.
    private static let again: [Duration] = [.milliseconds(100), .milliseconds(300), .seconds(1), .seconds(3)]
    /// A mount waits for the answers of all of them, so long at most, as the agent's does.
    private static let trackerPatience = Duration.milliseconds(800)

    mutating func mount(_ node: DistributionNode, _ attempt: Int) {
        guard node.isUp else { return }
        if attempt == 0 {
            node.begun = simulation.now
            announce(node, node.lie == nil ? ContentRecord(.registered) : ContentRecord(.complete))
        }
        let trackers = node.index.trackers(of: wireID).compactMap { numbers[$0] }
        for tracker in trackers where tracker != node.number {
            send(.mount(known: node.told[tracker] ?? 0), from: node.number, to: tracker)
        }
        if attempt == 0, trackers.contains(node.number) { register(node.name, at: node) }
        if attempt == 0 {
            node.silentTrackers = Set(trackers).subtracting([node.number])
            if node.silentTrackers.isEmpty { beginReading(node) }
            schedule(.mounted(node: node.number), at: simulation.now + Self.trackerPatience)
        }
        if attempt < Self.again.count {
            schedule(.mount(node: node.number, attempt: attempt + 1), at: simulation.now + Self.again[attempt])
        }
    }

    private func register(_ name: NodeName, at tracker: DistributionNode) {
        guard tracker.isRegistered.insert(name).inserted else { return }
        tracker.registered.append(name)
        if tracker.index.record(of: name, wireID) == nil {
            _ = tracker.index.apply(name, wireID, version: 1, ContentRecord(.registered), now: simulation.now)
        }
    }

    mutating func answerMount(_ known: Int, from: Int, at node: DistributionNode) {
        register(nodes[from].name, at: node)
        // A lying tracker knows nobody, or says nothing.
        if node.lie == .stalling { return }
        let names = node.lie == nil ? Array(node.registered.dropFirst(known)) : []
        counts.mountBytes += names.count * DistributionMessage.nameBytes
        send(.mounted(names: names, count: node.registered.count), from: node.number, to: from)
    }

    mutating func noteMounted(_ names: [NodeName], _ count: Int, from: Int, at node: DistributionNode) {
        node.told[from] = count
        for name in names where node.index.record(of: name, wireID) == nil {
            _ = node.index.apply(name, wireID, version: 1, ContentRecord(.registered), now: simulation.now)
        }
        node.silentTrackers.remove(from)
        if node.silentTrackers.isEmpty { beginReading(node) }
    }

    // MARK: - Gossip

    /// Tells all others, by and by.
    mutating func announce(_ node: DistributionNode, _ record: ContentRecord) {
        node.version += 1
        node.announced = node.residentCount
        _ = node.index.apply(node.name, wireID, version: node.version + 1, record, now: simulation.now)
        guard options.nodes > 1 else { return }
        let span = options.gossip.upperBound - options.gossip.lowerBound
        for wave in 0..<Self.waves {
            let delay = options.gossip.lowerBound + span * Double(wave) / Double(Self.waves - 1)
            schedule(
                .gossip(node: node.number, wave: wave, version: node.version + 1, record),
                at: simulation.now + .seconds(delay))
        }
    }

    func gossip(_ number: Int, _ wave: Int, _ version: UInt64, _ record: ContentRecord) {
        // Each node is in a wave that differs from sender to sender.
        let first = (wave + number * 5) % Self.waves
        for other in stride(from: first, to: nodes.count, by: Self.waves) where other != number {
            _ = nodes[other].index.apply(nodes[number].name, wireID, version: version, record, now: simulation.now)
        }
    }

    /// A node dies; the membership knows five seconds later, as far as it matters here at once for all.
    mutating func crash(_ node: DistributionNode) {
        guard node.isUp, node.finished == nil else { return }
        node.isUp = false
        counts.crashed += 1
        unfinished -= 1
        simulation.stop(node.number)
        for other in nodes where other.isUp { other.index.forget(node.name, now: simulation.now) }
    }

    // MARK: - The reader

    mutating func beginReading(_ node: DistributionNode) {
        guard node.reading == nil, node.lie == nil else { return }
        node.reading = 0
        read(node)
    }

    /// The reader goes on to the next chunk that is not there.
    mutating func read(_ node: DistributionNode) {
        while let chunk = node.reading, node.finished == nil {
            guard chunk < node.resident.count else {
                node.finished = simulation.now
                unfinished -= 1
                return
            }
            if node.resident[chunk] {
                node.reading = chunk + 1
                let ahead = node.detector.access(chunk)
                want(ahead, at: node)
                continue
            }
            guard node.misses.insert(chunk).inserted else { return }
            counts.misses += 1
            perform(.miss(ChunkKey(Self.blob, chunk)), at: node)
            return want(node.detector.access(chunk), at: node)
        }
    }

    private mutating func want(_ chunks: Range<Int>, at node: DistributionNode) {
        let keys = chunks.map { ChunkKey(Self.blob, $0) }
            .filter { !node.resident[$0.chunk] && !node.scheduler.isPending($0) }
        if !keys.isEmpty { perform(.want(keys, .readAhead, repair: false), at: node) }
    }

    /// A miss was answered: well, or with an error.
    mutating func answerMiss(_ chunk: Int, isGood: Bool, at node: DistributionNode) {
        guard node.misses.remove(chunk) != nil else {
            counts.answeredTwice += 1
            return
        }
        counts.answers += 1
        if !isGood { counts.errors += 1 }
    }
}
