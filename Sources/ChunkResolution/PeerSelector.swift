package import ChunkModel
internal import ContentIndex

/// Says which peers to ask for a chunk, in which order, and learns from what comes of it.
///
/// Who is asked (docs/formats/peer-protocol.md): those who have the chunk, quickest first, the same zone before
/// others; then the next node above this one in the order of the rendezvous, which gets it for those below it; the
/// registry when there is nobody above. All waiting is for nodes of a higher score, so it never goes in a circle.
///
/// A value without clock or I/O; one user at a time. What peers say is advice: a lie costs time.
package struct PeerSelector: Sendable {
    package struct Limits: Sendable, Equatable {
        /// Peers known by their deeds: 4096 × about 300 bytes = 1.2 MB.
        package var peers = 4096
        /// Segments of which answers are remembered: 512 × up to 1 KiB.
        package var segments = 512
        /// Before anything was measured.
        package var guessedRoundTrip = Duration.milliseconds(5)
        /// Bytes a second.
        package var guessedThroughput = 50e6
        /// Peers that have the chunk named in one answer, and nodes above this one.
        package var holders = 3
        package var climbs = 3
        /// Nodes that ask the same node above them for a segment: each sends it so many times, and the tree of 1,000
        /// nodes is five levels deep.
        package var fanOut = 4
        /// A peer of another zone is asked first only when it is this many times quicker.
        package var zoneFactor = 4.0
        /// Who has the chunk more likely than this is asked before the node above.
        package var certain = 0.95
        /// Who may have it so likely is asked only when nobody is above, or all of them are busy, and not after so many
        /// that had not got it: what everybody reads just now is where everybody's coverage is worst.
        package var likely = 0.5
        package var maxAbsent = 2
        /// Peers that lied, stalled or failed, from which on only those who have given something are believed to have a
        /// chunk: whoever says it has everything would else be asked before the node above, by everybody.
        package var wary = 3
        /// Back-off after a failure: doubles from the first to the second.
        package var firstBackOff = Duration.milliseconds(250)
        package var maxBackOff = Duration.seconds(60)
        /// After one that let us wait for nothing, and after a refusal for cause (403).
        package var stallBackOff = Duration.seconds(10)
        package var maxStallBackOff = Duration.seconds(600)
        package var refusedBackOff = Duration.seconds(60)
        /// Quarantine after wrong bytes: doubles with each time.
        package var firstQuarantine = Duration.seconds(600)
        package var maxQuarantine = Duration.seconds(86_400)
        /// A busy peer's wish is kept within these.
        package var minBusy = Duration.milliseconds(20)
        package var maxBusy = Duration.seconds(2)
        /// A node above that has been busy so often in a row, and for so long, is passed over for the segment: the next
        /// one stands in its place. The top is given this long, each level below it twice as long, so that who waits for
        /// a node that does nothing finds out first, while those below still wait. Not sooner: who takes an honest
        /// node's place asks the registry once more.
        package var busyTimes = 3
        package var topPatience = Duration.seconds(2)
        package var maxPatience = Duration.seconds(8)
        package var passedFor = Duration.seconds(30)
        /// How long one request to a node above waits for the first chunk. A node that lives answers within it, be it
        /// that it is still at it (503): so one that is silent is soon known.
        package var wait = Duration.milliseconds(750)
        /// The first byte may come so much later than that; and from who has the chunk within this, be it a peer that has
        /// given something before, or one that never has.
        package var grace = Duration.seconds(1)
        package var patience = Duration.seconds(3)
        package var strangersPatience = Duration.milliseconds(1500)
        /// Who has sent nothing at all for so long, when another source brought it, has let us wait for nothing, whoever
        /// ended the request. Longer than `wait`, and no longer than the time after which another is asked.
        package var silence = Duration.seconds(1)
        /// How long a hint is believed.
        package var hint = Duration.seconds(5)
        /// A second source is asked after the first one's p95, kept within these: for what it has, and for what it is
        /// to fetch.
        package var minHedge = Duration.milliseconds(50)
        package var maxHedge = Duration.seconds(2)
        package var minFetchHedge = Duration.seconds(1)
        package var maxFetchHedge = Duration.seconds(4)

        package init() {}

        /// How long a node above may be busy that has so many above itself.
        func patience(_ level: Int) -> Duration {
            var patience = topPatience
            for _ in 0..<max(0, level) where patience < maxPatience { patience *= 2 }
            return min(patience, maxPatience)
        }
    }

    /// How a request to a peer ended.
    package enum Outcome: Equatable, Sendable {
        /// Everything or a part came; times since the request.
        case served(bytes: Int, firstByte: Duration, elapsed: Duration)
        /// It has not got it (404), or it was to get it and did not in the time it was given.
        case absent
        /// Not now (503), its wish, and whom it has just given it to.
        case busy(retryAfter: Duration, holders: [NodeName])
        /// Not to this node (403).
        case refused
        /// It could not be reached, or the connection broke.
        case failed
        /// It let us wait and sent nothing, or too little.
        case stalled
        /// Ended by this side, when nothing had come for so long since the request; zero when something had.
        case cancelled(silence: Duration)
    }

    package let own: NodeName
    package let limits: Limits
    let ownHash: UInt64
    var peers: [NodeName: PeerRecord] = [:]
    /// Grows whenever a peer comes into trouble or out of it: paths found before may have changed.
    var troubles: UInt64 = 0
    /// Peers that are, or lately were, not to be asked: few, so that asking about all others costs nothing.
    private(set) var troubled: Set<NodeName> = []
    var notes: [SegmentNotes.Key: SegmentNotes] = [:]
    /// Time to the first chunk of what a node above had to fetch: much the same for all of them.
    var climb: Estimate

    package init(own: NodeName, limits: Limits = Limits()) {
        self.own = own
        self.limits = limits
        ownHash = Rendezvous.hash(of: own)
        climb = Estimate(limits.minFetchHedge / .seconds(2))
    }

    // MARK: - Learning

    /// A request is sent for so many bytes, which the peer may fetch for `wait` first. Returns how long its first byte
    /// may take.
    @discardableResult
    package mutating func noteStarted(
        _ peer: NodeName, bytes: Int, wait: Duration = .zero, now: Duration
    ) -> Duration {
        change(peer, now) { record in
            record.inFlight += bytes
            record.requests += 1
        }
        if wait > .zero { return wait + limits.grace }
        return isProven(peer) ? limits.patience : limits.strangersPatience
    }

    /// A request for `bytes` of this segment has ended. `fetch`: the peer was to get it first.
    package mutating func noteEnded(
        _ peer: NodeName, bytes: Int, of blob: WireID, segment: UInt64, fetch: Bool, _ outcome: Outcome, now: Duration
    ) {
        let limits = limits
        change(peer, now) { $0.inFlight = max(0, $0.inFlight - bytes) }
        switch outcome {
        case .served(let came, let firstByte, let elapsed):
            if fetch { climb.add(firstByte / .seconds(1)) }
            note(blob, segment, now) { $0.noteServed(peer) }
            if isUsable(peer, now: now), troubled.remove(peer) != nil { troubles += 1 }
            change(peer, now) { record in
                record.failures = 0
                record.lastServed = now
                record.bytesServed += UInt64(max(0, came))
                if !fetch {
                    record.firstByte.add(firstByte / .seconds(1))
                    record.noteThroughput(came, (elapsed - firstByte) / .seconds(1))
                }
            }
        case .absent:
            // Whatever named it was wrong or early: not again for this segment until something may have changed.
            note(blob, segment, now) { notes in
                if fetch {
                    notes.notePassed(peer, until: now + limits.passedFor)
                } else {
                    notes.noteAbsent(peer, until: now + limits.maxBusy / 4)
                }
            }
        case .busy(let retryAfter, let holders):
            let wish = min(max(retryAfter, limits.minBusy), limits.maxBusy)
            let others = holders.prefix(SegmentNotes.maxEntries).filter { $0 != own }
            note(blob, segment, now) { notes in
                let (times, span) = notes.noteBusy(peer, wish: wish, longest: limits.maxBusy, now: now)
                if fetch, times >= limits.busyTimes, span >= limits.patience(notes.levels(above: peer)) {
                    notes.notePassed(peer, until: now + limits.passedFor)
                }
                for holder in others.reversed() {
                    notes.noteHint(holder, until: now + limits.hint)
                }
            }
        case .refused: backOff(peer, from: limits.refusedBackOff, to: limits.maxStallBackOff, now)
        case .failed: backOff(peer, from: limits.firstBackOff, to: limits.maxBackOff, now)
        case .stalled: noteStalled(peer, blob, segment, now)
        case .cancelled(let silence):
            // Else a second source that is quick would hide for ever that the first gives nothing. Who gave something
            // else meanwhile is slow.
            let lastServed = peers[peer]?.lastServed
            if silence >= limits.silence, lastServed.map({ now - $0 >= silence }) ?? true {
                noteStalled(peer, blob, segment, now)
            } else if !fetch {
                change(peer, now) { record in
                    let known = record.firstByte.mean
                    record.firstByte.add(max(silence / .seconds(1), known))
                }
            }
        }
    }

    private mutating func noteStalled(_ peer: NodeName, _ blob: WireID, _ segment: UInt64, _ now: Duration) {
        let until = now + limits.passedFor
        note(blob, segment, now) { $0.notePassed(peer, until: until) }
        backOff(peer, from: limits.stallBackOff, to: limits.maxStallBackOff, now)
    }

    /// A small request (a probe, a question about residency) took this long.
    package mutating func noteRoundTrip(_ peer: NodeName, _ time: Duration, now: Duration) {
        change(peer, now) { $0.firstByte.add(time / .seconds(1)) }
    }

    /// The peer sent wrong bytes, or did what only a broken or hostile one does: it is asked for nothing, of any blob.
    /// `reason` is a short label. Asking again while it is quarantined changes nothing.
    package mutating func quarantine(_ peer: NodeName, reason: String, now: Duration) {
        let limits = limits
        change(peer, now) { record in
            if let current = record.quarantine, now < current.until { return }
            var span = limits.firstQuarantine
            for _ in 0..<min(record.offences, 16) where span < limits.maxQuarantine { span *= 2 }
            record.offences += 1
            record.quarantine = (reason, now + min(span, limits.maxQuarantine))
        }
        troubled.insert(peer)
        troubles += 1
    }

    /// An operator trusts it again.
    package mutating func release(_ peer: NodeName) {
        peers[peer]?.quarantine = nil
        peers[peer]?.offences = 0
        peers[peer]?.backOffUntil = .zero
        peers[peer]?.failures = 0
        if troubled.remove(peer) != nil { troubles += 1 }
    }

    /// Whether the peer may be asked now.
    package func isUsable(_ peer: NodeName, now: Duration) -> Bool {
        !troubled.contains(peer) || (peers[peer]?.isUsable(now) ?? true)
    }

    private mutating func backOff(
        _ peer: NodeName, from first: Duration, to longest: Duration, _ now: Duration
    ) {
        change(peer, now) { record in
            var span = first
            for _ in 0..<min(record.failures, 16) where span < longest { span *= 2 }
            record.failures += 1
            record.failed += 1
            record.backOffUntil = now + min(span, longest)
        }
        troubled.insert(peer)
        troubles += 1
    }

    private mutating func change(_ peer: NodeName, _ now: Duration, _ body: (inout PeerRecord) -> Void) {
        if peers[peer] == nil { makeRoom(now) }
        var record = peers[peer] ?? PeerRecord(limits)
        record.lastUse = now
        body(&record)
        peers[peer] = record
    }

    /// The peer unheard of for longest goes, those in quarantine last.
    private mutating func makeRoom(_ now: Duration) {
        guard peers.count >= limits.peers else { return }
        let oldest = peers.min { a, b in
            let (first, second) = (a.value.quarantine != nil, b.value.quarantine != nil)
            return first == second ? (a.value.lastUse, a.key) < (b.value.lastUse, b.key) : second
        }
        if let oldest {
            peers[oldest.key] = nil
            troubled.remove(oldest.key)
        }
    }

    mutating func note(
        _ blob: WireID, _ segment: UInt64, _ now: Duration, _ body: (inout SegmentNotes) -> Void
    ) {
        let key = SegmentNotes.Key(blob: blob, segment: segment)
        if notes[key] == nil, notes.count >= limits.segments {
            notes = notes.filter { $0.value.end > now }
            // Full of what still holds: only advice, all of it goes.
            if notes.count >= limits.segments { notes = [:] }
        }
        body(&notes[key, default: SegmentNotes()])
    }
}
