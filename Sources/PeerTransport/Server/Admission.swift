import ChunkModel

/// Who may connect: counts connections, handshakes and names. Pure value; `now` is seconds on any monotonic clock.
struct Admission {
    private let limits: PeerServerLimits
    private(set) var connections = 0
    private(set) var handshakes = 0
    /// Handshakes going on, by address: at most `limits.handshakes` entries.
    private var byAddress: [String: Int] = [:]
    /// Connections by proven name: at most `limits.connections` entries.
    private var byName: [NodeName: Int] = [:]
    /// Handshakes that may begin at once.
    private var tokens: Double
    private var refilled: Double?

    init(_ limits: PeerServerLimits) {
        self.limits = limits
        tokens = Double(limits.handshakeBurst)
    }

    /// Counts a new connection and its handshake, or says why it is not let in (then it is not counted).
    mutating func accept(_ address: String, now: Double) -> PeerRefusalReason? {
        if let refilled {
            tokens = min(
                Double(limits.handshakeBurst), tokens + max(0, now - refilled) * Double(limits.handshakesPerSecond))
        }
        refilled = now
        guard connections < limits.connections else { return .tooManyConnections }
        guard handshakes < limits.handshakes, byAddress[address, default: 0] < limits.handshakesPerAddress else {
            return .tooManyHandshakes
        }
        guard tokens >= 1 else { return .handshakeRate }
        tokens -= 1
        connections += 1
        handshakes += 1
        byAddress[address, default: 0] += 1
        return nil
    }

    /// The handshake has ended, well or not.
    mutating func endHandshake(_ address: String) {
        handshakes -= 1
        byAddress[address] = byAddress[address].flatMap { $0 > 1 ? $0 - 1 : nil }
    }

    /// Counts a connection under its name; false when the name has enough.
    mutating func enter(_ name: NodeName) -> Bool {
        guard byName[name, default: 0] < limits.connectionsPerName else { return false }
        byName[name, default: 0] += 1
        return true
    }

    mutating func leave(_ name: NodeName) { byName[name] = byName[name].flatMap { $0 > 1 ? $0 - 1 : nil } }

    /// A connection that was let in has closed.
    mutating func close() { connections -= 1 }
}
