package import ChunkModel
package import Membership
internal import PeerWire

/// A cluster of nodes that run the real `Membership` over the simulated network. Bytes are those of the real codec.
package struct MembershipCluster {
    /// What goes over the network: a frame as the body of a request or of its answer.
    package struct Packet {
        let frame: GossipFrame
        let isAnswer: Bool
    }

    package struct Settings: Sendable {
        package var nodes: Int
        package var seed: UInt64
        package var configuration = MembershipConfiguration()
        package var network = NetworkModel()
        /// The first so many nodes are everybody's seeds.
        package var seedNodes = 3
        /// Bytes of signature and certificate in a record: a P-256 signature and a leaf with one URI SAN.
        package var proofBytes = 640
        /// Frames are encoded to be counted. Off, a long run is a fifth shorter, and counts no bytes and no handshakes.
        package var countsBytes = true

        package init(nodes: Int, seed: UInt64) {
            self.nodes = nodes
            self.seed = seed
        }
    }

    /// What is waited for to become known everywhere.
    package enum Watch: Equatable {
        /// That incarnation of a member, or a later one.
        case record(NodeName, incarnation: UInt64)
        case content(NodeName, WireID)
        case dead(NodeName)
        case suspect(NodeName)
    }

    /// Bytes of HTTP/1.1 heads and TLS records around a request and its answer, each: "POST /v1/gossip", Host, type and
    /// length are about 105 bytes; a status line, type and length about 60; a TLS 1.3 record adds 22.
    static let requestOverhead = 127
    static let answerOverhead = 82
    /// A mutual TLS 1.3 handshake both ways, P-256 leaves of 480 bytes and no intermediates, as openssl s_client counts
    /// it; session tickets come on top.
    static let handshakeBytes = 2_700

    package let settings: Settings
    package internal(set) var simulation: Simulation<Packet>
    package internal(set) var nodes: [Membership] = []
    package internal(set) var names: [NodeName] = []
    private var numbers: [NodeName: Int] = [:]
    private var addresses: [String: Int] = [:]
    /// The cluster's idea of milliseconds since 1970 at its start: incarnations begin there.
    private static let epoch: UInt64 = 1_700_000_000_000
    /// Connections each node has made and kept.
    private var connections: [KeptConnections] = []

    // What was seen.
    package internal(set) var watch: Watch?
    package internal(set) var seenAt: [Duration?] = []
    package internal(set) var seenCount = 0
    /// Members declared dead while they were up and reachable by all.
    package internal(set) var falseDeaths = 0
    package internal(set) var suspicions = 0
    package internal(set) var requests = 0
    /// Requests that needed a new connection.
    package internal(set) var handshakes = 0
    package internal(set) var departures = 0

    package init(_ settings: Settings) {
        self.settings = settings
        simulation = Simulation(nodes: 0, network: settings.network, seed: settings.seed)
    }

    // MARK: - Building

    private static func name(_ number: Int) -> NodeName {
        let digits = String(number)
        guard let name = NodeName("node-" + String(repeating: "0", count: max(0, 5 - digits.count)) + digits) else {
            preconditionFailure("node-\(number) is no name")
        }
        return name
    }

    private static func address(_ number: Int) -> String {
        "10.\(number >> 16 & 255).\(number >> 8 & 255).\(number & 255):4710"
    }

    /// A record with a proof of the right size; its signature and certificate are random bytes.
    private mutating func signed(_ record: NodeRecord) -> NodeRecord {
        var filler: [UInt8] = []
        for _ in 0..<(settings.proofBytes + 7) / 8 {
            let word = simulation.random.next()
            for shift in 0..<8 { filler.append(UInt8(truncatingIfNeeded: word >> UInt64(shift * 8))) }
        }
        let proof = SignedRecord(
            body: SignedRecord.body(of: record), signature: Array(filler.prefix(71)),
            certificate: Array(filler.prefix(settings.proofBytes).dropFirst(71)))
        guard let signed = record.signed(proof: proof.bytes) else { preconditionFailure("the proof is too long") }
        return signed
    }

    private mutating func firstRecord(_ number: Int, clockError: Int64 = 0) -> NodeRecord {
        let clock = UInt64(Int64(Self.epoch) + Int64(simulation.now.inSeconds * 1000) + clockError)
        let record = NodeRecord(
            name: names[number], boot: clock, incarnation: clock, address: Self.address(number),
            zone: "zone-\(number % 3)", version: "0.3.0")
        guard let record else { preconditionFailure("a record beyond its limits") }
        return signed(record)
    }

    private mutating func addName() -> Int {
        let number = simulation.addNode()
        connections.append(KeptConnections())
        names.append(Self.name(number))
        numbers[names[number]] = number
        addresses[Self.address(number)] = number
        return number
    }

    private var seedAddresses: [String] { (0..<min(settings.seedNodes, names.count)).map(Self.address) }

    /// Adds nodes that all know one another already.
    package mutating func addKnown(_ count: Int) {
        let added = (0..<count).map { _ in addName() }
        let records = added.map { firstRecord($0) }
        for number in added {
            nodes.append(
                Membership(
                    configuration: settings.configuration, own: records[number], known: records,
                    seed: simulation.random.next(), now: simulation.now))
            act(number, .seeds(seedAddresses))
        }
    }

    /// Adds nodes that know nothing but the seeds' addresses.
    package mutating func addCold(_ count: Int) {
        let added = (0..<count).map { _ in addName() }
        for number in added {
            nodes.append(
                Membership(
                    configuration: settings.configuration, own: firstRecord(number), seed: simulation.random.next(),
                    now: simulation.now))
            act(number, .seeds(seedAddresses))
        }
    }

    /// Starts a stopped node with nothing in memory. `clockError`: milliseconds its clock is ahead.
    package mutating func restart(_ number: Int, clockError: Int64 = 0) {
        simulation.start(number)
        nodes[number] = Membership(
            configuration: settings.configuration, own: firstRecord(number, clockError: clockError),
            seed: simulation.random.next(), now: simulation.now)
        act(number, .seeds(seedAddresses))
    }

    /// Nothing passes between this node and the others any more; it does not stop.
    package mutating func cutOff(_ number: Int) { simulation.setGroup(number + 1, of: number) }

    // MARK: - Running

    /// Runs up to that time, or until `isDone` (asked after each occurrence) says so.
    package mutating func run(until end: Duration, isDone: (borrowing MembershipCluster) -> Bool = { _ in false }) {
        while let occurrence = simulation.next(until: end) {
            switch occurrence {
            case .message(let from, let to, let packet):
                act(to, .received(packet.frame, from: names[from]), request: packet.isAnswer ? nil : names[from])
            case .wake(let node): act(node, .tick)
            case .timer: break
            }
            if isDone(self) { return }
        }
    }

    /// Lets a node handle an event and does what it asks for. `request`: whose request is being answered.
    package mutating func act(_ number: Int, _ event: Membership.Event, request: NodeName? = nil) {
        let now = simulation.now
        var canAnswer = request
        var pending = nodes[number].handle(event, now: now)
        while !pending.isEmpty {
            var next: [Membership.Directive] = []
            for directive in pending {
                if case .sign(let record) = directive {
                    next += nodes[number].handle(.signed(signed(record)), now: now)
                } else {
                    perform(directive, by: number, canAnswer: &canAnswer)
                }
            }
            pending = next
        }
        // Through a pointer, or the whole value would be copied to ask it.
        simulation.wake(number, at: nodes.withUnsafeBufferPointer { $0[number].nextDeadline })
    }

    private mutating func perform(_ directive: Membership.Directive, by number: Int, canAnswer: inout NodeName?) {
        switch directive {
        case .send(let frame, let destination):
            let isAnswer = destination.name != nil && destination.name == canAnswer
            if isAnswer { canAnswer = nil }
            send(frame, from: number, to: destination, isAnswer: isAnswer)
        case .changed(let member): note(member, at: number)
        case .content(let item):
            if watch == .content(item.node, item.blob) { see(number) }
        case .departed: departures += 1
        case .sign, .forgotten, .contentVoid, .conflict: break
        }
    }

    private mutating func send(_ frame: GossipFrame, from: Int, to destination: Destination, isAnswer: Bool) {
        let to = destination.name.flatMap { numbers[$0] } ?? destination.address.flatMap { addresses[$0] }
        guard let to, isAnswer || destination.address != nil else { return }
        if !isAnswer { requests += 1 }
        guard settings.countsBytes else {
            return simulation.send(from: from, to: to, bytes: 0, Packet(frame: frame, isAnswer: isAnswer))
        }
        guard let body = try? GossipCodec.encode(frame) else { preconditionFailure("a frame that cannot be encoded") }
        if !isAnswer, !connections[from].use(to, now: simulation.now) { handshakes += 1 }
        simulation.send(from: from, to: to, bytes: body.count, Packet(frame: frame, isAnswer: isAnswer))
    }

    // MARK: - Watching

    /// Begins to note when each node learns of something.
    package mutating func beginWatch(_ watch: Watch, origin: Int) {
        self.watch = watch
        seenAt = [Duration?](repeating: nil, count: nodes.count)
        seenCount = 0
        see(origin)
    }

    private mutating func see(_ number: Int) {
        guard number < seenAt.count, seenAt[number] == nil else { return }
        seenAt[number] = simulation.now
        seenCount += 1
    }

    private mutating func note(_ member: Member, at number: Int) {
        let name = member.record.name
        switch member.state {
        case .dead:
            if let dead = numbers[name], simulation.isUp(dead), !nodes[dead].hasLeft { falseDeaths += 1 }
            if watch == .dead(name) { see(number) }
        case .suspect:
            suspicions += 1
            if watch == .suspect(name) { see(number) }
        case .alive, .left: break
        }
        if case .record(name, let incarnation)? = watch, member.record.incarnation >= incarnation { see(number) }
    }

    // MARK: - Checking

    package func number(of name: NodeName) -> Int? { numbers[name] }

    /// Nodes that are up and have not left.
    package var present: [Int] { nodes.indices.filter { simulation.isUp($0) && !nodes[$0].hasLeft } }

    /// Why the views of the nodes that are up are not the same and right; nil when they are.
    package func disagreement(allowingSuspects: Bool = false) -> String? {
        let present = present
        guard let first = present.first else { return nil }
        for number in present {
            let counts = nodes[number].counts
            let living = counts.alive + counts.suspect
            guard living == present.count else {
                return "\(names[number]) has \(living) living members, there are \(present.count)"
            }
            guard allowingSuspects || counts.suspect == 0 else {
                return "\(names[number]) has \(counts.suspect) suspects"
            }
            guard nodes[number].digest == nodes[first].digest else {
                return "\(names[number]) and \(names[first]) know different records or content"
            }
        }
        return nil
    }
}
