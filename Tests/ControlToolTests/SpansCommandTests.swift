import ControlAPI
@testable import ControlTool
import Foundation
import Testing

@Suite struct SpansCommandTests {
    @Test func aTraceIsATreeOfItsSpans() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("spans", "--socket", agent.socket)
        #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
        #expect(
            run.output == """
                SPAN                        AFTER   TOOK  RESULT      WHAT
                trace abababababababababababababababab at 2025-11-21T21:20:00.123Z on a, 2 spans not kept
                  miss                       0 us    2 s  ! deadline  chunk 7, r.example/a
                    ask peer/b               1 ms   2 ms  absent
                    ask registry/r.example   4 ms  1.6 s  ! timeout   4 chunks, hedge, in trace abababababababababababababababab

                """)
        await agent.end()
    }

    @Test func whatIsKeptNoMoreIsSaidSoAndWrongIdsAreUsage() async throws {
        let agent = try await ScriptedAgent()
        let other = String(repeating: "12", count: 16)
        let missing = try await ChunkctlRun.run("spans", "--trace", other, "--socket", agent.socket)
        #expect(missing.status == 1 && missing.errors.contains("a keeps no trace \(other)"), "\(missing.errors)")
        for wrong in [["--trace", "12"], ["--slowest", "0"], ["--slowest", "1", "--trace", other], ["-o", "xml"]] {
            #expect(try await ChunkctlRun.run(["spans"] + wrong, environment: [:]).status == 2, "\(wrong)")
        }
        await agent.end()
    }

    @Test func otlpIsWhatACollectorTakesAndNodesAreMergedByTheirResources() async throws {
        let agent = try await ScriptedAgent()
        let file = "/tmp/chunkctl-spans-\(UUID().uuidString).json"
        defer { try? FileManager.default.removeItem(atPath: file) }
        let run = try await ChunkctlRun.run("spans", "-o", "otlp", "--file", file, "--socket", agent.socket)
        #expect(run.status == 0 && run.output.isEmpty, "\(run.errors)")
        #expect(try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int == 0o600)
        let again = try await ChunkctlRun.run("spans", "-o", "otlp", "--file", file, "--socket", agent.socket)
        #expect(again.status == 1 && again.errors.contains("is there already"))

        let data = try Data(contentsOf: URL(filePath: file))
        let root = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        #expect(Set(root.keys) == ["resourceSpans"], "documents are merged by this list alone")
        let resource = try #require((root["resourceSpans"] as? [[String: Any]])?.first)
        let names = (resource["resource"] as? [String: Any])?["attributes"] as? [[String: Any]]
        #expect(names?.map { $0["key"] as? String } == ["service.name", "service.instance.id", "service.version"])
        #expect((names?[1]["value"] as? [String: String]) == ["stringValue": "a"])
        let scope = try #require((resource["scopeSpans"] as? [[String: Any]])?.first)
        let spans = try #require(scope["spans"] as? [[String: Any]])
        #expect(spans.map { $0["kind"] as? Int } == [3, 3, 1])
        #expect(spans.allSatisfy { $0["traceId"] as? String == String(repeating: "ab", count: 16) })
        #expect(spans[0]["parentSpanId"] as? String == spans[2]["spanId"] as? String)
        #expect(spans[2]["parentSpanId"] == nil)
        #expect(spans[2]["startTimeUnixNano"] as? String == "1763760000123000000")
        #expect((spans[1]["status"] as? [String: Any])?["code"] as? Int == 2)
        #expect((spans[1]["links"] as? [[String: String]])?.first?["spanId"] == spans[0]["spanId"] as? String)
        let attributes = try #require(spans[1]["attributes"] as? [[String: Any]])
        #expect(
            attributes.map { $0["key"] as? String }
                == ["chunkd.chunks", "chunkd.hedge", "chunkd.source", "chunkd.result"])
        #expect((attributes[0]["value"] as? [String: String]) == ["intValue": "4"], "64-bit numbers are texts")
        #expect((attributes[1]["value"] as? [String: Bool]) == ["boolValue": true])
        await agent.end()
    }
}
