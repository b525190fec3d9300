import ChunkModel

/// How many requests a peer may make, and have waiting here. Pure value; `now` is any monotonic clock.
struct RequestBudget {
    struct Limits: Sendable {
        /// Requests a second and in a burst: 4,000 chunks of 512 KiB a second are 16 Gbit/s; as many requests for
        /// nothing are a tenth of a core.
        var perSecond = 4000
        var burst = 8000
        /// Complaints: each has a chunk read and hashed.
        var complaintsPerSecond = 1
        var complaintBurst = 16
        /// Requests being answered, a peer and in all: each is a task and a connection.
        var runningPerPeer = 64
        var running = 512
        /// Peers remembered; the server lets in fewer connections.
        var peers = 1024
    }

    private struct Peer {
        var requests: TokenBucket
        var complaints: TokenBucket
        var running = 0

        mutating func fill(now: Duration) {
            requests.fill(now: now)
            complaints.fill(now: now)
        }

        var isIdle: Bool { running == 0 && requests.isFull && complaints.isFull }
    }

    private let limits: Limits
    private var peers: [NodeName: Peer] = [:]
    private var running = 0

    init(_ limits: Limits) { self.limits = limits }

    enum Verdict: Equatable { case go, tooFast, tooMany }

    /// Counts a request that begins; after `go` call `end`.
    mutating func begin(_ name: NodeName, isComplaint: Bool, now: Duration) -> Verdict {
        if peers[name] == nil, peers.count >= limits.peers { forgetIdle(now: now) }
        var peer =
            peers[name]
            ?? Peer(
                requests: TokenBucket(rate: Double(limits.perSecond), burst: Double(limits.burst), now: now),
                complaints: TokenBucket(
                    rate: Double(limits.complaintsPerSecond), burst: Double(limits.complaintBurst), now: now))
        peer.fill(now: now)
        defer { peers[name] = peer }
        guard peer.requests.mayTake, !isComplaint || peer.complaints.mayTake else { return .tooFast }
        guard peer.running < limits.runningPerPeer, running < limits.running else { return .tooMany }
        peer.requests.take(1)
        if isComplaint { peer.complaints.take(1) }
        peer.running += 1
        running += 1
        return .go
    }

    mutating func end(_ name: NodeName) {
        running -= 1
        peers[name]?.running -= 1
    }

    private mutating func forgetIdle(now: Duration) {
        peers = peers.compactMapValues { peer in
            var peer = peer
            peer.fill(now: now)
            return peer.isIdle ? nil : peer
        }
    }
}
