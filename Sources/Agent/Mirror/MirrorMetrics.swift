import ControlAPI
import Mirror
import OCISpec
import RegistryClient
import Telemetry

/// What is counted about the mirror. Declared once; every label is bounded. Thread-safe.
struct MirrorMetrics: Sendable {
    /// What was asked for.
    enum Kind: String, CaseIterable { case base, manifest, blob, other }

    /// What it came to, beside the refusals of the request itself and the failures of a flight.
    enum Outcome: String, CaseIterable {
        case ok
        /// containerd is asked for credentials.
        case challenged
        /// The registry refuses the credentials that came, or they are of no known form.
        case denied
        case notFound = "not_found"
        /// An empty blob, or one of which manifest and registry say different sizes.
        case size
        case range
        /// Too much is fetched at once, or this blob has just failed.
        case busy, failed
    }

    private static let failureReasons =
        MirrorFlight.Failure.allCases.map(\.rawValue) + BlobCache.NoRoom.allCases.map(\.rawValue)

    let requests: MetricFamily<Counter>
    let bytes: MetricFamily<Counter>
    let sentToPeers: Counter
    let failures: MetricFamily<Counter>
    let recordErrors: MetricFamily<Counter>
    let cacheBytes: Gauge
    let evicted: Counter

    init(_ registry: MetricsRegistry) {
        let results =
            Outcome.allCases.map(\.rawValue) + MirrorRefusal.allCases.map(\.rawValue) + Self.failureReasons
        requests = registry.counters(
            "chunkd_mirror_requests_total", "Requests to the mirror endpoint.",
            labels: [
                MetricLabel("kind", values: Kind.allCases.map(\.rawValue)),
                MetricLabel("result", values: Array(Set(results)).sorted()),
            ])
        bytes = registry.counters(
            "chunkd_mirror_bytes_total", "Bytes of whole blobs had for ordinary images, by where they came from.",
            labels: [MetricLabel("source", values: ["cache", "peer", "registry"])])
        sentToPeers = registry.counter("chunkd_mirror_peer_sent_bytes_total", "Bytes of whole blobs given to peers.")
        failures = registry.counters(
            "chunkd_mirror_failures_total", "Whole blobs that could not be had; containerd goes on to the registry.",
            labels: [MetricLabel("reason", values: Self.failureReasons)])
        recordErrors = registry.counters(
            "chunkd_mirror_record_errors_total", "Images that could not be remembered over restarts.",
            labels: [MetricLabel("operation", values: ["read", "write"])])
        cacheBytes = registry.gauge("chunkd_mirror_cache_bytes", "Bytes of whole blobs on this node's disk.")
        evicted = registry.counter(
            "chunkd_mirror_evicted_blobs_total", "Whole blobs removed to make room, or because they were damaged.")
    }

    /// As `chunkctl stat` shows them.
    func stat(quota: UInt64) -> MirrorStat {
        var stat = MirrorStat()
        stat.bytesFromPeers = bytes["peer"].value
        stat.bytesFromRegistries = bytes["registry"].value
        stat.bytesFromCache = bytes["cache"].value
        stat.bytesToPeers = sentToPeers.value
        stat.failures = Self.failureReasons.reduce(0) { $0 + failures[$1].value }
        stat.cacheBytes = UInt64(max(0, cacheBytes.value))
        stat.quotaBytes = quota
        return stat
    }
}
