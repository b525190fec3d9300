import ChunkModel
import ControlAPI
import LinuxSystem
import OCISpec
import RegistryClient
import Settings
import Telemetry
import TestSupport
import Testing

@testable import Agent

/// Access traces in the agent: a real registry on one side, a gate in memory on the other.
@Suite(.serialized, .timeLimit(.minutes(3))) struct TraceTests {
    private func image(_ workshop: Workshop, _ name: String) async throws -> TestImage {
        var random = SeededGenerator(seed: 5)
        return try await TestImage.push(
            random.compressibleBytes(8 << 20), to: "\(workshop.host)/test/\(name):1", compressed: true,
            host: workshop.host)
    }

    private func expect(_ workshop: Workshop, _ image: TestImage, _ chunks: Range<Int>) async {
        let (gate, blob, range) = (workshop.gate, image.blob, image.range(chunks))
        let found = await off { gate.read(blob, range) }
        #expect(found == .bytes(image.bytes(range)))
    }

    private func waitResident(_ workshop: Workshop, _ image: TestImage, _ count: Int) async -> Bool {
        let (gate, blob) = (workshop.gate, image.blob)
        return await off { gate.waitResident(blob, count) }
    }

    /// Records while `body` runs; begins it once the recording has begun.
    private func record(
        _ agent: AgentRuntime, _ image: TestImage, _ body: () async throws -> Void
    ) async throws -> TraceReply {
        let (begun, begin) = AsyncStream.makeStream(of: Void.self)
        let request = TraceRequest(reference: image.reference)
        let recording = Task {
            defer { begin.finish() }
            return try await agent.service.recordTrace(request) { _ in begin.yield() }
        }
        for await _ in begun { break }
        try await body()
        _ = try await agent.service.endTrace(request)
        return try await recording.value
    }

    /// Pushes a trace of these chunks, and more runs than one.
    private func attach(
        _ workshop: Workshop, _ image: TestImage, _ runs: [Range<Int>], of digest: Digest? = nil
    ) async throws {
        let client = RegistryClient(
            configuration: RegistryConfiguration(hosts: [workshop.host: HostConfiguration(usesPlainHTTP: true)]))
        let reference = try Reference(image.reference)
        let trace = try AccessTrace(
            image: digest ?? image.manifest, blobs: [.init(digest: image.blob, chunks: image.chunkCount)],
            runs: runs.map { .init(blob: 0, chunks: $0) }, bytes: 1)
        let subject = try await client.resolve(reference)
        _ = try await client.attach(
            trace.encoded(), artifactType: AccessTrace.mediaType, annotations: [:], to: subject, in: reference)
        await client.shutDown()
    }

    private func replaying(_ workshop: Workshop) -> AgentSettings { workshop.settings { $0.trace.replay = true } }

    private func outcome(_ agent: AgentRuntime, _ outcome: TraceMetrics.Outcome) -> UInt64 {
        agent.metrics.traces.replays[outcome.rawValue].value
    }

    // MARK: - Recording

    @Test func whatIsReadFirstIsRecordedInOrderAndNothingElseIsFetchedMeanwhile() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "record")
        let settings = workshop.settings { settings in
            settings.hydrate.enabled = true
            settings.hydrate.delay = .zero
            settings.readAheadWindowMaxBytes = 32 << 20
        }
        try await workshop.run(settings) { agent in
            // Before it is mounted, as for a pod that starts later.
            let reply = try await record(agent, image) {
                _ = try await agent.service.mount(MountRequest(reference: image.reference))
                await expect(workshop, image, 20..<22)
                for chunk in 5..<11 { await expect(workshop, image, chunk..<chunk + 1) }
                await expect(workshop, image, 21..<22)
                await expect(workshop, image, 3..<4)
                #expect(workshop.gate.resident(image.blob) == 9, "read ahead or hydrated while recording")
            }
            #expect(reply.manifestDigest == image.manifest && reply.residentBefore == 0 && !reply.isFull)
            #expect(reply.chunks == 9 && reply.imageChunks == 32 && reply.bytes == 9 * 256 << 10)
            let trace = try AccessTrace(decoding: Array(reply.trace.utf8))
            #expect(trace.runs.map(\.chunks) == [20..<22, 5..<11, 3..<4])
            try trace.check(image: image.manifest, blobs: [.init(digest: image.blob, chunks: 32)])
            #expect(await waitResident(workshop, image, 32), "hydration does not go on after the recording")
        }
    }

    @Test func whatWasHereBeforeIsSaidAndSeenWhenItIsFirstReadNow() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "before")
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            await expect(workshop, image, 0..<4)
            let reply = try await record(agent, image) {
                await expect(workshop, image, 8..<9)
                // This gate reports every read of what is here, chunkgate the first.
                await expect(workshop, image, 2..<3)
                // Touches come without a reader who waits: this miss comes after them.
                await expect(workshop, image, 9..<10)
            }
            #expect(reply.residentBefore == 4)
            #expect(try AccessTrace(decoding: Array(reply.trace.utf8)).runs.map(\.chunks) == [8..<9, 2..<3, 9..<10])
        }
    }

    @Test func aCompleteImageAnEmptyRecordingAndASecondOneAreRefused() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "refused")
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            let empty = await #expect(throws: ControlError.self) { try await record(agent, image) {} }
            #expect(empty?.code == .conflict && empty?.message.contains("nothing of") == true)
            _ = try await record(agent, image) {
                await expect(workshop, image, 0..<1)
                let second = await #expect(throws: ControlError.self) { try await record(agent, image) {} }
                #expect(second?.message.contains("is being recorded") == true, "\(second?.message ?? "")")
                // The refused one's client ended the recording by its reference: it returns what it has.
            }
            await expect(workshop, image, 0..<32)
            let complete = await #expect(throws: ControlError.self) { try await record(agent, image) {} }
            #expect(complete?.code == .conflict && complete?.hint.contains("chunkctl gc") == true)
            #expect(try await !agent.service.endTrace(TraceRequest(reference: image.reference)).ended)
        }
    }

    @Test func aClientThatGoesAwayEndsItsRecording() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "gone")
        try await workshop.run { agent in
            let (begun, begin) = AsyncStream.makeStream(of: Void.self)
            let recording = Task {
                try await agent.service.recordTrace(TraceRequest(reference: image.reference)) { _ in begin.yield() }
            }
            for await _ in begun { break }
            recording.cancel()
            await #expect(throws: ControlError.self) { try await recording.value }
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            let reply = try await record(agent, image) { await expect(workshop, image, 4..<5) }
            #expect(reply.chunks == 1)
        }
    }

    // MARK: - Replay

    @Test func aTraceIsFetchedAfterTheMountAndNothingElse() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "replay")
        try await attach(workshop, image, [20..<24, 3..<4, 19..<20, 8..<10])
        try await workshop.run(replaying(workshop)) { agent in
            let reply = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(await waitResident(workshop, image, 8), "nobody read, and the trace's chunks are not here")
            #expect(await Wait.eventually(.seconds(10)) { outcome(agent, .replayed) == 1 })
            #expect(workshop.gate.counts.fills == 8 && workshop.gate.resident(image.blob) == 8)
            for chunks in [3..<4, 8..<10, 19..<24] { await expect(workshop, image, chunks) }
            #expect(workshop.gate.counts.fills == 8, "a chunk of the trace was not here")
            #expect(agent.metrics.traces.chunks.value == 8 && agent.metrics.traces.bytes.value == 8 * 256 << 10)
            let event = agent.metrics.events.events(after: 0).events.first { $0.kind == .traceReplayed }
            #expect(event?.detail.hasPrefix("8 of 8 chunks") == true, "\(event?.detail ?? "no event")")
            // Mounted already: no second look.
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(try await agent.service.umount(UmountRequest(manifestDigest: reply.manifestDigest)).released)
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(await Wait.eventually(.seconds(10)) { outcome(agent, .replayed) == 2 })
            #expect(workshop.gate.counts.fills == 8, "what is here is fetched again")
        }
        // The mount is there: another agent does not replay.
        try await workshop.run(replaying(workshop)) { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            await expect(workshop, image, 0..<1)
            #expect(workshop.gate.counts.fills == 9)
            #expect(TraceMetrics.Outcome.allCases.allSatisfy { outcome(agent, $0) == 0 })
        }
    }

    @Test func neighboursOfATraceComeInOneRequest() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "ranges")
        // As several threads would have read them.
        try await attach(workshop, image, [9..<10, 8..<9, 11..<12, 10..<11, 30..<31])
        try await workshop.run(replaying(workshop)) { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(await waitResident(workshop, image, 5))
            let ranges = agent.metrics.rangeSeconds["registry/\(workshop.host)"]
            #expect(await Wait.eventually(.seconds(10)) { outcome(agent, .replayed) == 1 })
            #expect(ranges.count == 2, "\(ranges.count) requests for two pieces")
        }
    }

    @Test func anImageWithoutATraceAndOneWithABadOneAreMountedAllTheSame() async throws {
        let workshop = try Workshop()
        let (none, bad) = (try await image(workshop, "none"), try await image(workshop, "bad"))
        try await attach(workshop, bad, [0..<4], of: none.blob)
        try await workshop.run(replaying(workshop)) { agent in
            _ = try await agent.service.mount(MountRequest(reference: none.reference))
            #expect(await Wait.eventually(.seconds(10)) { outcome(agent, .absent) == 1 })
            #expect(try await agent.service.umount(UmountRequest(manifestDigest: none.manifest)).released)
            // The same content, so it is the same image elsewhere: away with it first.
            _ = try await agent.service.collectGarbage(GarbageRequest(dryRun: false))
            _ = try await agent.service.mount(MountRequest(reference: bad.reference))
            #expect(await Wait.eventually(.seconds(10)) { outcome(agent, .failed) == 1 })
            #expect(agent.metrics.traces.errors["invalid_document"].value == 1)
            #expect(workshop.gate.counts.fills == 0)
            await expect(workshop, bad, 0..<1)
        }
    }

    @Test func unmountingStopsAReplay() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "stopped")
        try await attach(workshop, image, [0..<32])
        let settings = workshop.settings { settings in
            settings.trace.replay = true
            // So slow that it never ends by itself.
            settings.limits.prefetchBytesPerSecond = 1 << 10
        }
        try await workshop.run(settings) { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(await waitResident(workshop, image, 1), "the replay has not begun")
            #expect(try await agent.service.umount(UmountRequest(manifestDigest: image.manifest)).released)
            #expect(await Wait.eventually(.seconds(10)) { outcome(agent, .stopped) == 1 })
            #expect(workshop.gate.resident(image.blob) < 32)
        }
    }
}
