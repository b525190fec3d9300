internal import ChunkModel

extension FetchScheduler {
    // MARK: - Ends of fetches

    mutating func noteRangeEnded(_ id: UInt64, _ delivered: Int, _ failure: FetchFailure?, _ now: Duration) {
        guard let range = ranges.removeValue(forKey: id) else { return }
        for chunk in range.chunks.dropFirst(delivered) {
            let key = ChunkKey(range.blob, chunk)
            // It may have come another way meanwhile, or be on its way in another range.
            guard states[key]?.phase == .fetching(range: id) else { continue }
            retry(key, failure ?? .transient(retryAfter: nil), now)
        }
    }

    /// Another attempt, another source, or the end.
    private mutating func retry(_ key: ChunkKey, _ failure: FetchFailure, _ now: Duration) {
        guard var state = states[key] else { return }
        let allowed = state.rank == .demand ? limits.demandAttempts : limits.speculativeAttempts
        guard case .transient(let retryAfter) = failure, state.attempts < allowed else {
            return nextSource(key, failure == .permanent ? .refused : .attempts)
        }
        var delay = limits.firstBackoff
        for _ in 1..<max(1, state.attempts) where delay < limits.maxBackoff { delay *= 2 }
        delay = min(delay, limits.maxBackoff)
        delay += delay * Int(nextRandom() % 256) / 1024
        // A source's own wish counts, but not beyond what a reader can wait.
        if let retryAfter { delay = max(delay, min(retryAfter, limits.deadline)) }
        state.phase = .waiting
        states[key] = state
        timers.add(.retry(key, serial: state.serial), at: now + delay)
    }

    mutating func nextSource(_ key: ChunkKey, _ reason: FailureReason) {
        guard var state = states[key] else { return }
        if !state.sources.isEmpty { state.sources.removeFirst() }
        state.attempts = 0
        state.bypassCaches = false
        states[key] = state
        guard !state.sources.isEmpty else { return give(up: key, reason) }
        enqueue(key, atFront: false)
    }

    /// xorshift64: jitter only.
    private mutating func nextRandom() -> UInt64 {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return random
    }

    // MARK: - Verdicts

    mutating func noteFilled(
        _ key: ChunkKey, _ status: GateProtocol.FillStatus, _ errno: UInt32, _ now: Duration
    ) {
        guard let state = states[key] else { return }
        switch state.phase {
        case .copying: copiesInFlight -= 1
        case .fetching: break
        // Brought by a range it had left for one of its own: resident is resident, anything else is not its answer.
        case .queued, .waiting: guard status == .resident else { return }
        case .locating, .following, .makingRoom: return
        }
        switch status {
        case .resident:
            if quarantines[key.blob]?.noteGood(chunk: key.chunk) == true {
                quarantines[key.blob] = nil
                out.append(.released(key.blob))
            }
            settle(key, resident: true)
        case .mismatch: judgeMismatch(key, state, now)
        case .writeFailed: noteWriteFailed(key, state, errno)
        // A copy's source was evicted since; a fill's blob is gone.
        case .unknown: state.phase == .copying ? nextSource(key, .noSource) : give(up: key, .unknownBlob)
        }
    }

    mutating func noteMismatch(_ key: ChunkKey, _ now: Duration) {
        guard let state = states[key], case .fetching = state.phase else { return }
        judgeMismatch(key, state, now)
    }

    private mutating func judgeMismatch(_ key: ChunkKey, _ state: State, _ now: Duration) {
        guard let source = state.sources.first else { return give(up: key, .mismatch) }
        if source == .registry, !state.bypassCaches {
            // A cache on the way may be what lied: once more, past it, and before its turn.
            states[key]?.bypassCaches = true
            return enqueue(key, atFront: true)
        }
        if source == .registry {
            quarantines[key.blob, default: Quarantine(limits: limits.quarantine)].note(chunk: key.chunk, now: now)
        }
        out.append(.quarantined(key, source))
        nextSource(key, .mismatch)
    }

    private mutating func noteWriteFailed(_ key: ChunkKey, _ state: State, _ errno: UInt32) {
        let isFull = errno == Self.noSpaceError || errno == Self.quotaError
        states[key]?.errno = isFull ? errno : Self.inputOutputError
        guard isFull, !state.retriedWrite else { return give(up: key, isFull ? .noSpace : .write) }
        states[key]?.retriedWrite = true
        states[key]?.phase = .makingRoom
        if waitingForRoom.isEmpty { out.append(.makeRoom) }
        waitingForRoom.append(key)
    }

    mutating func noteRoom(_ made: Bool, _ now: Duration) {
        let waiting = waitingForRoom
        waitingForRoom = []
        for key in waiting where states[key]?.phase == .makingRoom {
            if made { enqueue(key, atFront: true) } else { give(up: key, .noSpace) }
        }
    }

    // MARK: - Ends of chunks

    /// No source could give the chunk.
    mutating func give(up key: ChunkKey, _ reason: FailureReason) {
        guard let state = states[key] else { return }
        if state.rank == .demand { out.append(.fail(key, errno: state.errno, reason)) }
        settle(key, resident: false)
    }

    private mutating func settle(_ key: ChunkKey, resident: Bool) {
        guard let state = states.removeValue(forKey: key) else { return }
        counts[state.rank.rawValue] -= 1
        out.append(.settled(key, state.rank, resident: resident, source: resident ? state.sources.first : nil))
        if case .following(let leader) = state.phase { followers[leader]?.removeAll { $0 == key } }
        guard let digest = layouts[key.blob]?.index[key.chunk].digest, leaders[digest] == key else { return }
        leaders[digest] = nil
        passOn(from: key, digest, resident: resident)
    }

    /// Those who waited for the same bytes copy them; if there are none, the first of them leads.
    private mutating func passOn(from key: ChunkKey, _ digest: Digest, resident: Bool) {
        let waiting = (followers.removeValue(forKey: key) ?? []).filter { states[$0]?.phase == .following(key) }
        if resident {
            for follower in waiting {
                states[follower]?.sources = [.local(key), .registry]
                enqueue(follower, atFront: false)
            }
            return
        }
        guard let next = waiting.first else { return }
        leaders[digest] = next
        states[next]?.phase = .locating
        out.append(.locate(next))
        for follower in waiting.dropFirst() { states[follower]?.phase = .following(next) }
        if waiting.count > 1 { followers[next] = Array(waiting.dropFirst()) }
    }

    // MARK: - Time

    mutating func runTimers(_ now: Duration) {
        while let timer = timers.popDue(now) {
            switch timer {
            case .retry(let key, let serial):
                guard let state = states[key], state.serial == serial, state.phase == .waiting else { continue }
                enqueue(key, atFront: false)
            case .deadline(let key, let serial):
                guard let state = states[key], state.serial == serial, state.rank == .demand else { continue }
                expire(key, state)
            }
        }
    }

    /// The reader has waited long enough. What is on its way may still arrive, for the next one.
    private mutating func expire(_ key: ChunkKey, _ state: State) {
        switch state.phase {
        case .fetching, .copying:
            out.append(.fail(key, errno: Self.inputOutputError, .deadline))
            counts[FetchRank.demand.rawValue] -= 1
            counts[FetchRank.readAhead.rawValue] += 1
            states[key]?.rank = .readAhead
        case .locating, .queued, .waiting, .following, .makingRoom: give(up: key, .deadline)
        }
    }

    // MARK: - Voids

    /// Running ranges are ended; everything starts from nothing.
    mutating func dropEverything() {
        for id in ranges.keys.sorted() { out.append(.cancel(range: id)) }
        for key in states.keys.sorted() {
            guard let rank = states[key]?.rank else { continue }
            out.append(.settled(key, rank, resident: false, source: nil))
        }
        states.removeAll()
        queues = [[], [], []]
        queueHeads = [0, 0, 0]
        timers.removeAll()
        leaders.removeAll()
        followers.removeAll()
        waitingForRoom.removeAll()
        copiesInFlight = 0
        counts = [0, 0, 0]
    }

    mutating func forget(_ blob: BlobID) {
        for id in ranges.keys.sorted() where ranges[id]?.blob == blob { out.append(.cancel(range: id)) }
        for key in states.keys.sorted() where key.blob == blob {
            if states[key]?.phase == .copying { copiesInFlight -= 1 }
            give(up: key, .unknownBlob)
        }
        quarantines[blob] = nil
        layouts[blob] = nil
    }
}
