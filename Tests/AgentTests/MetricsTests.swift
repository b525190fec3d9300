import ChunkModel
import Foundation
import Telemetry
import TestSupport
import Testing

@testable import Agent

/// The metrics page: its format, its conventions, and that docs/operations.md names what is on it and nothing else.
@Suite struct MetricsTests {
    /// A page on which every family has a series, and some have odd labels.
    private func page() throws -> PrometheusText {
        let metrics = AgentMetrics()
        metrics.fetchedBytes["registry/a:5000"].increment(by: 1 << 40)
        metrics.fetchedChunks["local"].increment()
        metrics.fetchErrors["a\"b\\c\nd", "reset"].increment()
        metrics.rangeSeconds["registry/a:5000"].observe(.milliseconds(3))
        metrics.registryRequests["a:5000", "range", "ok"].increment()
        metrics.registryRetries["a:5000", "tls"].increment()
        metrics.mountErrors["image"].increment()
        metrics.umountErrors["conflict"].increment()
        metrics.catalogueErrors["busy"].increment()
        metrics.cluster.members["alive"].set(3)
        metrics.cluster.changes["dead"].increment()
        metrics.cluster.refusals["expired"].increment()
        metrics.cluster.gossipBytes["in"].increment(by: 1)
        metrics.cluster.gossipErrors["timeout"].increment()
        metrics.cluster.served["chunks", "sent"].increment()
        metrics.cluster.ignoredTraces.increment()
        metrics.cluster.quarantined["wrong_bytes"].increment()
        metrics.traces.errors["deadline"].increment()
        metrics.missSeconds.observe(.seconds(100))
        metrics.mirroring.requests["blob", "ok"].increment()
        metrics.mirror([.selfEvents: 3, .oldestBlockedMilliseconds: 1500])
        return try PrometheusText(metrics.registry.exposition())
    }

    @Test func thePageIsWellFormedAndKeepsTheConventions() throws {
        let page = try page()
        #expect(page.lint == [])
        let oldest = page.families.first { $0.name == "chunkd_gate_oldest_blocked_seconds" }
        #expect(oldest?.samples.map(\.value) == [1.5])
    }

    @Test func theDocumentationNamesEveryMetricWithItsTypeAndLabelsAndNoOther() throws {
        // Tests/AgentTests/ → the root of the repository.
        let root = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs/operations.md"), encoding: .utf8)
        let start = try #require(text.range(of: "<!-- metrics -->\n"))
        let documented = text[start.upperBound...].split(separator: "\n", omittingEmptySubsequences: false)
            .prefix { $0.hasPrefix("|") }.dropFirst(2).map { row in
                row.split(separator: "|").prefix(3).map { $0.trimmingCharacters(in: [" ", "`"]) }
            }
        let exposed = try page().families.map { family in
            let labels = Set(family.samples.map { $0.labels.map(\.name).filter { $0 != "le" } })
            return [family.name, family.type, labels.count == 1 ? labels.first?.joined(separator: ", ") ?? "" : "?"]
        }
        let (rows, metrics) = (documented.map { $0.joined(separator: " ") }, exposed.map { $0.joined(separator: " ") })
        #expect(Set(rows).count == rows.count, "a row twice")
        #expect(Set(rows).subtracting(metrics) == [], "in the table, and not exposed so")
        #expect(Set(metrics).subtracting(rows) == [], "exposed, and not in the table so")
    }
}
