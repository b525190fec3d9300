import ControlAPI
import LinuxSystem
import Settings
import TestSupport
import Testing

@testable import Agent

/// Bandwidth limits of an agent in this process, over its control API.
@Suite(.serialized, .timeLimit(.minutes(3))) struct LimitsTests {
    private func image(_ workshop: Workshop, _ name: String, megabytes: Int, seed: UInt64) async throws -> TestImage {
        var random = SeededGenerator(seed: seed)
        return try await TestImage.push(
            random.compressibleBytes(megabytes << 20), to: "\(workshop.host)/test/\(name):1", compressed: false,
            host: workshop.host)
    }

    @Test func whatIsConfiguredHoldsUntilACallChangesIt() async throws {
        let workshop = try Workshop()
        let first = try await image(workshop, "limited", megabytes: 8, seed: 1)
        let second = try await image(workshop, "freed", megabytes: 4, seed: 2)
        try await workshop.run(workshop.settings { $0.limits.registryBytesPerSecond = 4 << 20 }) { agent in
            let service = agent.service
            #expect(try await service.limits(LimitsRequest()).registryBytesPerSecond == 4 << 20)
            let start = Monotonic.now
            let reply = try await service.prefetch(PrefetchRequest(reference: first.reference)) { _ in }
            #expect(reply.filledChunks == 32)
            // Four ranges of half a second; the second may start a burst earlier.
            #expect(AgentService.seconds(since: start) >= 1.2)

            var slow = LimitsRequest()
            slow.registryBytesPerSecond = 0
            slow.prefetchBytesPerSecond = 32 << 10
            let inForce = try await service.limits(slow)
            #expect(inForce.registryBytesPerSecond == nil && inForce.prefetchBytesPerSecond == 32 << 10)
            // It would take two minutes.
            let begin = Monotonic.now
            let progress = Monitor(false)
            async let freed = service.prefetch(PrefetchRequest(reference: second.reference)) { report in
                if report.doneChunks > 0 { progress.update { $0 = true } }
            }
            let hasBegun = await off { Wait.until(.seconds(20)) { progress.withLock { $0 } } }
            #expect(hasBegun)
            var free = LimitsRequest()
            free.prefetchBytesPerSecond = 0
            #expect(try await service.limits(free) == LimitsReply())
            #expect(try await freed.filledChunks == 16)
            #expect(AgentService.seconds(since: begin) < 60)
        }
    }

    @Test func whatCannotBeIsRefusedAndChangesNothing() async throws {
        let workshop = try Workshop()
        try await workshop.run { agent in
            var low = LimitsRequest()
            low.prefetchBytesPerSecond = 5
            low.downloadBytesPerSecond = 5
            let refused = await #expect(throws: ControlError.self) { try await agent.service.limits(low) }
            #expect(refused?.code == .invalidRequest && refused?.message.contains("downloadBytesPerSecond") == true)
            var upload = LimitsRequest()
            upload.prefetchBytesPerSecond = 5
            upload.uploadBytesPerSecond = 5
            let alone = await #expect(throws: ControlError.self) { try await agent.service.limits(upload) }
            #expect(alone?.code == .conflict)
            let inForce = try await agent.service.limits(LimitsRequest())
            #expect(inForce == LimitsReply())
        }
    }
}
