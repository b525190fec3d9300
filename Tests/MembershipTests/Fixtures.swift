import ChunkModel
import Membership
import Testing

/// Values and steps that the tests of single rules share.
struct Fixture {
    var membership: Membership
    var now: Duration = .zero

    static func name(_ text: String) throws -> NodeName { try #require(NodeName(text)) }

    static func record(
        _ text: String, _ incarnation: UInt64 = 1_000, boot: UInt64? = nil, address: String? = nil,
        hasLeft: Bool = false, proof: Int = 0
    ) throws -> NodeRecord {
        try #require(
            try NodeRecord(
                name: name(text), boot: boot ?? incarnation, incarnation: incarnation,
                address: address ?? "\(text):4710", hasLeft: hasLeft, proof: [UInt8](repeating: 7, count: proof)))
    }

    static func blob(_ number: UInt8) throws -> WireID {
        try #require(WireID(rawBytes: [UInt8](repeating: number, count: 32)))
    }

    static func content(_ node: String, _ blob: UInt8, boot: UInt64 = 1_000, counter: UInt32, isGone: Bool = false)
        throws -> ContentItem
    {
        try #require(
            try ContentItem(
                node: name(node), blob: Self.blob(blob), version: ContentVersion(boot: boot, counter: counter),
                isGone: isGone, payload: [UInt8(truncatingIfNeeded: counter)]))
    }

    /// A node `own` that knows the others.
    init(_ own: String = "own", knows others: [String] = [], configuration: MembershipConfiguration = .init()) throws {
        membership = Membership(
            configuration: configuration, own: try Self.record(own), known: try others.map { try Self.record($0) },
            seed: 42, now: .zero)
    }

    mutating func handle(_ event: Membership.Event) -> [Membership.Directive] {
        membership.handle(event, now: now)
    }

    mutating func receive(_ items: [GossipItem], _ messages: [GossipMessage] = [], from: String = "peer") throws
        -> [Membership.Directive]
    {
        handle(.received(GossipFrame(messages: messages, items: items), from: try Self.name(from)))
    }

    /// Handles all ticks up to a time and returns what they gave.
    mutating func run(until end: Duration) -> [Membership.Directive] {
        var all: [Membership.Directive] = []
        while membership.nextDeadline <= end {
            now = max(now, membership.nextDeadline)
            all += handle(.tick)
        }
        now = end
        return all
    }

    /// The same, with every probe answered.
    mutating func runAnswering(until end: Duration) throws -> [Membership.Directive] {
        var all: [Membership.Directive] = []
        while membership.nextDeadline <= end {
            now = max(now, membership.nextDeadline)
            all += try tickAnswering()
        }
        now = end
        return all
    }

    /// One tick, with a probe answered.
    mutating func tickAnswering() throws -> [Membership.Directive] {
        let directives = handle(.tick)
        var all = directives
        for (to, frame) in directives.sent {
            for case .ping(let sequence) in frame.messages {
                all += try receive([], [.ack(sequence: sequence)], from: to)
            }
        }
        return all
    }

    func state(_ text: String) throws -> MemberState? { membership.member(try Self.name(text))?.state }
}

extension [Membership.Directive] {
    /// The frames sent, with the name or else the address of whom they go to.
    var sent: [(to: String, frame: GossipFrame)] {
        compactMap { directive in
            guard case .send(let frame, let to) = directive else { return nil }
            return (to.name?.text ?? to.address ?? "?", frame)
        }
    }

    /// The items sent to anybody.
    var items: [GossipItem] { sent.flatMap(\.frame.items) }

    /// The record to be signed.
    var toSign: NodeRecord? {
        for case .sign(let record) in self { return record }
        return nil
    }

    var states: [String] {
        compactMap { directive in
            guard case .changed(let member) = directive else { return nil }
            return "\(member.record) \(member.state)"
        }
    }
}
