internal import ChunkModel

/// The nodes of a `ContentIndex` under small numbers, 1...; a number is given to another node only after everything
/// said of the old one was swept away.
struct NodeTable: Sendable {
    enum Standing: Equatable, Sendable {
        /// The membership says it lives.
        case live
        /// It does not, or nobody said so yet; since when.
        case absent(since: Duration)
    }

    struct Node: Sendable {
        var name: NodeName
        var hash: UInt64
        /// Number of its zone's name; 0 is no known zone.
        var zone: UInt16 = 0
        var standing: Standing
        /// Blobs it has a record of.
        var records = 0
        var isLive: Bool { standing == .live }
    }

    /// Zones told apart; later ones count as unknown.
    private static let maxZones = 1024

    private var nodes: [Node?] = []
    private var numbers: [NodeName: UInt32] = [:]
    private var free: [UInt32] = []
    private var zones: [String: UInt16] = [:]

    var count: Int { numbers.count }

    func number(of name: NodeName) -> UInt32? { numbers[name] }

    /// A number in use; traps for any other (a programmer error).
    subscript(_ number: UInt32) -> Node {
        get {
            guard let node = nodes[Int(number)] else { preconditionFailure("node number \(number) is free") }
            return node
        }
        set { nodes[Int(number)] = newValue }
    }

    /// The node's number, made when it is new; nil when there are `limit` already.
    mutating func intern(_ name: NodeName, limit: Int, now: Duration) -> UInt32? {
        if let number = numbers[name] { return number }
        guard numbers.count < limit else { return nil }
        let node = Node(name: name, hash: Rendezvous.hash(of: name), standing: .absent(since: now))
        let number: UInt32
        if let reused = free.popLast() {
            number = reused
            nodes[Int(number)] = node
        } else {
            number = UInt32(nodes.count)
            nodes.append(node)
        }
        numbers[name] = number
        return number
    }

    mutating func setZone(_ number: UInt32, _ zone: String) {
        if zone.isEmpty {
            self[number].zone = 0
        } else if let known = zones[zone] {
            self[number].zone = known
        } else if zones.count < Self.maxZones {
            zones[zone] = UInt16(zones.count + 1)
            self[number].zone = UInt16(zones.count)
        } else {
            self[number].zone = 0
        }
    }

    /// Numbers of nodes absent since `time` or earlier, ascending.
    func absent(since time: Duration) -> [UInt32] {
        nodes.indices.compactMap { at in
            guard let node = nodes[at], case .absent(let since) = node.standing, since <= time else { return nil }
            return UInt32(at)
        }
    }

    /// Gives the number back; nothing may name it any more.
    mutating func remove(_ number: UInt32) {
        numbers[self[number].name] = nil
        nodes[Int(number)] = nil
        free.append(number)
    }

    /// Numbers of live nodes, ascending.
    var live: [UInt32] { nodes.indices.compactMap { nodes[$0]?.isLive == true ? UInt32($0) : nil } }
}
