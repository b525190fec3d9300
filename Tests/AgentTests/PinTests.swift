import ChunkModel
import ControlAPI
import Settings
import TestSupport
import Testing

@testable import Agent

@Suite("Pinned images", .timeLimit(.minutes(2)))
struct PinTests {
    private func image(_ workshop: Workshop, _ name: String, seed: UInt64) async throws -> TestImage {
        var random = SeededGenerator(seed: seed)
        return try await TestImage.push(
            random.compressibleBytes(1 << 20), to: "\(workshop.host)/test/\(name):1", compressed: false,
            host: workshop.host)
    }

    @Test("who was told that an image is pinned has it, whatever is collected meanwhile")
    func race() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "raced", seed: 1)
        try await workshop.run { agent in
            for _ in 0..<10 {
                _ = try await agent.service.mount(MountRequest(reference: image.reference))
                #expect(try await agent.service.umount(UmountRequest(manifestDigest: image.manifest)).released)
                async let collected = agent.service.collectGarbage(GarbageRequest(dryRun: false))
                async let pinned = agent.service.pin(PinRequest(reference: image.reference, pinned: true))
                let isPinned = (try? await pinned) != nil
                #expect(try await collected.removed.isEmpty == isPinned)
                #expect(try await agent.service.images().images.map(\.pinned) == (isPinned ? [true] : []))
                if isPinned { _ = try await agent.service.pin(PinRequest(reference: image.reference, pinned: false)) }
            }
        }
    }

    @Test("what is pinned stays, also after a restart, and nothing goes while nobody knows what is")
    func collection() async throws {
        let workshop = try Workshop()
        let kept = try await image(workshop, "kept", seed: 1)
        let other = try await image(workshop, "other", seed: 2)
        let everything = GarbageRequest(dryRun: false)
        try await workshop.run { agent in
            for image in [kept, other] {
                _ = try await agent.service.mount(MountRequest(reference: image.reference))
                #expect(try await agent.service.umount(UmountRequest(manifestDigest: image.manifest)).released)
            }
            let reply = try await agent.service.pin(PinRequest(reference: kept.reference, pinned: true))
            #expect(reply.manifestDigest == kept.manifest && reply.pinned)
            let missing = await #expect(throws: ControlError.self) {
                try await agent.service.pin(PinRequest(reference: "\(workshop.host)/test/none:1", pinned: true))
            }
            #expect(missing?.code == .notFound)
        }
        try await workshop.run { agent in
            let removed = try await agent.service.collectGarbage(everything).removed
            #expect(removed.map(\.manifestDigest) == [other.manifest])
            #expect(try await agent.service.images().images.map(\.pinned) == [true])
            let reply = try await agent.service.pin(PinRequest(reference: "\(kept.manifest)", pinned: false))
            #expect(reply.manifestDigest == kept.manifest && !reply.pinned)

            // The catalogue is broken while chunkd runs.
            let script = "import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute('DROP TABLE reference')"
            try Command.run("python3", "-c", script, workshop.state + "/agent/catalogue.sqlite")
            let error = await #expect(throws: ControlError.self) {
                try await agent.service.collectGarbage(everything)
            }
            #expect(error?.message.contains("no such table: reference") == true, "\(String(describing: error))")
            #expect(try await agent.service.gate.list().map(\.manifest) == [kept.manifest])
        }
    }
}
