import Synchronization

/// All metrics of a process, and their text for Prometheus.
///
/// Names and label sets are declared once, at start; a wrong or repeated name is a programmer error and traps.
/// Thread-safe.
package final class MetricsRegistry: Sendable {
    private struct Family: Sendable {
        var help: String
        var type: String
        /// Lines of the family, without HELP and TYPE.
        var lines: @Sendable () -> [String]
    }
    private struct State {
        var families: [String: Family] = [:]
        var collectors: [@Sendable () -> Void] = []
    }

    private let state = Mutex(State())

    package init() {}

    /// The media type of `exposition()` (Prometheus text format, version 0.0.4).
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// A counter without labels. The name ends in `_total`.
    package func counter(_ name: String, _ help: String) -> Counter { counters(name, help, labels: [])[] }

    /// Counters with labels. The name ends in `_total`.
    package func counters(_ name: String, _ help: String, labels: [MetricLabel]) -> MetricFamily<Counter> {
        precondition(name.hasSuffix("_total"), "the counter \(name) must end in _total")
        let family = MetricFamily(labels: labels) { Counter() }
        add(name, help, "counter", labels) {
            family.series.map { Exposition.line(name, $0.labels, String($0.metric.value)) }
        }
        return family
    }

    package func gauge(_ name: String, _ help: String) -> Gauge { gauges(name, help, labels: [])[] }

    package func gauges(_ name: String, _ help: String, labels: [MetricLabel]) -> MetricFamily<Gauge> {
        let family = MetricFamily(labels: labels) { Gauge() }
        add(name, help, "gauge", labels) {
            family.series.map { Exposition.line(name, $0.labels, Exposition.number($0.metric.value)) }
        }
        return family
    }

    /// A histogram without labels; `bounds` ascend, +Inf is added.
    package func histogram(_ name: String, _ help: String, bounds: [Double] = Histogram.latencyBounds) -> Histogram {
        histograms(name, help, labels: [], bounds: bounds)[]
    }

    package func histograms(
        _ name: String, _ help: String, labels: [MetricLabel], bounds: [Double] = Histogram.latencyBounds
    ) -> MetricFamily<Histogram> {
        precondition(zip(bounds, bounds.dropFirst()).allSatisfy { $0 < $1 }, "the bounds of \(name) must ascend")
        precondition(!labels.contains { $0.name == "le" }, "the label le belongs to the buckets of \(name)")
        let family = MetricFamily(labels: labels) { Histogram(bounds: bounds) }
        add(name, help, "histogram", labels) {
            family.series.flatMap { Exposition.lines(name, $0.labels, $0.metric) }
        }
        return family
    }

    /// Has `body` called before each exposition, to bring gauges up to date. It must be quick and never block: it runs
    /// on the event loop that answers the scrape.
    package func onCollect(_ body: @escaping @Sendable () -> Void) {
        state.withLock { $0.collectors.append(body) }
    }

    /// All metrics in the text format, families sorted by name.
    package func exposition() -> String {
        let (families, collectors) = state.withLock { ($0.families, $0.collectors) }
        for collect in collectors { collect() }
        var out = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            out += "# HELP \(name) \(Exposition.escape(help: family.help))\n# TYPE \(name) \(family.type)\n"
            for line in family.lines() { out += line + "\n" }
        }
        return out
    }

    private func add(
        _ name: String, _ help: String, _ type: String, _ labels: [MetricLabel],
        lines: @escaping @Sendable () -> [String]
    ) {
        precondition(name.hasPrefix("chunkd_") || name.hasPrefix("process_"), "\(name) must start with chunkd_")
        for word in [name] + labels.map(\.name) { precondition(Exposition.isName(word), "\(word) is no metric name") }
        state.withLock { state in
            precondition(state.families[name] == nil, "\(name) is declared twice")
            state.families[name] = Family(help: help, type: type, lines: lines)
        }
    }
}

/// Prometheus text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
enum Exposition {
    /// `[a-z_][a-z0-9_]*`: the part of the allowed names that convention uses.
    static func isName(_ text: String) -> Bool {
        let first = text.utf8.first.map { isLetter($0) } ?? false
        return first && text.utf8.allSatisfy { isLetter($0) || (0x30...0x39).contains($0) }
    }

    private static func isLetter(_ unit: UInt8) -> Bool { (0x61...0x7A).contains(unit) || unit == UInt8(ascii: "_") }

    /// Backslash and line feed.
    static func escape(help: String) -> String { escape(help, quote: false) }

    /// Backslash, line feed and double quote.
    static func escape(label: String) -> String { escape(label, quote: true) }

    private static func escape(_ text: String, quote: Bool) -> String {
        var out = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\"" where quote: out += "\\\""
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value == value.rounded(), abs(value) < 9_007_199_254_740_992 { return String(Int64(value)) }
        return "\(value)"
    }

    static func line(_ name: String, _ labels: [(name: String, value: String)], _ value: String) -> String {
        if labels.isEmpty { return "\(name) \(value)" }
        let pairs = labels.map { "\($0.name)=\"\(escape(label: $0.value))\"" }
        return "\(name){\(pairs.joined(separator: ","))} \(value)"
    }

    static func lines(
        _ name: String, _ labels: [(name: String, value: String)], _ histogram: Histogram
    ) -> [String] {
        let (counts, sum) = histogram.snapshot()
        var out: [String] = []
        var cumulative: UInt64 = 0
        for (index, count) in counts.enumerated() {
            cumulative += count
            let bound = index < histogram.bounds.count ? number(histogram.bounds[index]) : "+Inf"
            out.append(line(name + "_bucket", labels + [("le", bound)], String(cumulative)))
        }
        out.append(line(name + "_sum", labels, number(sum)))
        out.append(line(name + "_count", labels, String(cumulative)))
        return out
    }
}
