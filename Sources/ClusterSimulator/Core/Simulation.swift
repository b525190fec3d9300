package import ChunkModel

/// A deterministic event loop with virtual time for nodes numbered from 0. It knows no protocol: its user takes one
/// occurrence after the other, lets the node's state machine handle it, and puts in what the directives ask for.
///
///     while let occurrence = simulation.next(until: .seconds(60)) {
///         switch occurrence {
///         case .message(let from, let to, let message): …
///         case .wake(let node): …
///         case .timer(let token): …
///         }
///     }
///
/// The same seed and the same calls give the same run. A value; not for several threads at once.
package struct Simulation<Message> {
    package enum Occurrence {
        case message(from: Int, to: Int, Message)
        /// The time a node asked for with `wake` has come.
        case wake(node: Int)
        /// What was asked for with `at`; of no node, so never held back.
        case timer(UInt64)
    }

    /// What went over the network.
    package struct Traffic: Sendable, Equatable {
        package var sentBytes: UInt64 = 0
        package var receivedBytes: UInt64 = 0
        package var sentMessages: UInt64 = 0
        package var receivedMessages: UInt64 = 0
    }

    /// State the loop keeps for a node.
    private struct Node {
        var isUp = true
        /// Counts restarts: what was on its way to an earlier life is lost, as connections are.
        var life: UInt32 = 0
        var group = 0
        var stalls: Stalls?
        /// The end of the present stall or running period, when `stalls` is set.
        var periodEnd: Int64 = 0
        var isStalled = false
        var extraDelay: Int64 = 0
        var uplink: Double?
        var downlink: Double?
        var uplinkFree: Int64 = 0
        var downlinkFree: Int64 = 0
        /// The time its user wants it woken, and the time of the heap's entry for that.
        var wanted = Int64.max
        var armed = Int64.max
        var traffic = Traffic()
    }

    private enum Entry {
        case message(from: Int, to: Int, life: UInt32, bytes: Int, Message)
        case wake(node: Int, life: UInt32)
        case timer(UInt64)
    }

    private var heap = EventHeap<Entry>()
    private var nodes: [Node]
    private var links: [Link: LinkModel] = [:]
    private var linkFree: [Link: Int64] = [:]
    private var time: Int64 = 0

    /// The simulation's generator; its user may draw from it.
    package var random: SplitMix64
    package var network: NetworkModel
    /// Messages that did not arrive, whatever the reason.
    package private(set) var lostMessages: UInt64 = 0

    package init(nodes count: Int, network: NetworkModel = NetworkModel(), seed: UInt64) {
        nodes = [Node](repeating: Node(), count: count)
        self.network = network
        random = SplitMix64(seed: seed)
    }

    /// Virtual time since the start.
    package var now: Duration { .nanoseconds(time) }

    package var nodeCount: Int { nodes.count }

    /// Adds a node and returns its number.
    package mutating func addNode() -> Int {
        nodes.append(Node())
        return nodes.count - 1
    }

    // MARK: - What nodes do

    /// Puts a message of so many bytes on its way.
    package mutating func send(from: Int, to: Int, bytes: Int, _ message: Message) {
        guard nodes[from].isUp else { return }
        nodes[from].traffic.sentBytes += UInt64(bytes)
        nodes[from].traffic.sentMessages += 1
        let link = Link(from: from, to: to)
        let special = links.isEmpty ? nil : links[link]
        let end = transferEnd(link, special, bytes)
        guard nodes[to].isUp, nodes[from].group == nodes[to].group,
            !NetworkModel.happens(network.loss, &random), !NetworkModel.happens(special?.loss ?? 0, &random)
        else {
            lostMessages += 1
            return
        }
        let copies = NetworkModel.happens(network.duplication, &random) ? 2 : 1
        for _ in 0..<copies {
            heap.add(
                .message(from: from, to: to, life: nodes[to].life, bytes: bytes, message),
                at: end + network.latency(&random) + nodes[to].extraDelay)
        }
    }

    /// When the last byte has left the narrowest part of the way. Both ends pass a message on as it comes, each end
    /// serves its messages one after the other in the order they were sent.
    private mutating func transferEnd(_ link: Link, _ special: LinkModel?, _ bytes: Int) -> Int64 {
        var end = time
        if let rate = nodes[link.from].uplink {
            nodes[link.from].uplinkFree = max(time, nodes[link.from].uplinkFree) + Self.transfer(bytes, rate)
            end = max(end, nodes[link.from].uplinkFree)
        }
        if let rate = special?.bytesPerSecond {
            let free = max(time, linkFree[link] ?? 0) + Self.transfer(bytes, rate)
            linkFree[link] = free
            end = max(end, free)
        }
        if let rate = nodes[link.to].downlink {
            nodes[link.to].downlinkFree = max(time, nodes[link.to].downlinkFree) + Self.transfer(bytes, rate)
            end = max(end, nodes[link.to].downlinkFree)
        }
        return end
    }

    private static func transfer(_ bytes: Int, _ bytesPerSecond: Double) -> Int64 {
        Int64(Double(bytes) / bytesPerSecond * 1e9)
    }

    /// Wakes a node at that time (at once when it is past), instead of at the time asked for before. Nil: not at all.
    package mutating func wake(_ node: Int, at deadline: Duration?) {
        let wanted = deadline.map { max($0.nanosecondsRoundedUp, time) } ?? .max
        nodes[node].wanted = wanted
        guard wanted < nodes[node].armed else { return }
        nodes[node].armed = wanted
        heap.add(.wake(node: node, life: nodes[node].life), at: wanted)
    }

    /// Gives `token` back at that time.
    package mutating func at(_ deadline: Duration, token: UInt64) {
        heap.add(.timer(token), at: max(deadline.nanosecondsRoundedUp, time))
    }

    // MARK: - The loop

    /// The next thing that happens up to and including that time, which then is `now`; nil when there is none any more,
    /// and then `now` is `end`.
    package mutating func next(until end: Duration) -> Occurrence? {
        let limit = end.nanoseconds
        while let first = heap.firstTime, first <= limit, let (due, entry) = heap.removeFirst() {
            time = due
            if let occurrence = settle(entry) { return occurrence }
        }
        time = max(time, limit)
        return nil
    }

    /// What an entry whose time has come amounts to; nil when it is void or was put off.
    private mutating func settle(_ entry: Entry) -> Occurrence? {
        switch entry {
        case .timer(let token):
            return .timer(token)
        case .message(let from, let to, let life, let bytes, let message):
            guard nodes[to].isUp, nodes[to].life == life else {
                lostMessages += 1
                return nil
            }
            if let later = stallEnd(to) {
                heap.add(entry, at: later)
                return nil
            }
            nodes[to].traffic.receivedBytes += UInt64(bytes)
            nodes[to].traffic.receivedMessages += 1
            return .message(from: from, to: to, message)
        case .wake(let node, let life):
            guard nodes[node].isUp, nodes[node].life == life, nodes[node].armed == time else { return nil }
            let later = nodes[node].wanted > time ? nodes[node].wanted : stallEnd(node)
            nodes[node].armed = later ?? .max
            guard let later else {
                nodes[node].wanted = .max
                return .wake(node: node)
            }
            if later < .max { heap.add(entry, at: later) }
            return nil
        }
    }

    /// The end of the stall a node is in; nil when it is running.
    private mutating func stallEnd(_ node: Int) -> Int64? {
        guard let stalls = nodes[node].stalls else { return nil }
        while nodes[node].periodEnd <= time {
            nodes[node].isStalled.toggle()
            let mean = nodes[node].isStalled ? stalls.stalled : stalls.running
            let length = NetworkModel.exponential(mean: mean.nanoseconds, &random)
            let bounded = nodes[node].isStalled ? min(length, stalls.longest.nanoseconds) : length
            nodes[node].periodEnd += max(1, bounded)
        }
        return nodes[node].isStalled ? nodes[node].periodEnd : nil
    }
}

// MARK: - Faults

extension Simulation {
    /// Takes a node down: nothing reaches it, what is on its way to it is lost, its wake-up is void.
    package mutating func stop(_ node: Int) {
        nodes[node].isUp = false
        nodes[node].life += 1
        nodes[node].wanted = .max
        nodes[node].armed = .max
    }

    /// Brings it back; its user makes the state machine anew.
    package mutating func start(_ node: Int) { nodes[node].isUp = true }

    package func isUp(_ node: Int) -> Bool { nodes[node].isUp }

    /// Puts a node into a partition; only nodes of one group reach one another. All begin in group 0.
    package mutating func setGroup(_ group: Int, of node: Int) { nodes[node].group = group }

    /// Makes a node stall now and then; nil ends that.
    package mutating func setStalls(_ stalls: Stalls?, of node: Int) {
        nodes[node].stalls = stalls
        nodes[node].isStalled = true
        nodes[node].periodEnd = time
    }

    /// Delays all that reaches a node.
    package mutating func setExtraDelay(_ delay: Duration, of node: Int) {
        nodes[node].extraDelay = delay.nanoseconds
    }

    /// Bytes per second a node sends and receives at most; nil: no limit.
    package mutating func setBandwidth(up: Double?, down: Double?, of node: Int) {
        nodes[node].uplink = up
        nodes[node].downlink = down
    }

    /// Changes one direction between two nodes; nil makes it ordinary again.
    package mutating func setLink(_ link: Link, _ model: LinkModel?) { links[link] = model }

    /// What a node sent and received so far.
    package func traffic(of node: Int) -> Traffic { nodes[node].traffic }

    /// The same of all nodes.
    package var totalTraffic: Traffic {
        nodes.reduce(into: Traffic()) { sum, node in
            sum.sentBytes += node.traffic.sentBytes
            sum.receivedBytes += node.traffic.receivedBytes
            sum.sentMessages += node.traffic.sentMessages
            sum.receivedMessages += node.traffic.receivedMessages
        }
    }
}
