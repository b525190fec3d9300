import ChunkModel
import Glibc
import Testing

@testable import Agent

/// What chunkd asks of the gate for container snapshots.
@Suite struct SnapshotCallTests {
    private func errno(_ body: () async throws(AgentError) -> Void) async -> Int32 {
        do throws(AgentError) { try await body() } catch { return error.errno }
        return 0
    }

    @Test func snapshotsAreMadeMeasuredListedAndRemoved() async throws {
        let workshop = try Workshop()
        try await workshop.run { agent in
            let gate = agent.service.gate
            try await gate.makeSnapshot(3, like: .none)
            try await gate.makeSnapshot(9, like: .snapshot(3))
            #expect(await errno { () throws(AgentError) in try await gate.makeSnapshot(3, like: .none) } == EEXIST)
            #expect(
                await errno { () throws(AgentError) in try await gate.makeSnapshot(4, like: .snapshot(5)) } == ENOENT)
            let usage = try await gate.snapshotUsage(3)
            #expect(usage.bytes == 4096 && usage.inodes == 1)
            #expect(try await gate.snapshots() == [3, 9])
            #expect(try await gate.snapshots(after: 3) == [9])
            #expect(try await gate.removeSnapshot(3))
            #expect(try await !gate.removeSnapshot(3), "there is none any more")
            #expect(await errno { () throws(AgentError) in _ = try await gate.snapshotUsage(3) } == ENOENT)
        }
    }
}
