internal import ChunkModel

extension FetchScheduler {
    /// Passed entries of a queue that are dropped in one go.
    private static var trimAt: Int { 1024 }

    /// Starts whatever may start: all readers' chunks first, then other nodes', read-ahead, background. A limit of all
    /// lanes together is for the highest rank in any of them, and for peers and the registry in turn.
    mutating func dispatch(_ now: Duration) {
        rateOpensAt = nil
        let lanes: [Lane] = registryIsNext ? [.local, .registry, .peer] : Lane.allCases
        var isHeld = [Bool](repeating: false, count: Lane.allCases.count)
        for rank in FetchRank.allCases {
            for lane in lanes where !isHeld[lane.rawValue] {
                while let key = head(of: rank, lane) {
                    guard start(key, rank, now) else {
                        // Nothing of a lower rank may take what this one waits for.
                        isHeld[lane.rawValue] = true
                        break
                    }
                }
            }
        }
    }

    /// New limits of what is fetched, from now on. Send `tick` after it: what waited may start.
    package mutating func setRates(_ limits: DownloadLimits) {
        rates.change(limits)
        // What was charged before is forgotten: nothing of it is to be given back.
        for id in ranges.keys { ranges[id]?.charged = 0 }
        if rateOpensAt != nil { rateOpensAt = .zero }
        registryIsNext = false
    }

    /// When the limits let a range start that may not start now; nil when it may.
    func heldUntil(_ rank: FetchRank, _ lane: Lane, _ now: Duration) -> Duration? {
        rates.opensAt(DownloadRates.Kind(rank: rank, isRegistry: lane == .registry)).flatMap { $0 > now ? $0 : nil }
    }

    /// The first live entry of a queue; stale ones are dropped on the way.
    private mutating func head(of rank: FetchRank, _ lane: Lane) -> ChunkKey? {
        let number = Self.queue(rank, lane)
        if queues[number].isEmpty { return nil }
        while queueHeads[number] < queues[number].count {
            let entry = queues[number][queueHeads[number]]
            if let state = states[entry.key], state.serial == entry.serial, state.phase == .queued,
                state.rank == rank, Lane(state.sources.first) == lane
            {
                return entry.key
            }
            queueHeads[number] += 1
            if queueHeads[number] == Self.trimAt {
                queues[number].removeFirst(Self.trimAt)
                queueHeads[number] = 0
            }
        }
        queues[number].removeAll(keepingCapacity: true)
        queueHeads[number] = 0
        return nil
    }

    /// Starts the chunk at the head of a queue, with what can travel along; false when it has to wait.
    private mutating func start(_ key: ChunkKey, _ rank: FetchRank, _ now: Duration) -> Bool {
        guard let state = states[key], let source = state.sources.first else {
            give(up: key, .noSource)
            return true
        }
        switch source {
        case .local(let place):
            guard copiesInFlight < limits.copies else { return false }
            copiesInFlight += 1
            states[key]?.phase = .copying
            out.append(.copy(to: key, from: place))
            return true
        case .peer:
            return startRange(key, state, source, now)
        case .registry:
            if let quarantine = quarantines[key.blob], !quarantine.allows(key.chunk, rank, now: now),
                !state.bypassCaches
            {
                nextSource(key, .quarantined)
                return true
            }
            return startRange(key, state, source, now)
        }
    }

    private mutating func startRange(
        _ key: ChunkKey, _ state: State, _ source: FetchSource, _ now: Duration
    ) -> Bool {
        guard let layout = layouts[key.blob] else {
            give(up: key, .unknownBlob)
            return true
        }
        let lane = Lane(source)
        guard hasRoom(for: state.rank, lane) else { return false }
        if let opens = heldUntil(state.rank, lane, now) {
            rateOpensAt = min(opens, rateOpensAt ?? opens)
            return false
        }
        let chunks = key.chunk..<key.chunk + run(from: key, state, source, layout)
        if lane == .peer { for chunk in chunks { startPatience(ChunkKey(key.blob, chunk), now) } }
        let id = emitRange(key, states[key] ?? state, source, chunks, layout, now)
        for chunk in chunks {
            let member = ChunkKey(key.blob, chunk)
            states[member]?.phase = .fetching(range: id)
            if source.peer == nil {
                states[member]?.attempts += 1
            } else {
                armHedge(member, now)
            }
        }
        return true
    }

    /// Whether one more range may start in this lane for this rank.
    func hasRoom(for rank: FetchRank, _ lane: Lane) -> Bool {
        // A trace goes on beside blocked readers, who want most of it as well, but does not crowd them out.
        if rank == .replay, pendingDemand > 0 {
            let active = ranges.values.count { $0.rank == .replay }
            if active >= limits.replayRangesBesideReaders { return false }
        }
        // Read-ahead, replay and background share what they may take.
        let rank = min(rank, .readAhead)
        let active = ranges.values.count { Lane($0.source) == lane && min($0.rank, .readAhead) == rank }
        let limit =
            switch (lane, rank) {
            case (.peer, .demand): limits.peerDemandRanges
            case (.peer, .relayed): limits.peerRelayedRanges
            case (.peer, _): limits.peerSpeculativeRanges
            case (_, .demand): limits.demandRanges
            case (_, .relayed): limits.relayedRanges
            case (_, _): limits.speculativeRanges
            }
        return active < limit
    }

    /// Says that a range is to be fetched; its number.
    mutating func emitRange(
        _ key: ChunkKey, _ state: State, _ source: FetchSource, _ chunks: Swift.Range<Int>, _ layout: BlobLayout,
        _ now: Duration
    ) -> UInt64 {
        let id = nextRange
        nextRange += 1
        let isPeer = source.peer != nil
        let bytes = isPeer ? layout.rawRange(of: chunks) : layout.storedRange(of: chunks)
        ranges[id] = Range(
            blob: key.blob, chunks: chunks, rank: state.rank, source: source, charged: bytes.count,
            begun: now)
        rates.charge(bytes.count, DownloadRates.Kind(rank: state.rank, isRegistry: !isPeer), now: now)
        if rates.hasTotal { registryIsNext = isPeer }
        for chunk in chunks where states[ChunkKey(key.blob, chunk)]?.rank == .demand {
            note(source, askedFor: ChunkKey(key.blob, chunk))
        }
        out.append(
            .fetch(
                RangePlan(
                    id: id, blob: key.blob, source: source, chunks: chunks, stored: bytes, rank: state.rank,
                    bypassCaches: !isPeer && state.bypassCaches, repair: state.repair,
                    wait: wait(for: source, state, now))))
        return id
    }

    private mutating func note(_ source: FetchSource, askedFor key: ChunkKey) {
        guard let asked = states[key]?.asked, asked.count < Whereabouts.maxAsked, !asked.contains(source) else {
            return
        }
        states[key]?.asked.append(source)
    }

    /// How many chunks from `key` on are queued for the same source and fit one range. The first never waits for the
    /// others: they only travel along when they are wanted already.
    private func run(from key: ChunkKey, _ state: State, _ source: FetchSource, _ layout: BlobLayout) -> Int {
        if state.bypassCaches || state.repair { return 1 }
        let isPeer = source.peer != nil
        let longest = min(
            isPeer ? limits.peerRangeBytes : state.rank == .replay ? limits.replayRangeBytes : limits.rangeBytes,
            rates.longestRequestBytes(DownloadRates.Kind(rank: state.rank, isRegistry: !isPeer)) ?? .max)
        var count = 1
        while key.chunk + count < layout.index.count {
            let chunks = key.chunk..<key.chunk + count + 1
            let bytes = isPeer ? layout.rawRange(of: chunks) : layout.storedRange(of: chunks)
            guard bytes.count <= longest, let other = states[ChunkKey(key.blob, key.chunk + count)],
                other.phase == .queued, other.sources.first == source, !other.bypassCaches, !other.repair
            else { break }
            count += 1
        }
        return count
    }
}
