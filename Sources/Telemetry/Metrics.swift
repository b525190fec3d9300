import Synchronization

/// A number that only grows. Thread-safe, lock-free.
package final class Counter: Sendable {
    private let total = Atomic<UInt64>(0)

    init() {}

    package func increment(by amount: UInt64 = 1) { total.wrappingAdd(amount, ordering: .relaxed) }

    /// Takes over a total that somebody else counts (chunkgate). A smaller one is taken too: the other has started anew,
    /// and Prometheus reads that as a reset.
    package func mirror(total value: UInt64) { total.store(value, ordering: .relaxed) }

    package var value: UInt64 { total.load(ordering: .relaxed) }
}

/// A number that goes up and down. Thread-safe, lock-free.
package final class Gauge: Sendable {
    private let bits = Atomic<UInt64>(0)

    init() {}

    package func set(_ value: Double) { bits.store(value.bitPattern, ordering: .relaxed) }
    package func set(_ value: some BinaryInteger) { set(Double(value)) }

    package var value: Double { Double(bitPattern: bits.load(ordering: .relaxed)) }
}

/// Counts of observations below fixed bounds. Thread-safe by a mutex held for a few instructions.
package final class Histogram: Sendable {
    private struct State {
        var counts: [UInt64]
        var sum = 0.0
    }

    /// Upper bounds, ascending, without +Inf.
    let bounds: [Double]
    private let state: Mutex<State>

    init(bounds: [Double]) {
        self.bounds = bounds
        state = Mutex(State(counts: [UInt64](repeating: 0, count: bounds.count + 1)))
    }

    package func observe(_ value: Double) {
        let bucket = bounds.firstIndex { value <= $0 } ?? bounds.count
        state.withLock { state in
            state.counts[bucket] += 1
            state.sum += value
        }
    }

    /// Observes a duration in seconds, Prometheus's base unit.
    package func observe(_ duration: Duration) {
        let parts = duration.components
        observe(Double(parts.seconds) + Double(parts.attoseconds) * 1e-18)
    }

    /// The `q` quantile (0...1) by linear interpolation within its bucket, as PromQL's `histogram_quantile`; nil before
    /// the first observation. In the last bucket it is the largest bound.
    package func quantile(_ q: Double) -> Double? {
        let (counts, _) = snapshot()
        let total = counts.reduce(0, +)
        guard total > 0 else { return nil }
        let rank = q * Double(total)
        var seen = 0.0
        for (index, count) in counts.enumerated() where count > 0 {
            let upTo = seen + Double(count)
            if upTo >= rank {
                guard index < bounds.count else { break }
                let low = index == 0 ? 0 : bounds[index - 1]
                return low + (bounds[index] - low) * max(0, rank - seen) / Double(count)
            }
            seen = upTo
        }
        return bounds.last
    }

    /// Observations so far.
    package var count: UInt64 { snapshot().counts.reduce(0, +) }

    func snapshot() -> (counts: [UInt64], sum: Double) { state.withLock { ($0.counts, $0.sum) } }

    /// Bounds for the time of a miss, in seconds: 0.1 ms (local copy) to 30 s (the gate's deadline).
    package static let latencyBounds: [Double] = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
    ]
}

/// A label and what bounds its values.
package struct MetricLabel: Sendable {
    let name: String
    let known: [String]
    let limit: Int

    /// Exactly these values; any other counts as `other`.
    package init(_ name: String, values: [String]) {
        self.name = name
        known = values
        limit = values.count
    }

    /// The first `limit` values that occur; later ones count as `other`. For names the operator chose, such as hosts.
    package init(_ name: String, upTo limit: Int) {
        self.name = name
        known = []
        self.limit = limit
    }

    /// What values beyond the bound count as.
    package static let other = "other"
}

/// The metrics of one name, one per combination of label values. Thread-safe.
package final class MetricFamily<Metric: Sendable>: Sendable {
    private struct State {
        var children: [[String]: Metric] = [:]
        /// Distinct values seen, a label.
        var seen: [Set<String>]
    }

    private let labels: [MetricLabel]
    private let make: @Sendable () -> Metric
    private let state: Mutex<State>

    init(labels: [MetricLabel], make: @escaping @Sendable () -> Metric) {
        self.labels = labels
        self.make = make
        state = Mutex(State(seen: labels.map { Set($0.known) }))
        // One closed label: all its series exist from the start, so that a rate over them is right from the first event.
        if labels.count == 1 { for value in labels[0].known { _ = self[value] } }
    }

    /// The metric for these values, one a label in the declared order; made on first use.
    package subscript(_ values: String...) -> Metric {
        precondition(values.count == labels.count, "\(labels.count) label values expected, \(values.count) given")
        return state.withLock { state in
            var key = values
            for (index, label) in labels.enumerated() where !state.seen[index].contains(values[index]) {
                if label.known.isEmpty, state.seen[index].count < label.limit {
                    state.seen[index].insert(values[index])
                } else {
                    key[index] = MetricLabel.other
                }
            }
            if let metric = state.children[key] { return metric }
            let metric = make()
            state.children[key] = metric
            return metric
        }
    }

    /// All series in a fixed order: label pairs and metric.
    var series: [(labels: [(name: String, value: String)], metric: Metric)] {
        let children = state.withLock { $0.children }
        return children.sorted { $0.key.lexicographicallyPrecedes($1.key) }
            .map { entry in (zip(labels, entry.key).map { ($0.name, $1) }, entry.value) }
    }
}
