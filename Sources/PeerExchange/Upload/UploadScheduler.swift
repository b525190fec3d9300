import ChunkModel

/// Bounds of what we send to peers; changed at run time. Value type.
package struct UploadLimits: Sendable, Equatable {
    /// To all peers together, in bytes a second; nil is no limit.
    package var bytesPerSecond: UInt64?
    /// To one peer.
    package var bytesPerSecondPerPeer: UInt64?
    /// Answers being sent at once: each holds one slice of 64 KiB besides what waits in its socket.
    package var slots = 64
    package var slotsPerPeer = 16
    /// Answers that wait for a slot.
    package var queue = 256
    package var queuePerPeer = 32

    package init(bytesPerSecond: UInt64? = nil, bytesPerSecondPerPeer: UInt64? = nil) {
        self.bytesPerSecond = bytesPerSecond
        self.bytesPerSecondPerPeer = bytesPerSecondPerPeer
    }
}

/// Decides who sends next: slots first, then bytes, on demand before ahead before background, peers in turn.
///
/// Pure value: no clock, no randomness. Work per call is O(peers that wait).
package struct UploadScheduler {
    package enum Directive: Equatable, Sendable {
        /// The answer has a slot now.
        case start(UInt64)
        /// The slice that was asked for may be sent.
        case send(UInt64)
    }

    package enum Opening: Equatable, Sendable { case started, queued, refused }

    private struct Upload {
        let peer: NodeName
        let rank: PeerRank
        var hasSlot: Bool
    }

    package private(set) var limits: UploadLimits
    private var uploads: [UInt64: Upload] = [:]
    private var slotsUsed = 0
    private var slotsByPeer: [NodeName: Int] = [:]
    private var queuedByPeer: [NodeName: Int] = [:]
    private var slotQueue = FairQueue()
    private var sliceQueue = FairQueue()
    private var total: TokenBucket?
    private var byPeer: [NodeName: TokenBucket] = [:]

    package init(_ limits: UploadLimits, now: Duration) {
        self.limits = limits
        total = limits.bytesPerSecond.map { Self.bucket($0, now) }
    }

    /// A burst of 50 ms, at least two slices.
    private static func bucket(_ bytesPerSecond: UInt64, _ now: Duration) -> TokenBucket {
        TokenBucket(rate: Double(bytesPerSecond), burst: max(131_072, Double(bytesPerSecond) / 20), now: now)
    }

    /// Answers being sent, and waiting to be.
    package var load: (sending: Int, queued: Int) { (slotsUsed, slotQueue.count) }

    /// A new answer wants to be sent; `id` must be new.
    package mutating func open(_ id: UInt64, _ peer: NodeName, _ rank: PeerRank) -> Opening {
        if slotsUsed < limits.slots, slotsByPeer[peer, default: 0] < limits.slotsPerPeer {
            uploads[id] = Upload(peer: peer, rank: rank, hasSlot: true)
            slotsUsed += 1
            slotsByPeer[peer, default: 0] += 1
            return .started
        }
        guard slotQueue.count < limits.queue, queuedByPeer[peer, default: 0] < limits.queuePerPeer else {
            return .refused
        }
        uploads[id] = Upload(peer: peer, rank: rank, hasSlot: false)
        queuedByPeer[peer, default: 0] += 1
        slotQueue.push(.init(id: id, bytes: 0), peer, rank)
        return .queued
    }

    /// The answer is sent, given up or cancelled, in whatever state. What it leaves goes to others.
    package mutating func close(_ id: UInt64, now: Duration) -> [Directive] {
        guard let upload = uploads.removeValue(forKey: id) else { return [] }
        if upload.hasSlot {
            _ = sliceQueue.remove(id, upload.peer, upload.rank)
            slotsUsed -= 1
            slotsByPeer[upload.peer] = slotsByPeer[upload.peer].flatMap { $0 > 1 ? $0 - 1 : nil }
        } else if slotQueue.remove(id, upload.peer, upload.rank) {
            unqueue(upload.peer)
        }
        return start() + advance(now: now)
    }

    /// Asks for `bytes` of one answer that has a slot: `now` when they may go at once, else a `send` follows. `others`
    /// may go because time has gone on.
    package mutating func ask(
        _ id: UInt64, bytes: Int, now: Duration
    ) -> (now: Bool, others: [Directive]) {
        guard let upload = uploads[id], upload.hasSlot else { return (false, []) }
        guard total != nil || limits.bytesPerSecondPerPeer != nil else { return (true, []) }
        if let rate = limits.bytesPerSecondPerPeer, byPeer[upload.peer] == nil {
            byPeer[upload.peer] = Self.bucket(rate, now)
        }
        sliceQueue.push(.init(id: id, bytes: bytes), upload.peer, upload.rank)
        let all = advance(now: now)
        return (all.contains(.send(id)), all.filter { $0 != .send(id) })
    }

    /// Time has gone on: who may send now.
    package mutating func advance(now: Duration) -> [Directive] {
        fill(now)
        var out: [Directive] = []
        while total?.mayTake ?? true, let (entry, peer) = sliceQueue.pop(byPeer, where: { $0?.mayTake ?? true }) {
            take(entry.bytes, peer)
            out.append(.send(entry.id))
        }
        return out
    }

    /// When `advance` is due; nil when nobody waits for bytes.
    package var nextWake: Duration? {
        guard sliceQueue.count > 0 else { return nil }
        if let total, !total.mayTake { return total.readyAt }
        return sliceQueue.peers.compactMap { byPeer[$0]?.readyAt }.min()
    }

    /// New limits hold from here on; nobody who sends loses the slot.
    package mutating func change(_ new: UploadLimits, now: Duration) -> [Directive] {
        if new.bytesPerSecond != limits.bytesPerSecond { total = new.bytesPerSecond.map { Self.bucket($0, now) } }
        if new.bytesPerSecondPerPeer != limits.bytesPerSecondPerPeer { byPeer = [:] }
        limits = new
        // Those that wait under a peer's limit need its bucket, to have a time to wake at.
        if let rate = new.bytesPerSecondPerPeer {
            for peer in sliceQueue.peers where byPeer[peer] == nil { byPeer[peer] = Self.bucket(rate, now) }
        }
        return start() + advance(now: now)
    }

    private mutating func unqueue(_ peer: NodeName) {
        queuedByPeer[peer] = queuedByPeer[peer].flatMap { $0 > 1 ? $0 - 1 : nil }
    }

    private mutating func start() -> [Directive] {
        var out: [Directive] = []
        let slotsPerPeer = limits.slotsPerPeer
        while slotsUsed < limits.slots,
            let (entry, peer) = slotQueue.pop(slotsByPeer, where: { ($0 ?? 0) < slotsPerPeer })
        {
            unqueue(peer)
            uploads[entry.id]?.hasSlot = true
            slotsUsed += 1
            slotsByPeer[peer, default: 0] += 1
            out.append(.start(entry.id))
        }
        return out
    }

    private mutating func fill(_ now: Duration) {
        total?.fill(now: now)
        // A full bucket is as good as none: only peers that were served lately are kept, and those that wait.
        let waiting = sliceQueue.peers
        for (peer, bucket) in byPeer {
            var bucket = bucket
            bucket.fill(now: now)
            byPeer[peer] = bucket.isFull && !waiting.contains(peer) ? nil : bucket
        }
    }

    private mutating func take(_ bytes: Int, _ peer: NodeName) {
        total?.take(bytes)
        byPeer[peer]?.take(bytes)
    }
}
