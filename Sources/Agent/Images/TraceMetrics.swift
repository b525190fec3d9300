import Telemetry

/// What is counted about access traces. Thread-safe.
struct TraceMetrics: Sendable {
    /// What came of a mount's look for a trace.
    enum Outcome: String, CaseIterable {
        /// All of it was asked for.
        case replayed
        /// The image was unmounted, or chunkgate went away, before that.
        case stopped
        /// The image has none.
        case absent
        /// It could not be looked for, or is not good.
        case failed
    }

    let replays: MetricFamily<Counter>
    let errors: MetricFamily<Counter>
    let chunks: Counter
    let bytes: Counter

    init(_ registry: MetricsRegistry) {
        replays = registry.counters(
            "chunkd_trace_replays_total", "Mounts that looked for an access trace, by what came of it.",
            labels: [MetricLabel("outcome", values: Outcome.allCases.map(\.rawValue))])
        errors = registry.counters(
            "chunkd_trace_errors_total", "Access traces that could not be looked for or used.",
            labels: [MetricLabel("reason", upTo: 48)])
        chunks = registry.counter("chunkd_trace_chunks_total", "Chunks asked for because a trace names them.")
        bytes = registry.counter("chunkd_trace_bytes_total", "Raw bytes of these chunks.")
    }
}
