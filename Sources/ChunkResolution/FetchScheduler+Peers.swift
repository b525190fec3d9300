internal import ChunkModel

/// Peers: their part of the time, asking the next one, a second one, and never again one that lied.
extension FetchScheduler {
    // MARK: - Their time

    /// From now on peers have their part of the time for this chunk.
    mutating func startPeersTime(_ key: ChunkKey, _ now: Duration) {
        guard let state = states[key] else { return }
        let isDemand = state.rank == .demand
        states[key]?.peerTries = 0
        states[key]?.peersUntil = now + (isDemand ? limits.peerTime : limits.peerPatience)
        if isDemand { timers.add(.peersOver(key, serial: state.serial), at: now + limits.peerTime) }
    }

    /// Waiting for a limit of our own is not the peers' time: it begins when one is asked, the first few times.
    mutating func startPatience(_ key: ChunkKey, _ now: Duration) {
        guard rates.isLimited, let state = states[key], state.rank != .demand, state.peerTries < limits.peerTries / 2
        else { return }
        states[key]?.peersUntil = now + limits.peerPatience
    }

    func peersMayBeAsked(for key: ChunkKey, _ now: Duration) -> Bool {
        guard let state = states[key] else { return false }
        return now < state.peersUntil && (state.rank != .demand || state.peerTries < limits.peerTries)
    }

    /// How long this source may be waited for while it fetches.
    func wait(for source: FetchSource, _ state: State, _ now: Duration) -> Duration {
        guard case .peer(_, fetch: true) = source else { return .zero }
        let longest = state.rank >= .replay ? limits.peerBackgroundWait : limits.peerWait
        return max(.zero, min(longest, state.peerWait ?? longest, state.peersUntil - now))
    }

    /// A reader's chunk has been left to peers long enough: the registry is asked too.
    mutating func endPeersTime(_ key: ChunkKey, _ now: Duration) {
        guard let state = states[key], state.rank == .demand, now >= state.peersUntil else { return }
        switch state.phase {
        case .fetching(let id):
            guard ranges[id]?.source.peer != nil else { return }
            if state.hedge == nil, heldUntil(.demand, .registry, now) == nil {
                return startSecond(key, state, .registry, now)
            }
            if state.hedge?.source != .registry {
                // Two peers at once: one of them will have ended soon. Or a limit of our own, which opens.
                timers.add(.peersOver(key, serial: state.serial), at: now + .seconds(1))
            }
        case .queued:
            guard state.sources.first?.peer != nil else { return }
            if rates.hasTotal, hasRoom(for: .demand, .peer) {
                // A limit of our own holds it up, at the registry as well.
                states[key]?.peersUntil = now + .seconds(1)
                timers.add(.peersOver(key, serial: state.serial), at: now + .seconds(1))
                return
            }
            states[key]?.sources.removeAll { $0.peer != nil }
            enqueue(key, atFront: true)
        case .pausing: locateAgain(key)
        case .locating, .waiting, .following, .copying, .makingRoom: break
        }
    }

    // MARK: - Another one

    /// Asks where the chunk is, now that something is known that was not.
    mutating func locateAgain(_ key: ChunkKey) {
        states[key]?.phase = .locating
        states[key]?.sources = []
        out.append(.locate(key))
    }

    /// Who could give it is busy: later.
    mutating func pause(_ key: ChunkKey, _ delay: Duration, _ now: Duration) {
        guard let state = states[key] else { return }
        states[key]?.phase = .pausing
        timers.add(.relocate(key, serial: state.serial), at: now + max(delay, .milliseconds(1)))
    }

    /// The current source, a peer, did not give the chunk: the second one goes on alone, or another one is asked.
    mutating func leavePeer(_ key: ChunkKey, isFailure: Bool) {
        guard let state = states[key] else { return }
        if isFailure { states[key]?.peerTries += 1 }
        if let hedge = state.hedge {
            states[key]?.hedge = nil
            states[key]?.sources = [hedge.source] + state.sources.dropFirst().filter { $0 != hedge.source }
            states[key]?.phase = .fetching(range: hedge.range)
            return
        }
        locateAgain(key)
    }

    // MARK: - A second one

    /// Sets the time after which a reader's chunk, on its way from a peer, is asked of the next source too.
    mutating func armHedge(_ key: ChunkKey, _ now: Duration) {
        guard let state = states[key], state.rank == .demand, state.hedge == nil, let after = state.hedgeAfter,
            case .fetching(let id) = state.phase, let range = ranges[id], range.source.peer != nil,
            let layout = layouts[key.blob]
        else { return }
        let earned = layout.index[key.chunk].size * limits.hedgePercent / 100
        hedgeTokens = min(limits.hedgeBurst, hedgeTokens + earned)
        timers.add(.hedge(key, serial: state.serial, range: id), at: now + after)
    }

    /// The first source has taken longer than it nearly ever does.
    mutating func hedge(_ key: ChunkKey, _ range: UInt64, _ now: Duration) {
        guard let state = states[key], state.rank == .demand, state.phase == .fetching(range: range),
            // Not when its bytes are with the gate already.
            ranges[range] != nil, let size = layouts[key.blob]?.index[key.chunk].size, hedgeTokens >= size,
            let second = state.sources.dropFirst().first(where: { Lane($0) != .local }),
            hasRoom(for: .demand, Lane(second)), heldUntil(.demand, Lane(second), now) == nil
        else { return }
        hedgeTokens -= size
        startSecond(key, state, second, now)
    }

    private mutating func startSecond(_ key: ChunkKey, _ state: State, _ source: FetchSource, _ now: Duration) {
        guard state.hedge == nil, let layout = layouts[key.blob] else { return }
        if source == .registry, quarantines[key.blob]?.allows(key.chunk, .demand, now: now) == false { return }
        let id = emitRange(key, state, source, key.chunk..<key.chunk + 1, layout, now)
        states[key]?.hedge = Hedge(range: id, source: source)
    }

    /// The chunk came, from `source`: what else was to bring it alone is ended.
    mutating func endOthers(_ key: ChunkKey, _ state: State, cameFrom source: FetchSource?) {
        guard let hedge = state.hedge else { return }
        if source != hedge.source {
            if ranges[hedge.range] != nil { out.append(.cancel(range: hedge.range)) }
        } else if case .fetching(let id) = state.phase, let range = ranges[id] {
            let isWanted = range.chunks.contains {
                $0 != key.chunk && states[ChunkKey(range.blob, $0)]?.phase == .fetching(range: id)
            }
            if !isWanted { out.append(.cancel(range: id)) }
        }
    }

    // MARK: - Never again

    /// A peer sent wrong bytes: whatever it was to bring is had elsewhere, of any blob.
    mutating func distrust(_ peer: NodeName, _ key: ChunkKey, _ source: FetchSource) {
        out.append(.quarantined(key, source))
        out.append(.complain(peer, key))
        for id in ranges.keys.sorted() where ranges[id]?.source.peer == peer { out.append(.cancel(range: id)) }
        for other in states.keys.sorted() {
            guard let state = states[other], state.sources.contains(where: { $0.peer == peer }) else { continue }
            let isCurrent = state.sources.first?.peer == peer
            if isCurrent, case .fetching = state.phase { continue }
            states[other]?.sources.removeAll { $0.peer == peer }
            if isCurrent, state.phase == .queued { locateAgain(other) }
        }
        noteWrong(key, from: peer)
    }

    /// The one chunk: only if it is that peer it is waiting for.
    private mutating func noteWrong(_ key: ChunkKey, from peer: NodeName) {
        guard let state = states[key], case .fetching = state.phase else { return }
        if state.hedge?.source.peer == peer {
            states[key]?.hedge = nil
        } else if state.sources.first?.peer == peer {
            leavePeer(key, isFailure: true)
        }
    }
}
