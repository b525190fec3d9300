import ChunkModel
import ControlAPI
import Glibc
import TestSupport
import Testing

@testable import Agent

@Suite(.timeLimit(.minutes(2))) struct SpansTests {
    @Test("a miss is a trace: who was asked, how long chunkgate took, and what the reader was told")
    func misses() async throws {
        let workshop = try Workshop()
        var random = SeededGenerator(seed: 1)
        let raw = random.compressibleBytes(2 << 20)
        let image = try await TestImage.push(
            raw, to: "\(workshop.host)/test/spans:1", compressed: true, host: workshop.host)
        // The same bytes in another image: a copy.
        let other = try await TestImage.push(
            raw, to: "\(workshop.host)/test/other:1", compressed: false, host: workshop.host)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            let read = { (image: TestImage, chunk: Int) in
                let (blob, range) = (image.blob, image.range(chunk..<chunk + 1))
                return await off { workshop.gate.read(blob, range) }
            }
            #expect(try await agent.service.spans(SpansRequest()).traces.isEmpty)
            #expect(await read(image, 3) == .bytes(image.bytes(image.range(3..<4))))
            let first = try #require(try await traces(agent, 1).first)
            #expect(first.spans.map(\.name) == [.ask, .fill, .miss] && first.dropped == 0)
            let (ask, fill, miss) = (first.spans[0], first.spans[1], first.spans[2])
            #expect(miss.parentSpanId == nil && [ask, fill].allSatisfy { $0.parentSpanId == miss.spanId })
            #expect(first.spans.map(\.result) == ["delivered", "resident", "resident"])
            #expect(first.spans.allSatisfy { !$0.isError })
            #expect(ask.attributes["chunkd.source"] == .text("registry/\(workshop.host)"))
            #expect(
                miss.attributes == [
                    "chunkd.chunk": .number(3), "chunkd.blob": .text("\(image.blob)"), "chunkd.rank": .text("demand"),
                    "chunkd.image.manifest": .text("\(image.manifest)"),
                    "chunkd.image.repository": .text("\(workshop.host)/test/spans"),
                    "chunkd.source": .text("registry/\(workshop.host)"),
                ])
            #expect(miss.start <= ask.start && ask.start <= ask.end && ask.end == fill.start && fill.end <= miss.end)
            let now = Int64(ImageService.unixTime() * 1e9)
            #expect(miss.end <= now && now - miss.end < 60_000_000_000, "a time of day")

            _ = try await agent.service.mount(MountRequest(reference: other.reference))
            #expect(await read(other, 3) == .bytes(image.bytes(image.range(3..<4))))
            let copied = try #require(try await traces(agent, 2).last)
            #expect(copied.spans.map(\.name) == [.ask, .miss])
            #expect(copied.spans[0].attributes["chunkd.source"] == .text("disk"))

            workshop.registry.stop()
            #expect(await read(image, 6) == .failed(errno: UInt32(EIO)))
            let failed = try #require(try await traces(agent, 3).last)
            let end = try #require(failed.spans.last)
            #expect(end.name == .miss && end.isError && end.result == "attempts")
            #expect(failed.spans.dropLast().allSatisfy { $0.name == .ask && $0.isError } && failed.spans.count > 1)

            let one = try await agent.service.spans(SpansRequest(trace: failed.traceId)).traces
            #expect(one == [failed] || one.first?.traceId == failed.traceId)
            #expect(try await agent.service.spans(SpansRequest(slowest: 2)).traces.count == 2)
        }
    }

    /// All traces, once there are `count`.
    private func traces(_ agent: AgentRuntime, _ count: Int) async throws -> [TraceRecord] {
        for _ in 0..<500 {
            let traces = try await agent.service.spans(SpansRequest()).traces
            if traces.count >= count { return traces }
            // slow: the verdict reaches the reader a moment before the engine has noted it.
            try await Task.sleep(for: .milliseconds(10))
        }
        throw FixtureError("no \(count) traces")
    }
}
