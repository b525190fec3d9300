@testable import TestSupport
import Testing

@Suite struct PrometheusTextTests {
    private let good = """
        # HELP a_total Counts \\\\ things.
        # TYPE a_total counter
        a_total{x="1",y="q\\"\\\\\\n"} 3
        a_total{x="2",y=""} 1e+06
        # HELP h_seconds Time.
        # TYPE h_seconds histogram
        h_seconds_bucket{le="0.5"} 1
        h_seconds_bucket{le="+Inf"} 2
        h_seconds_sum 0.75
        h_seconds_count 2

        """

    @Test func aGoodPageIsRead() throws {
        let page = try PrometheusText(good)
        #expect(page.families.map(\.name) == ["a_total", "h_seconds"])
        #expect(
            page.families[0].samples[0].labels == [.init(name: "x", value: "1"), .init(name: "y", value: "q\"\\\n")])
        #expect(page.families[0].samples[1].value == 1_000_000)
        #expect(page.lint == [])
        #expect(try PrometheusText("").families.isEmpty)
    }

    @Test(arguments: [
        ("a_total{x=\"2\",y=\"\"} 1e+06", "a_total{x=\"2\",y=\"\"} 1,5"), ("a_total{x=\"2\"", "a_total{x=2"),
        ("a_total{x=\"2\",y=\"\"} 1e+06", "a_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 4"), ("e+06\n", "e+06 123\n"),
        ("# TYPE a_total counter\n", ""), ("# HELP a_total Counts \\\\ things.\n", ""), ("things.", "\\t things."),
        ("_sum 0.75\n", ""), ("le=\"0.5\"} 1", "le=\"0.5\"} 9"), ("_count 2", "_count 3"),
        ("le=\"+Inf\"", "le=\"0.4\""),
        ("h_seconds_sum", "g_seconds_sum"), ("a_total{x=\"2\"", "b_total{x=\"2\""), ("} 3", "} -3"), ("} 3", "}  3"),
        ("h_seconds_count 2\n", "h_seconds_count 2"), ("# HELP h", "# hello\n# HELP h"), ("x=\"2\"", "x=\"\\q\""),
        ("Time.", ""), ("histogram", "summary"), ("y=\"\"", "x=\"\""),
        ("h_seconds_count 2", "h_seconds_count{le=\"1\"} 2"),
    ])
    func whatIsWrongIsFound(_ from: String, _ to: String) {
        let page = good.replacing(from, with: to, maxReplacements: 1)
        #expect(page != good)
        #expect(throws: PrometheusText.Wrong.self) { try PrometheusText(page) }
    }

    @Test(arguments: [
        ("a_total", "counter"), ("a_ms_total", "counter"), ("a", "counter"), ("a_total", "gauge"),
        ("a_count", "gauge"), ("a_gauge", "gauge"), ("aB", "gauge"), ("a_milliseconds", "gauge"),
    ])
    func namesThatBreakTheConventionsAreFound(_ name: String, _ type: String) throws {
        let page = try PrometheusText("# HELP \(name) Words.\n# TYPE \(name) \(type)\n\(name) 1\n")
        #expect(page.lint.isEmpty == (name == "a_total" && type == "counter"))
    }
}
