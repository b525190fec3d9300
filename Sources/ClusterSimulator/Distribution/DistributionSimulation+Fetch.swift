internal import ChunkModel
internal import ChunkResolution
internal import ContentIndex

/// The asking side: what the agent's shell does with the scheduler's directives.
extension DistributionSimulation {
    /// What a peer may take from one chunk to the next before it counts as stalled.
    private static let patience = Duration.seconds(5)

    mutating func perform(_ event: FetchScheduler.Event, at node: DistributionNode) {
        act(node.scheduler.handle(event, now: simulation.now), node)
        while !node.toLocate.isEmpty {
            let keys = node.toLocate
            node.toLocate = []
            let chunks = keys.map { ($0.chunk, node.scheduler.rank(of: $0) ?? .background) }
            let plans = node.selector.plan(chunks, of: wireID, layout: layout, index: node.index, now: simulation.now)
            let located = zip(keys, plans).map { $1.located($0) }
            act(node.scheduler.handle(.located(located), now: simulation.now), node)
        }
        // Virtual time is in whole nanoseconds: the first of them that is not before the deadline.
        simulation.wake(node.number, at: node.scheduler.nextDeadline.map { $0 + .nanoseconds(1) })
    }

    private mutating func act(_ directives: [FetchScheduler.Directive], _ node: DistributionNode) {
        for directive in directives {
            switch directive {
            case .locate(let key): node.toLocate.append(key)
            case .fetch(let plan): fetch(plan, at: node)
            case .cancel(let id): cancel(id, at: node)
            case .fail(let key, _, _): answerMiss(key.chunk, isGood: false, at: node)
            case .settled(let key, _, let resident, _):
                if resident { noteResident(key.chunk, at: node) } else { giveUpWaiting(key.chunk, at: node) }
            case .quarantined(_, let source):
                if let peer = source.peer {
                    node.selector.quarantine(peer, reason: "wrong_bytes", now: simulation.now)
                    counts.quarantines += 1
                    if let number = numbers[peer], nodes[number].lie == nil { counts.innocents += 1 }
                }
            case .complain(let peer, let key):
                if let number = numbers[peer] {
                    send(.complaint(chunk: key.chunk), from: node.number, to: number)
                }
            case .hasten, .released, .makeRoom, .copy: break
            }
        }
    }

    private mutating func fetch(_ plan: RangePlan, at node: DistributionNode) {
        var source = options.nodes
        var fetch = false
        var firstByte: Duration?
        if case .peer(let name, let isToFetch) = plan.source {
            source = numbers[name] ?? options.nodes
            fetch = isToFetch
            firstByte = node.selector.noteStarted(
                name, bytes: plan.stored.count, wait: plan.wait, now: simulation.now)
            counts.peerRequests += 1
            if plan.rank == .demand { counts.demandPeerBytes += plan.stored.count }
        } else {
            counts.registryRequests += 1
        }
        node.incoming[plan.id] = .init(plan: plan, source: source, asked: simulation.now, next: plan.chunks.lowerBound)
        send(
            .ask(.init(id: plan.id, chunks: plan.chunks, rank: plan.rank, fetch: fetch, wait: plan.wait)),
            from: node.number, to: source)
        if let firstByte { watch(plan.id, 0, firstByte, at: node) }
    }

    /// Looks later whether anything has come since.
    private mutating func watch(_ id: UInt64, _ progress: Int, _ patience: Duration, at node: DistributionNode) {
        schedule(.stall(node: node.number, range: id, progress: progress), at: simulation.now + patience)
    }

    mutating func noteStall(_ node: DistributionNode, _ id: UInt64, _ progress: Int) {
        guard node.isUp, let range = node.incoming[id], range.progress == progress else { return }
        send(.cancel(id: id), from: node.number, to: range.source)
        counts.stalls += 1
        end(id, .stalled, at: node)
    }

    private mutating func cancel(_ id: UInt64, at node: DistributionNode) {
        guard let range = node.incoming[id] else { return }
        send(.cancel(id: id), from: node.number, to: range.source)
        // The scheduler is at work: it hears of the end after this, as from a shell that posts to itself.
        counts.cancelled += 1
        node.incoming[id] = nil
        noteTime(range)
        if let peer = range.plan.source.peer {
            let silence = range.firstByte == nil ? simulation.now - range.asked : .zero
            note(range, peer, .cancelled(silence: silence), at: node)
        }
        let delivered = range.next - range.plan.chunks.lowerBound
        act(
            node.scheduler.handle(
                .rangeEnded(id: id, delivered: delivered, failure: .transient(retryAfter: nil)), now: simulation.now),
            node)
    }

    // MARK: - What comes

    mutating func receive(_ id: UInt64, _ chunk: Int, _ content: UInt64, from: Int, at node: DistributionNode) {
        if from == options.nodes {
            sendMoreFromRegistry(to: node.number, id)
        } else {
            sendMore(from: from, to: node, id)
        }
        guard var range = node.incoming[id], range.source == from, chunk == range.next else { return }
        let size = layout.index[chunk].size
        range.firstByte = range.firstByte ?? (simulation.now - range.asked)
        range.bytes += size
        range.next += 1
        range.progress += 1
        node.incoming[id] = range
        count(size, range, from: from, at: node)
        if from != options.nodes { watch(id, range.progress, Self.patience, at: node) }
        // The gate's verdict: nothing but the image's own bytes is accepted.
        let isGood = content == Self.content(of: chunk) || options.fault == .unverified
        let wasResident = node.resident[chunk]
        if !isGood { counts.refusedChunks += 1 }
        if wasResident { counts.doubleBytes += size }
        if isGood { node.disk[chunk] = content }
        perform(
            .filled(
                ChunkKey(Self.blob, chunk), isGood ? .resident : .mismatch, errno: 0, from: range.plan.source),
            at: node)
        read(node)
        if let now = node.incoming[id], now.next == now.plan.chunks.upperBound { end(id, served(now), at: node) }
    }

    private mutating func count(_ size: Int, _ range: DistributionNode.Incoming, from: Int, at node: DistributionNode) {
        if from == options.nodes {
            counts.registryBytes += size
        } else {
            counts.peerBytes += size
            if from % max(1, options.zones) != node.number % max(1, options.zones) { counts.crossZoneBytes += size }
        }
    }

    private func served(_ range: DistributionNode.Incoming) -> PeerSelector.Outcome {
        .served(
            bytes: range.bytes, firstByte: range.firstByte ?? .zero, elapsed: simulation.now - range.asked)
    }

    mutating func noteEnd(_ id: UInt64, _ end: DistributionMessage.End, at node: DistributionNode) {
        guard let range = node.incoming[id] else { return }
        switch end {
        case .over: self.end(id, range.bytes > 0 ? served(range) : .absent, at: node)
        case .absent(let window):
            counts.absent += 1
            if let peer = range.plan.source.peer, let window {
                node.index.learn(peer, wireID, window, now: simulation.now)
            }
            self.end(id, .absent, at: node)
        case .busy(let retryAfter, let holders):
            counts.busy += 1
            self.end(id, .busy(retryAfter: retryAfter, holders: holders), at: node)
        }
    }

    /// A range is over: the selector learns how it went, then the scheduler that it did.
    private mutating func end(_ id: UInt64, _ outcome: PeerSelector.Outcome, at node: DistributionNode) {
        guard let range = node.incoming.removeValue(forKey: id) else { return }
        noteTime(range)
        var failure: FetchFailure?
        if let peer = range.plan.source.peer {
            note(range, peer, outcome, at: node)
        } else if case .busy(let retryAfter, _) = outcome {
            failure = .transient(retryAfter: retryAfter)
        }
        perform(
            .rangeEnded(id: id, delivered: range.next - range.plan.chunks.lowerBound, failure: failure), at: node)
    }

    private mutating func noteTime(_ range: DistributionNode.Incoming) {
        let time = (simulation.now - range.asked).inSeconds
        if range.source == options.nodes {
            counts.longestAtRegistry = max(counts.longestAtRegistry, time)
        } else if let lie = nodes[range.source].lie {
            counts.lost[lie, default: 0] += time
        }
    }

    private func note(
        _ range: DistributionNode.Incoming, _ peer: NodeName, _ outcome: PeerSelector.Outcome, at node: DistributionNode
    ) {
        var fetch = false
        if case .peer(_, let isToFetch) = range.plan.source { fetch = isToFetch }
        node.selector.noteEnded(
            peer, bytes: range.plan.stored.count, of: wireID,
            segment: layout.segment(of: range.plan.chunks.lowerBound), fetch: fetch, outcome, now: simulation.now)
    }

    private mutating func noteResident(_ chunk: Int, at node: DistributionNode) {
        guard !node.resident[chunk] else { return }
        node.resident[chunk] = true
        node.residentCount += 1
        if node.disk[chunk] != Self.content(of: chunk) { node.wrongChunks += 1 }
        answerIfMissed(chunk, at: node)
        for upload in node.waiting.removeValue(forKey: chunk) ?? [] { pump(upload, at: node) }
        let step = max(1, node.resident.count / 8)
        if node.residentCount - node.announced >= step || node.residentCount == node.resident.count {
            announce(node, node.record)
        }
    }

    private mutating func answerIfMissed(_ chunk: Int, at node: DistributionNode) {
        guard node.misses.contains(chunk) else { return }
        switch chunk == 0 ? options.fault : nil {
        case .forgottenMiss: break
        case .failedRead: answerMiss(chunk, isGood: false, at: node)
        case .secondAnswer:
            answerMiss(chunk, isGood: true, at: node)
            answerMiss(chunk, isGood: true, at: node)
        case .unverified, nil: answerMiss(chunk, isGood: true, at: node)
        }
    }
}
