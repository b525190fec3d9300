import Foundation
import FoundationNetworking
import NIOCore
import NIOPosix
import Telemetry
import Testing

@Suite struct ExpositionTests {
    @Test func theTextFormatIsExact() {
        let registry = MetricsRegistry()
        let misses = registry.counter("chunkd_misses_total", "Reads that had to wait.\nSecond line \\ backslash.")
        let bytes = registry.counters(
            "chunkd_fetched_bytes_total", "Bytes fetched.",
            labels: [MetricLabel("source", values: ["local", "registry"])])
        let age = registry.gauge("chunkd_oldest_blocked_seconds", "Age.")
        let odd = registry.gauges("chunkd_odd", "Odd labels.", labels: [MetricLabel("name", upTo: 4)])
        let time = registry.histogram("chunkd_miss_seconds", "Miss time.", bounds: [0.001, 0.5, 2])
        misses.increment()
        misses.increment(by: 41)
        bytes["registry"].increment(by: 1 << 40)
        age.set(0.25)
        odd["a\"b\\c\nd"].set(-1)
        time.observe(0.001)
        time.observe(.milliseconds(400))
        time.observe(100)
        #expect(
            registry.exposition() == """
                # HELP chunkd_fetched_bytes_total Bytes fetched.
                # TYPE chunkd_fetched_bytes_total counter
                chunkd_fetched_bytes_total{source="local"} 0
                chunkd_fetched_bytes_total{source="registry"} 1099511627776
                # HELP chunkd_miss_seconds Miss time.
                # TYPE chunkd_miss_seconds histogram
                chunkd_miss_seconds_bucket{le="0.001"} 1
                chunkd_miss_seconds_bucket{le="0.5"} 2
                chunkd_miss_seconds_bucket{le="2"} 2
                chunkd_miss_seconds_bucket{le="+Inf"} 3
                chunkd_miss_seconds_sum 100.401
                chunkd_miss_seconds_count 3
                # HELP chunkd_misses_total Reads that had to wait.\\nSecond line \\\\ backslash.
                # TYPE chunkd_misses_total counter
                chunkd_misses_total 42
                # HELP chunkd_odd Odd labels.
                # TYPE chunkd_odd gauge
                chunkd_odd{name="a\\"b\\\\c\\nd"} -1
                # HELP chunkd_oldest_blocked_seconds Age.
                # TYPE chunkd_oldest_blocked_seconds gauge
                chunkd_oldest_blocked_seconds 0.25

                """)
    }

    @Test func labelValuesAreBounded() {
        let registry = MetricsRegistry()
        let closed = registry.counters("chunkd_a_total", "", labels: [MetricLabel("reason", values: ["enospc"])])
        closed["enospc"].increment()
        closed["invented by a peer"].increment()
        closed["invented again"].increment()
        let open = registry.counters("chunkd_b_total", "", labels: [MetricLabel("host", upTo: 2)])
        for host in ["a", "b", "c", "d", "a"] { open[host].increment() }
        let lines = registry.exposition().split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(
            lines == [
                "chunkd_a_total{reason=\"enospc\"} 1", "chunkd_a_total{reason=\"other\"} 2",
                "chunkd_b_total{host=\"a\"} 2", "chunkd_b_total{host=\"b\"} 1", "chunkd_b_total{host=\"other\"} 2",
            ])
    }

    @Test func numbersAreWrittenAsPrometheusReadsThem() {
        let registry = MetricsRegistry()
        let gauge = registry.gauge("chunkd_g", "")
        for (value, text) in [
            (0.0, "0"), (1e15, "1000000000000000"), (1e300, "1e+300"), (0.1, "0.1"), (.infinity, "+Inf"),
            (-.infinity, "-Inf"), (.nan, "NaN"),
        ] {
            gauge.set(value)
            #expect(registry.exposition().hasSuffix("chunkd_g \(text)\n"), "\(value)")
        }
    }

    @Test func quantilesInterpolateWithinABucket() {
        let registry = MetricsRegistry()
        let time = registry.histogram("chunkd_t_seconds", "", bounds: [1, 2, 4])
        #expect(time.quantile(0.5) == nil)
        for _ in 0..<50 { time.observe(0.5) }
        for _ in 0..<50 { time.observe(3) }
        #expect(time.quantile(0.5) == 1)
        #expect(time.quantile(0.75) == 3)
        time.observe(1000)
        #expect(time.quantile(1) == 4)
        #expect(time.count == 101)
    }

    @Test func countsOfManyThreadsAreNotLost() async {
        let registry = MetricsRegistry()
        let counter = registry.counters("chunkd_n_total", "", labels: [MetricLabel("k", upTo: 8)])
        let time = registry.histogram("chunkd_t_seconds", "")
        await withTaskGroup(of: Void.self) { group in
            for worker in 0..<8 {
                group.addTask {
                    for _ in 0..<10_000 {
                        counter["\(worker % 2)"].increment()
                        time.observe(0.01)
                    }
                }
            }
        }
        #expect(counter["0"].value + counter["1"].value == 80_000)
        #expect(time.count == 80_000)
    }

    @Test func collectorsRunBeforeAScrape() {
        let registry = MetricsRegistry()
        ProcessMetrics.declare(in: registry)
        let gate = registry.counter("chunkd_gate_hits_total", "")
        registry.onCollect { gate.mirror(total: 7) }
        let text = registry.exposition()
        #expect(text.contains("chunkd_gate_hits_total 7\n"))
        #expect(ProcessMetrics.residentBytes() > 1 << 20)
        #expect(!text.contains("process_resident_memory_bytes 0\n"))
    }
}

@Suite struct TelemetryServerTests {
    private func get(_ port: Int, _ path: String, method: String = "GET") async throws -> (Int, String, String) {
        var request = URLRequest(url: URL(string: "http://127.0.0.1:\(port)\(path)") ?? URL(filePath: "/"))
        request.httpMethod = method
        request.timeoutInterval = 10
        let (data, response) = try await URLSession.shared.data(for: request)
        let http = try #require(response as? HTTPURLResponse)
        return (
            http.statusCode, http.value(forHTTPHeaderField: "Content-Type") ?? "", String(decoding: data, as: UTF8.self)
        )
    }

    @Test func metricsAndProbesAreServed() async throws {
        let registry = MetricsRegistry()
        registry.counter("chunkd_x_total", "X.").increment()
        let ready = registry.gauge("chunkd_ready", "Whether mounts work.")
        let server = try await TelemetryServer.start(
            host: "127.0.0.1", port: 0, group: MultiThreadedEventLoopGroup.singleton, registry: registry
        ) { ready.value == 1 ? .ready : .notReady(reason: "chunkgate is away") }
        let port = server.port
        let metrics = try await get(port, "/metrics?x=1")
        #expect(metrics.0 == 200 && metrics.1 == MetricsRegistry.contentType)
        #expect(metrics.2.contains("chunkd_x_total 1\n"))
        #expect(try await get(port, "/livez") == (200, "text/plain; charset=utf-8", "ok\n"))
        let away = try await get(port, "/readyz")
        #expect(away.0 == 503 && away.2 == "not ready: chunkgate is away\n")
        ready.set(1)
        #expect(try await get(port, "/readyz").0 == 200)
        #expect(try await get(port, "/other").0 == 404)
        #expect(try await get(port, "/metrics", method: "POST").0 == 405)
        let head = try await get(port, "/livez", method: "HEAD")
        #expect(head.0 == 200 && head.2.isEmpty)
        try await server.stop()
    }
}
