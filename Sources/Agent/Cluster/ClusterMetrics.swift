import Membership
import PeerExchange
import PeerTransport
import Telemetry

/// What is counted about peers. Declared once; every label is bounded. Thread-safe.
struct ClusterMetrics: Sendable {
    let members: MetricFamily<Gauge>
    let changes: MetricFamily<Counter>
    let refusals: MetricFamily<Counter>
    let gossipBytes: MetricFamily<Counter>
    let gossipErrors: MetricFamily<Counter>
    let served: MetricFamily<Counter>
    let servedBytes: Counter
    let ignoredTraces: Counter
    let complaints: Counter
    let quarantined: MetricFamily<Counter>
    let imageParts: MetricFamily<Counter>
    let seedErrors: MetricFamily<Counter>
    let certificateExpiry: Gauge
    let indexBlobs: Gauge
    let indexBytes: Gauge

    init(_ registry: MetricsRegistry) {
        let states = MemberState.allCases.map { "\($0)" }
        members = registry.gauges(
            "chunkd_cluster_members", "Members as seen from here, by state.",
            labels: [MetricLabel("state", values: states)])
        changes = registry.counters(
            "chunkd_cluster_member_changes_total", "Members that were seen to change, by new state.",
            labels: [MetricLabel("state", values: states)])
        refusals = registry.counters(
            "chunkd_peer_refusals_total", "Connections, certificates and records that were refused.",
            labels: [MetricLabel("reason", values: PeerRefusalReason.allCases.map(\.rawValue))])
        gossipBytes = registry.counters(
            "chunkd_gossip_bytes_total", "Bytes of gossip frames.",
            labels: [MetricLabel("direction", values: ["in", "out"])])
        gossipErrors = registry.counters(
            "chunkd_gossip_errors_total", "Frames that were not delivered or not understood.",
            labels: [MetricLabel("reason", upTo: 64)])
        served = registry.counters(
            "chunkd_peer_requests_total", "Requests of peers that were answered.",
            labels: [
                MetricLabel("call", values: PeerCall.Kind.allCases.map(\.rawValue)),
                MetricLabel("outcome", values: PeerServed.Outcome.allCases.map(\.rawValue)),
            ])
        servedBytes = registry.counter("chunkd_peer_sent_bytes_total", "Chunk bytes given to peers.")
        ignoredTraces = registry.counter(
            "chunkd_trace_contexts_ignored_total", "Requests of peers that named a trace in a malformed way.")
        complaints = registry.counter("chunkd_peer_complaints_total", "Peers that said we sent wrong bytes.")
        quarantined = registry.counters(
            "chunkd_peer_quarantines_total", "Peers that are asked no more for a while.",
            labels: [MetricLabel("reason", values: ["wrong_bytes"])])
        imageParts = registry.counters(
            "chunkd_image_part_bytes_total", "Bytes of bootstraps, chunk indexes and seek tables fetched for mounts.",
            labels: [MetricLabel("source", values: ["peer", "registry"])])
        seedErrors = registry.counters(
            "chunkd_seed_errors_total", "Seeds that led nowhere when they were looked up.",
            labels: [MetricLabel("reason", values: SeedProblem.Reason.allCases.map(\.rawValue))])
        certificateExpiry = registry.gauge(
            "chunkd_certificate_expiry_seconds", "When this node's certificate ends, in seconds since 1970.")
        indexBlobs = registry.gauge("chunkd_index_blobs", "Blobs in the content index.")
        indexBytes = registry.gauge("chunkd_index_bytes", "Memory of the content index.")
    }
}
