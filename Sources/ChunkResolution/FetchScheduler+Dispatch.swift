internal import ChunkModel

extension FetchScheduler {
    /// Passed entries of a queue that are dropped in one go.
    private static var trimAt: Int { 1024 }

    /// Starts whatever may start: all readers' chunks first, then read-ahead, then background.
    mutating func dispatch(_ now: Duration) {
        for rank in FetchRank.allCases {
            while let key = head(of: rank) {
                guard start(key, rank, now) else { break }
            }
            // Nothing of a lower rank may take what this one waits for.
            if head(of: rank) != nil { return }
        }
    }

    /// The first live entry of a queue; stale ones are dropped on the way.
    private mutating func head(of rank: FetchRank) -> ChunkKey? {
        let number = rank.rawValue
        while queueHeads[number] < queues[number].count {
            let entry = queues[number][queueHeads[number]]
            if let state = states[entry.key], state.serial == entry.serial, state.phase == .queued,
                state.rank == rank
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
        case .registry:
            if let quarantine = quarantines[key.blob], !quarantine.allows(key.chunk, rank, now: now),
                !state.bypassCaches
            {
                nextSource(key, .quarantined)
                return true
            }
            return startRange(key, state, rank)
        }
    }

    private mutating func startRange(_ key: ChunkKey, _ state: State, _ rank: FetchRank) -> Bool {
        guard let layout = layouts[key.blob] else {
            give(up: key, .unknownBlob)
            return true
        }
        let active = ranges.values.count { ($0.rank == .demand) == (rank == .demand) }
        guard active < (rank == .demand ? limits.demandRanges : limits.speculativeRanges) else { return false }
        let end = key.chunk + run(from: key, state, layout)
        let id = nextRange
        nextRange += 1
        for chunk in key.chunk..<end {
            let member = ChunkKey(key.blob, chunk)
            states[member]?.phase = .fetching(range: id)
            states[member]?.attempts += 1
        }
        ranges[id] = Range(blob: key.blob, chunks: key.chunk..<end, rank: rank)
        out.append(
            .fetch(
                RangePlan(
                    id: id, blob: key.blob, source: .registry, chunks: key.chunk..<end,
                    stored: layout.storedRange(of: key.chunk..<end), rank: rank, bypassCaches: state.bypassCaches,
                    repair: state.repair)))
        return true
    }

    /// How many chunks from `key` on are queued for the same source and fit one range. The first never waits for the
    /// others: they only travel along when they are wanted already.
    private func run(from key: ChunkKey, _ state: State, _ layout: BlobLayout) -> Int {
        if state.bypassCaches || state.repair { return 1 }
        var count = 1
        while key.chunk + count < layout.index.count {
            guard let other = states[ChunkKey(key.blob, key.chunk + count)], other.phase == .queued,
                other.sources.first == .registry, !other.bypassCaches, !other.repair,
                layout.storedRange(of: key.chunk..<key.chunk + count + 1).count <= limits.rangeBytes
            else { break }
            count += 1
        }
        return count
    }
}
