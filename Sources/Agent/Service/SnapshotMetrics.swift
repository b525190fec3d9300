import Catalogue
import Snapshotter
import Telemetry

/// What is counted about container snapshots. Thread-safe.
struct SnapshotMetrics: Sendable {
    let errors: MetricFamily<Counter>
    let skippedLayers: Counter
    let undecided: Counter

    init(_ registry: MetricsRegistry) {
        errors = registry.counters(
            "chunkd_snapshot_errors_total", "Calls of the snapshots service that failed.",
            labels: [MetricLabel("reason", values: SnapshotError.Code.allCases.map(\.rawValue))])
        skippedLayers = registry.counter(
            "chunkd_snapshot_layers_skipped_total", "Layers of chunkd images that containerd did not download.")
        undecided = registry.counter(
            "chunkd_snapshot_undecided_total",
            "Layers unpacked by containerd because no registry said whether the image is one of chunkd's.")
    }
}

extension AgentMetrics {
    func observe(snapshots notice: SnapshotService.Notice) {
        switch notice {
        case .failed(let code): snapshots.errors[code.rawValue].increment()
        case .skippedLayer: snapshots.skippedLayers.increment()
        case .undecided: snapshots.undecided.increment()
        }
    }
}
