internal import ChunkModel

extension FetchScheduler {
    // MARK: - Ends of fetches

    mutating func noteRangeEnded(_ id: UInt64, _ delivered: Int, _ failure: FetchFailure?, _ now: Duration) {
        guard let range = ranges.removeValue(forKey: id) else { return }
        // About: chunks differ in length.
        let missing = range.charged * max(0, range.chunks.count - delivered) / range.chunks.count
        rates.giveBack(missing, DownloadRates.Kind(rank: range.rank, isRegistry: range.source.peer == nil))
        for chunk in range.chunks.dropFirst(delivered) {
            let key = ChunkKey(range.blob, chunk)
            if states[key]?.hedge?.range == id { states[key]?.hedge = nil }
            // It may have come another way meanwhile, or be on its way in another range.
            guard let state = states[key], state.phase == .fetching(range: id) else { continue }
            // A peer: who else there is depends on what its answer taught.
            if range.source.peer != nil || state.hedge != nil {
                // One that gave a part did what it could.
                leavePeer(key, isFailure: delivered == 0)
            } else {
                retry(key, failure ?? .transient(retryAfter: nil), now)
            }
        }
    }

    /// Another attempt, another source, or the end.
    private mutating func retry(_ key: ChunkKey, _ failure: FetchFailure, _ now: Duration) {
        guard var state = states[key] else { return }
        let allowed = state.rank == .demand ? limits.demandAttempts : limits.speculativeAttempts
        // A refused node goes on trying while peers may yet have the chunk.
        guard state.attempts < allowed, failure != .permanent || state.knowsPeers else {
            return give(up: key, failure == .permanent ? .refused : .attempts)
        }
        // Peers that nobody vouches for, between one turn of the registry and the next but one.
        if state.attempts % 2 == 1, state.sources.dropFirst().first?.peer != nil, peersMayBeAsked(for: key, now) {
            states[key]?.sources = state.sources.dropFirst() + [.registry]
            return enqueue(key, atFront: false)
        }
        var retryAfter: Duration?
        if case .transient(let wish) = failure { retryAfter = wish }
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
        _ key: ChunkKey, _ status: GateProtocol.FillStatus, _ errno: UInt32, _ from: FetchSource?, _ now: Duration
    ) {
        if status == .mismatch, let from, let peer = from.peer { return distrust(peer, key, from) }
        guard let state = states[key] else { return }
        switch state.phase {
        case .copying: copiesInFlight -= 1
        case .fetching: break
        // Brought by a range it had left for another: resident is resident, anything else is not its answer.
        case .queued, .waiting, .pausing, .locating: guard status == .resident else { return }
        case .following, .makingRoom: return
        }
        switch status {
        case .resident:
            if quarantines[key.blob]?.noteGood(chunk: key.chunk) == true {
                quarantines[key.blob] = nil
                out.append(.released(key.blob))
            }
            let source = from ?? state.sources.first
            endOthers(key, state, cameFrom: source)
            settle(key, resident: true, from: source)
        case .mismatch: judgeMismatch(key, state, from, now)
        case .writeFailed: noteWriteFailed(key, state, errno)
        // A copy's source was evicted since; a fill's blob is gone.
        case .unknown: state.phase == .copying ? nextSource(key, .noSource) : give(up: key, .unknownBlob)
        }
    }

    mutating func noteMismatch(_ key: ChunkKey, _ now: Duration) {
        guard let state = states[key], case .fetching = state.phase else { return }
        // Only what a registry stores is compressed.
        judgeMismatch(key, state, .registry, now)
    }

    private mutating func judgeMismatch(_ key: ChunkKey, _ state: State, _ from: FetchSource?, _ now: Duration) {
        guard let source = state.sources.first else { return give(up: key, .mismatch) }
        if let peer = source.peer, from == nil { return distrust(peer, key, source) }
        if state.hedge != nil || source != from ?? source {
            // The second source lied, or one that was left: the first is on its way.
            if state.hedge?.source == from { states[key]?.hedge = nil }
            return
        }
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

    private mutating func settle(_ key: ChunkKey, resident: Bool, from source: FetchSource? = nil) {
        guard let state = states.removeValue(forKey: key) else { return }
        counts[state.rank.rawValue] -= 1
        out.append(.settled(key, state.rank, resident: resident, source: resident ? source : nil))
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
                if state.knowsPeers {
                    // Whatever kept the registry from answering: peers may have it by now.
                    states[key]?.peerTries = 0
                    states[key]?.peersUntil = now + limits.peerTime / 2
                    locateAgain(key)
                } else {
                    enqueue(key, atFront: false)
                }
            case .relocate(let key, let serial):
                guard let state = states[key], state.serial == serial, state.phase == .pausing else { continue }
                locateAgain(key)
            case .hedge(let key, let serial, let range):
                guard states[key]?.serial == serial else { continue }
                hedge(key, range, now)
            case .peersOver(let key, let serial):
                guard states[key]?.serial == serial else { continue }
                endPeersTime(key, now)
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
        case .locating, .queued, .waiting, .pausing, .following, .makingRoom: give(up: key, .deadline)
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
        for number in queues.indices {
            queues[number].removeAll()
            queueHeads[number] = 0
        }
        timers.removeAll()
        leaders.removeAll()
        followers.removeAll()
        waitingForRoom.removeAll()
        copiesInFlight = 0
        for rank in counts.indices { counts[rank] = 0 }
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
