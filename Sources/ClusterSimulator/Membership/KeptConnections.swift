/// The connections a node keeps open for gossip, as the agent does: so many, those used last, each until the other side
/// has had nothing from it for some time.
struct KeptConnections {
    /// `PeerClient.Limits.idleGossipConnections`.
    static let limit = 32
    /// `PeerServerLimits.idleTimeout`.
    static let idleTimeout = Duration.seconds(150)

    /// The one used longest ago first.
    private var kept: [(to: Int, used: Duration)] = []

    /// Sends a request; false when that needs a new connection.
    mutating func use(_ to: Int, now: Duration) -> Bool {
        let at = kept.firstIndex { $0.to == to }
        let isOpen = at.map { now - kept[$0].used < Self.idleTimeout } ?? false
        if let at { kept.remove(at: at) } else if kept.count >= Self.limit { kept.removeFirst() }
        kept.append((to, now))
        return isOpen
    }
}
