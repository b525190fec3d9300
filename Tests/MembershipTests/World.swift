import ChunkModel
import Membership
import Testing

/// A few memberships and a network that delivers everything after ten milliseconds, unless a way is cut. All that happens
/// is written down, for transcripts.
struct World {
    struct Pending {
        let time: Duration
        let from: String
        let to: String
        let frame: GossipFrame
    }

    static let latency: Duration = .milliseconds(10)

    var configuration = MembershipConfiguration()
    private(set) var now: Duration = .zero
    private(set) var nodes: [String: Membership] = [:]
    private var pending: [Pending] = []
    private var down: Set<String> = []
    private var cuts: Set<String> = []
    private var clock: UInt64 = 1_000
    private var seeds: [String: [String]] = [:]
    /// What happened since it was last taken.
    var log: [String] = []
    var logsFrames = true

    /// A name made for tests: traps on one that is none.
    static func name(_ text: String) throws -> NodeName { try #require(NodeName(text)) }

    private func record(_ name: String, clock: UInt64) throws -> NodeRecord {
        try #require(
            try NodeRecord(name: Self.name(name), boot: clock, incarnation: clock, address: "\(name):4710"))
    }

    // MARK: - Building

    /// Adds nodes that know one another.
    mutating func addKnown(_ names: [String]) throws {
        let records = try names.map { try record($0, clock: clock) }
        for (name, own) in zip(names, records) {
            nodes[name] = Membership(
                configuration: configuration, own: own, known: records, seed: UInt64(name.utf8.first ?? 0), now: now)
        }
    }

    /// Adds a node that knows the addresses of others.
    mutating func addCold(_ name: String, seeds: [String]) throws {
        nodes[name] = Membership(
            configuration: configuration, own: try record(name, clock: clock), seed: UInt64(name.utf8.first ?? 0),
            now: now)
        self.seeds[name] = seeds.map { "\($0):4710" }
        act(name, .seeds(self.seeds[name] ?? []))
    }

    /// Starts a node anew with nothing in memory.
    mutating func restart(_ name: String, clock: UInt64, seeds: [String]) throws {
        down.remove(name)
        self.clock = clock
        try addCold(name, seeds: seeds)
    }

    mutating func stop(_ name: String) {
        down.insert(name)
        pending.removeAll { $0.to == name }
    }

    mutating func cut(_ from: String, _ to: String) { cuts.insert("\(from)>\(to)") }
    mutating func heal() { cuts = [] }

    // MARK: - Running

    mutating func run(for length: Duration) {
        let end = now + length
        while true {
            let up = nodes.keys.filter { !down.contains($0) }.sorted()
            let due = up.compactMap { name in nodes[name].map { (max($0.nextDeadline, now), name) } }.min {
                $0.0 < $1.0
            }
            let first = pending.indices.min { pending[$0].time < pending[$1].time }
            if let first, pending[first].time <= due?.0 ?? end, pending[first].time <= end {
                let frame = pending.remove(at: first)
                now = max(now, frame.time)
                guard !down.contains(frame.to), let from = NodeName(frame.from) else { continue }
                act(frame.to, .received(frame.frame, from: from))
            } else if let due, due.0 <= end {
                now = due.0
                act(due.1, .tick)
            } else {
                now = end
                return
            }
        }
    }

    /// Hands an event to a node and does what it says; returns the directives, for tests of one step.
    @discardableResult
    mutating func act(_ name: String, _ event: Membership.Event) -> [Membership.Directive] {
        guard var directives = nodes[name]?.handle(event, now: now) else { return [] }
        var all: [Membership.Directive] = []
        while !directives.isEmpty {
            var next: [Membership.Directive] = []
            for directive in directives {
                all.append(directive)
                next += perform(directive, by: name)
            }
            directives = next
        }
        return all
    }

    private mutating func perform(_ directive: Membership.Directive, by name: String) -> [Membership.Directive] {
        switch directive {
        case .send(let frame, let destination):
            let to = destination.name?.text ?? destination.address.map { String($0.prefix { $0 != ":" }) } ?? "?"
            let isLost = down.contains(to) || nodes[to] == nil || cuts.contains("\(name)>\(to)")
            if logsFrames { write("\(name) -> \(to)\(isLost ? " (lost)" : ""): \(Self.text(frame))") }
            if !isLost { pending.append(Pending(time: now + Self.latency, from: name, to: to, frame: frame)) }
        case .sign(let record):
            write("\(name) signs \(record)\(record.hasLeft ? " left" : "")")
            return nodes[name]?.handle(.signed(record), now: now) ?? []
        case .changed(let member): write("\(name) sees \(member.record) \(member.state)")
        case .forgotten(let other): write("\(name) forgets \(other)")
        case .content(let item):
            let payload = item.payload.map { String($0) }.joined(separator: ".")
            write("\(name) sees content \(item.node)/\(item.version.counter) \(item.isGone ? "gone" : payload)")
        case .contentVoid(let other): write("\(name) voids the content of \(other)")
        case .conflict(let record): write("\(name) finds another \(record)")
        case .departed: write("\(name) may end")
        }
        return []
    }

    // MARK: - Writing down

    private mutating func write(_ line: String) {
        let time = now.components.seconds * 1000 + now.components.attoseconds / 1_000_000_000_000_000
        let digits = String(time % 1000)
        log.append("\(time / 1000).\(String(repeating: "0", count: 3 - digits.count))\(digits) \(line)")
    }

    static func text(_ frame: GossipFrame) -> String {
        (frame.messages.map(text) + frame.items.map(text)).joined(separator: " + ")
    }

    private static func text(_ message: GossipMessage) -> String {
        switch message {
        case .ping: "ping"
        case .pingRequest(_, let target): "ping-request \(target)"
        case .ack: "ack"
        case .nack: "nack"
        case .syncDigest: "digest"
        case .syncBuckets: "buckets"
        case .syncSummary(let buckets, let entries): "summary(\(buckets.count) buckets, \(entries.count) members)"
        case .syncReply(let wants, let isPartial): "reply(wants \(wants.count)\(isPartial ? ", partial" : ""))"
        }
    }

    private static func text(_ item: GossipItem) -> String {
        switch item {
        case .record(let record): "[\(record)\(record.hasLeft ? " left" : "")]"
        case .announcement(_, let incarnation): "[announced @\(incarnation)]"
        case .suspect(let name, let incarnation, let accuser): "[\(name)@\(incarnation) suspected by \(accuser)]"
        case .dead(let name, let incarnation, let accuser): "[\(name)@\(incarnation) dead says \(accuser)]"
        case .content(let item): "[content \(item.node)/\(item.version.counter)\(item.isGone ? " gone" : "")]"
        }
    }
}
