internal import ChunkModel

/// How the simulated network treats a message. All chances are 0...1 and drawn from the simulation's generator.
package struct NetworkModel: Sendable {
    /// Shortest time between two nodes.
    package var minimumLatency: Duration = .microseconds(200)
    /// Mean of the exponentially distributed time on top of that; the sum is never above `maximumLatency`.
    package var meanJitter: Duration = .milliseconds(1)
    package var maximumLatency: Duration = .milliseconds(100)
    /// A message disappears.
    package var loss = 0.0
    /// A message comes twice.
    package var duplication = 0.0
    /// A message is held back by up to `reorderingDelay`, so that later ones overtake it.
    package var reordering = 0.0
    package var reorderingDelay: Duration = .milliseconds(50)

    package init() {}

    mutating func latency(_ random: inout SplitMix64) -> Int64 {
        var time = minimumLatency.nanoseconds + Self.exponential(mean: meanJitter.nanoseconds, &random)
        time = min(time, maximumLatency.nanoseconds)
        if Self.happens(reordering, &random) {
            time += Int64(Double(reorderingDelay.nanoseconds) * Self.unit(&random))
        }
        return time
    }

    /// Uniform in 0..<1, with 53 bits.
    static func unit(_ random: inout SplitMix64) -> Double { Double(random.next() >> 11) * 0x1p-53 }

    static func happens(_ chance: Double, _ random: inout SplitMix64) -> Bool {
        chance > 0 && unit(&random) < chance
    }

    /// An exponentially distributed time. Von Neumann's comparison method: exact, and without a mathematics library, so
    /// the same on every machine (Knuth, TAOCP volume 2, 3.4.1.C).
    static func exponential(mean: Int64, _ random: inout SplitMix64) -> Int64 {
        guard mean > 0 else { return 0 }
        var whole = 0.0
        while true {
            let first = unit(&random)
            var previous = first
            var length = 1
            while true {
                let next = unit(&random)
                if next >= previous { break }
                previous = next
                length += 1
            }
            if length % 2 == 1 { return Int64(Double(mean) * (whole + first)) }
            whole += 1
        }
    }
}

/// A node that stalls: nothing reaches it and none of its timers fires while it does; then all comes at once. The model
/// of Lifeguard's evaluation (section V.C: "anomalies": blocked for D, running for I).
package struct Stalls: Sendable {
    /// Mean time running between two stalls (exponentially distributed).
    package var running: Duration
    /// Mean length of a stall (exponentially distributed) …
    package var stalled: Duration
    /// … and its longest.
    package var longest: Duration

    package init(running: Duration, stalled: Duration, longest: Duration) {
        self.running = running
        self.stalled = stalled
        self.longest = longest
    }
}

/// What is special about the way from one node to another.
package struct LinkModel: Sendable {
    /// Chance that a message on this way is lost, on top of the network's own.
    package var loss: Double
    /// Nil: no limit.
    package var bytesPerSecond: Double?

    package init(loss: Double = 0, bytesPerSecond: Double? = nil) {
        self.loss = loss
        self.bytesPerSecond = bytesPerSecond
    }
}

/// A direction between two nodes.
package struct Link: Hashable, Sendable {
    package let from: Int
    package let to: Int

    package init(from: Int, to: Int) {
        self.from = from
        self.to = to
    }
}

extension Duration {
    /// Whole nanoseconds; the simulation's unit.
    package var nanoseconds: Int64 {
        let parts = components
        return parts.seconds * 1_000_000_000 + parts.attoseconds / 1_000_000_000
    }

    /// Whole nanoseconds, not before this time: who is woken earlier by a part of one would ask for the same again.
    var nanosecondsRoundedUp: Int64 {
        nanoseconds + (components.attoseconds % 1_000_000_000 > 0 ? 1 : 0)
    }
}
