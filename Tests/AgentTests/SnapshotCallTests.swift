import ChunkModel
import Glibc
import LinuxSystem
import Settings
import TestSupport
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

    /// Whether somebody serves HTTP/2 on a socket: sends its settings, which are a server's first bytes (RFC 9113, 3.4).
    private func isServed(_ caller: File) async throws -> Bool {
        let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0]
        #expect(write(caller.descriptor, preface, preface.count) == preface.count)
        return await off {
            var ready = pollfd(fd: caller.descriptor, events: Int16(POLLIN), revents: 0)
            var bytes = [UInt8](repeating: 0, count: 9)
            return poll(&ready, 1, 5000) == 1 && read(caller.descriptor, &bytes, 9) == 9 && bytes[3] == 4
        }
    }

    private func isServed(at path: String) async throws -> Bool { try await isServed(try connectStream(path: path)) }

    @Test("calls that come while no chunkd runs are answered by the next one")
    func callsWait() async throws {
        let workshop = try Workshop()
        let settings = workshop.settings { $0.snapshotter.enabled = true }
        let path = settings.snapshotter.socket
        try await workshop.run(settings) { _ async throws in
            try #require(await off { Wait.until(.seconds(10)) { workshop.gate.hasListener } })
            #expect(try await isServed(at: path))
        }
        let early = try connectStream(path: path)
        try await workshop.run(settings) { _ async throws in
            #expect(try await isServed(early))
            #expect(try await isServed(at: path))
            // Another chunkgate, which keeps nothing, is given it.
            workshop.gate.forgetListener()
            workshop.gate.dropConnection()
            #expect(await off { Wait.until(.seconds(10)) { workshop.gate.hasListener } })
        }
        // The connection ends before anybody knows whether a socket is kept: the next one will do.
        workshop.gate.loseNextConnection()
        try await workshop.run(settings) { _ async throws in #expect(try await isServed(at: path)) }
        // Whoever removed the socket does not leave containerd without one.
        #expect(unlink(path) == 0)
        try await workshop.run(settings) { _ async throws in
            #expect(await off { Wait.until(.seconds(10)) { access(path, F_OK) == 0 } })
            #expect(try await isServed(at: path))
        }
        // A chunkgate that is older than this chunkd.
        workshop.gate.becomeOld()
        workshop.gate.forgetListener()
        try await workshop.run(settings) { _ async throws in
            #expect(await off { Wait.until(.seconds(10)) { (try? connectStream(path: path)) != nil } })
            #expect(try await isServed(at: path))
        }
        #expect(throws: SystemError.self) { _ = try connectStream(path: path) }
    }

    @Test("without the snapshotter nobody keeps a socket on which nobody would answer")
    func listenerIsDropped() async throws {
        let workshop = try Workshop()
        let settings = workshop.settings { $0.snapshotter.enabled = true }
        let path = settings.snapshotter.socket
        try await workshop.run(settings) { _ async throws in
            #expect(await off { Wait.until(.seconds(10)) { workshop.gate.hasListener } })
        }
        try await workshop.run(workshop.settings()) { _ async throws in
            #expect(await off { Wait.until(.seconds(10)) { !workshop.gate.hasListener } })
        }
        #expect(throws: SystemError.self) { _ = try connectStream(path: path) }
    }
}
