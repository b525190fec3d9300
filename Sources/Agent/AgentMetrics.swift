import ChunkModel
import ChunkResolution
import ControlAPI
import RegistryClient
import Synchronization
import Telemetry

/// What chunkd counts, and the last notable events. Declared once; every label is bounded. Thread-safe.
package final class AgentMetrics: Sendable {
    package let registry: MetricsRegistry
    let events = EventLog()
    let fetchedBytes: MetricFamily<Counter>
    let fetchedChunks: MetricFamily<Counter>
    let fetchErrors: MetricFamily<Counter>
    let failedReads: MetricFamily<Counter>
    let mismatches: Counter
    let missSeconds: Histogram
    let rangeSeconds: MetricFamily<Histogram>
    let readAheadChunks: Counter
    let hydratedBytes: Counter
    let registryRequests: MetricFamily<Counter>
    let registryRetries: MetricFamily<Counter>
    let mountSeconds: Histogram
    let mountErrors: MetricFamily<Counter>
    let umountErrors: MetricFamily<Counter>
    let quarantines: Gauge
    let gateConnected: Gauge
    let pending: MetricFamily<Gauge>
    let gate: [GateProtocol.Counter: Counter]
    let gateGauges: [GateProtocol.Counter: Gauge]
    let evictedBytes: Counter
    let spansDropped: Counter
    let catalogueErrors: MetricFamily<Counter>
    let cluster: ClusterMetrics
    let snapshots: SnapshotMetrics
    let traces: TraceMetrics
    let mirroring: MirrorMetrics

    /// Counters of the gate that may fall.
    private static let gauges: Set<GateProtocol.Counter> = [
        .blockedReaders, .oldestBlockedMilliseconds, .residentBytes, .snapshotTrash,
    ]

    /// Registry hosts with series of their own; further ones count as `other`.
    static let maxHosts = 16

    package init() {
        registry = MetricsRegistry()
        let source = MetricLabel("source", upTo: Self.maxHosts)
        let reasons = MetricLabel("reason", upTo: 48)
        let host = MetricLabel("host", upTo: Self.maxHosts)
        fetchedBytes = registry.counters(
            "chunkd_fetched_bytes_total", "Chunk bytes as transferred, by source.", labels: [source])
        fetchedChunks = registry.counters(
            "chunkd_fetched_chunks_total", "Chunks that became resident, by source.", labels: [source])
        fetchErrors = registry.counters(
            "chunkd_fetch_errors_total", "Ranges and chunks a source did not give.", labels: [source, reasons])
        failedReads = registry.counters(
            "chunkd_failed_chunks_total", "Chunks readers got an error for.",
            labels: [MetricLabel("reason", values: FetchScheduler.FailureReason.allCases.map(\.rawValue))])
        mismatches = registry.counter(
            "chunkd_mismatched_chunks_total", "Chunks a source sent with wrong bytes; none was let through.")
        missSeconds = registry.histogram("chunkd_miss_seconds", "From a reader's miss to its chunk being resident.")
        rangeSeconds = registry.histograms(
            "chunkd_range_seconds", "Duration of registry ranges, by source.", labels: [source])
        readAheadChunks = registry.counter("chunkd_read_ahead_chunks_total", "Chunks asked for ahead of readers.")
        hydratedBytes = registry.counter("chunkd_hydrated_bytes_total", "Raw bytes hydration asked for.")
        registryRequests = registry.counters(
            "chunkd_registry_requests_total", "HTTP exchanges with registries.",
            labels: [host, MetricLabel("operation", upTo: 16), MetricLabel("result", upTo: 32)])
        registryRetries = registry.counters(
            "chunkd_registry_retries_total", "Requests sent again.", labels: [host, reasons])
        mountSeconds = registry.histogram("chunkd_mount_seconds", "Duration of mounts.")
        mountErrors = registry.counters("chunkd_mount_errors_total", "Mounts that failed.", labels: [reasons])
        umountErrors = registry.counters(
            "chunkd_umount_errors_total", "Unmounts that were refused or failed.", labels: [reasons])
        quarantines = registry.gauge("chunkd_quarantined_blobs", "Blobs whose source sent wrong bytes.")
        gateConnected = registry.gauge("chunkd_gate_connected", "1 while connected to chunkgate.")
        pending = registry.gauges(
            "chunkd_pending_chunks", "Chunks wanted and not settled.",
            labels: [MetricLabel("rank", values: ["demand", "speculative"])])
        evictedBytes = registry.counter("chunkd_evicted_bytes_total", "Bytes freed by removing unmounted images.")
        spansDropped = registry.counter(
            "chunkd_spans_dropped_total", "Spans over the limit of their trace that were not kept.")
        catalogueErrors = registry.counters(
            "chunkd_catalogue_errors_total", "Catalogue operations that failed.", labels: [reasons])
        cluster = ClusterMetrics(registry)
        snapshots = SnapshotMetrics(registry)
        traces = TraceMetrics(registry)
        mirroring = MirrorMetrics(registry)
        var counters: [GateProtocol.Counter: Counter] = [:]
        var gauges: [GateProtocol.Counter: Gauge] = [:]
        for counter in GateProtocol.Counter.allCases {
            // The one everybody should alert on has the name the operations manual gives it.
            let name =
                switch counter {
                case .integrityGaps: "chunkd_integrity_gap"
                case .oldestBlockedMilliseconds: "chunkd_gate_oldest_blocked_seconds"
                default: "chunkd_gate_" + Self.snakeCase("\(counter)")
                }
            if Self.gauges.contains(counter) {
                gauges[counter] = registry.gauge(name, "chunkgate: \(counter).")
            } else {
                counters[counter] = registry.counter(name + "_total", "chunkgate: \(counter).")
            }
        }
        gate = counters
        gateGauges = gauges
        ProcessMetrics.declare(in: registry)
    }

    private struct Seen {
        var sources: Set<String> = []
        var reasons: [String: UInt64] = [:]
        /// Errors a source.
        var errors: [String: UInt64] = [:]
    }
    private let seen = Mutex(Seen())
    private let gateSeen = Mutex<[GateProtocol.Counter: UInt64]>([:])

    /// Names of sources and reasons kept for `chunkctl stat`; more are counted in the metrics only.
    private static let maxSeen = 64

    private func note(source: String) {
        seen.withLock { if $0.sources.count < Self.maxSeen { $0.sources.insert(source) } }
    }

    /// A range of a source has ended, well or not.
    func noteRange(_ source: String, chunks: Int, bytes: UInt64, elapsed: Duration) {
        note(source: source)
        fetchedBytes[source].increment(by: bytes)
        fetchedChunks[source].increment(by: UInt64(chunks))
        rangeSeconds[source].observe(elapsed)
    }

    /// A chunk was copied from another blob of this node.
    func noteLocalCopy() {
        note(source: "local")
        fetchedChunks["local"].increment()
    }

    /// A source did not give what it was asked for.
    func noteFetchError(_ source: String, _ reason: String) {
        note(source: source)
        fetchErrors[source, reason].increment()
        seen.withLock { if $0.sources.contains(source) { $0.errors[source, default: 0] += 1 } }
        noteReason(reason)
        events.note(.sourceFailed, source, reason)
    }

    /// A reader got an error.
    func noteFailedRead(_ reason: FetchScheduler.FailureReason) {
        failedReads[reason.rawValue].increment()
        noteReason("read_" + reason.rawValue)
    }

    private func noteReason(_ reason: String) {
        seen.withLock { seen in
            if seen.reasons[reason] != nil || seen.reasons.count < Self.maxSeen {
                seen.reasons[reason, default: 0] += 1
            }
        }
    }

    /// What came from where so far, by name.
    var sources: [SourceStat] {
        seen.withLock { $0.sources }.sorted().map { name in
            let histogram = rangeSeconds[name]
            return SourceStat(
                source: name, chunks: fetchedChunks[name].value, bytes: fetchedBytes[name].value,
                errors: seen.withLock { $0.errors[name] ?? 0 }, p50Seconds: histogram.quantile(0.5),
                p99Seconds: histogram.quantile(0.99))
        }
    }

    /// How often which error occurred, by reason.
    var errors: [ReasonCount] {
        seen.withLock { $0.reasons }.sorted { $0.key < $1.key }.map { ReasonCount(reason: $0.key, count: $0.value) }
    }

    /// What the registry client reports.
    @Sendable func observe(_ event: RegistryEvent) {
        switch event {
        case .exchange(let host, let operation, let result, _, _):
            registryRequests[host, operation.rawValue, result].increment()
        case .retry(let host, let reason, _): registryRetries[host, reason].increment()
        case .circuit(let host, let isOpen): if isOpen { noteFetchError("registry/\(host)", "circuit_open") }
        case .rangeIgnored(let host): noteFetchError("registry/\(host)", "range_ignored")
        }
    }

    /// Resident memory of this process.
    var residentBytes: UInt64 { ProcessMetrics.residentBytes() }

    /// Takes over the gate's counters.
    func mirror(_ values: [GateProtocol.Counter: UInt64]) {
        noteGateEvents(values)
        for counter in GateProtocol.Counter.allCases {
            guard let value = values[counter] else { continue }
            gate[counter]?.mirror(total: value)
            // Base units on the page.
            if counter == .oldestBlockedMilliseconds {
                gateGauges[counter]?.set(Double(value) / 1000)
            } else {
                gateGauges[counter]?.set(value)
            }
        }
    }

    /// What the gate counts and says nothing else of.
    private static let gateEvents: [(GateProtocol.Counter, NodeEvent.Kind, String)] = [
        (.graduations, .graduated, "blobs"), (.verifyFailures, .verifyFailed, "chunks on disk"),
        (.integrityGaps, .integrityGap, "images"), (.restarts, .gateRestarted, "chunkgate"),
        (.snapshotLeftovers, .other, "leftovers of removed snapshots"),
    ]

    private func noteGateEvents(_ values: [GateProtocol.Counter: UInt64]) {
        gateSeen.withLock { seen in
            // What was before the first look is not news.
            for (counter, kind, subject) in Self.gateEvents {
                guard let value = values[counter] else { continue }
                if let old = seen[counter], value > old { events.note(kind, subject, "", count: value - old) }
                seen[counter] = value
            }
        }
    }

    private static func snakeCase(_ name: String) -> String {
        name.reduce(into: "") { out, letter in
            if letter.isUppercase { out += "_" }
            out += letter.lowercased()
        }
    }
}
