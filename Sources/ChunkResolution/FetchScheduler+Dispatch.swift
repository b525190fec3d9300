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
        let first = layout.index[key.chunk].size
        guard slots.admits(first, slots: 1, for: rank) else { return false }
        let wanted = run(from: key, state, rank, layout)
        // What nobody waits for yet waits for a whole range: a slot at a time would be a request a chunk.
        let isWhole = wanted.fits == wanted.run
        guard rank == .demand || isWhole || active == 0 else { return false }
        let end = key.chunk + wanted.fits
        let id = nextRange
        nextRange += 1
        var taken: [UInt32] = []
        taken.reserveCapacity(wanted.fits)
        for chunk in key.chunk..<end {
            let member = ChunkKey(key.blob, chunk)
            let slot = slots.take(layout.index[chunk].size)
            taken.append(slot)
            states[member]?.phase = .fetching(range: id)
            states[member]?.slot = slot
            states[member]?.attempts += 1
        }
        let source = FetchSource.registry
        ranges[id] = Range(blob: key.blob, chunks: key.chunk..<end, slots: taken, rank: rank, source: source)
        out.append(
            .fetch(
                RangePlan(
                    id: id, blob: key.blob, source: source, chunks: key.chunk..<end,
                    stored: layout.storedRange(of: key.chunk..<end), slots: taken, rank: rank,
                    bypassCaches: state.bypassCaches, repair: state.repair)))
        return true
    }

    /// How many chunks from `key` on are queued for the same source and fit one range, and how many of these the
    /// slots admit. The first chunk is counted without asking; it never waits for the others.
    private func run(
        from key: ChunkKey, _ state: State, _ rank: FetchRank, _ layout: BlobLayout
    ) -> (run: Int, fits: Int) {
        if state.bypassCaches || state.repair { return (1, 1) }
        var size = layout.index[key.chunk].size
        var count = 1
        var fits = 1
        while key.chunk + count < layout.index.count {
            let next = ChunkKey(key.blob, key.chunk + count)
            guard let other = states[next], other.phase == .queued, other.sources.first == .registry,
                !other.bypassCaches, !other.repair
            else { break }
            let stored = layout.storedRange(of: key.chunk..<key.chunk + count + 1)
            guard stored.count <= limits.rangeBytes else { break }
            size += layout.index[next.chunk].size
            count += 1
            // A neighbour nobody waits for must leave the readers' reserve alone, also in a reader's range.
            if fits == count - 1, slots.admits(size, slots: count, for: max(rank, other.rank)) { fits = count }
        }
        return (count, fits)
    }
}
