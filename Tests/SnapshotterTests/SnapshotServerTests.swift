import Catalogue
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import LinuxSystem
import Snapshotter
import SwiftProtobuf
import Synchronization
import TestSupport
import Testing

@Suite("The snapshots service as containerd calls it", .timeLimit(.minutes(1)))
struct SnapshotServerTests {
    /// Serves a rig on a socket while `body` runs.
    private func serving(
        _ rig: Rig, _ body: @Sendable @escaping (WireSnapshots.Client<HTTP2ClientTransport.Posix>) async throws -> Void
    ) async throws {
        let path = rig.directory.path + "/snapshotter.sock"
        let listener = try StreamListener.listen(path: path)
        let server = SnapshotServer(listener: try StreamListener.duplicate(listener), service: rig.service)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            let transport = try HTTP2ClientTransport.Posix(
                target: .unixDomainSocket(path: path), transportSecurity: .plaintext)
            try await withGRPCClient(transport: transport) { client in
                try await body(WireSnapshots.Client(wrapping: client))
            }
            server.stop()
            try await group.waitForAll()
        }
    }

    @Test("the ten calls answer, and errors have the codes that containerd's client knows")
    func calls() async throws {
        let rig = try Rig()
        let image = rig.addImage(10)
        try await serving(rig) { client in
            let prepared = try await client.prepare(.with { $0.key = "a" })
            #expect(prepared.mounts.map(\.source) == ["/s/1/fs"] && prepared.mounts.first?.type == "bind")
            _ = try await client.commit(
                .with {
                    $0.key = "a"
                    $0.name = "A"
                    $0.labels = ["k": "v"]
                })
            let stat = try await client.stat(.with { $0.key = "A" }).info
            #expect(stat.kind == .committed && stat.labels == ["k": "v"] && stat.createdAt.seconds > 1_700_000_000)
            let usage = try await client.usage(.with { $0.key = "A" })
            #expect(usage.size == 4096 && usage.inodes == 1)
            let view = try await client.view(
                .with {
                    $0.key = "v"
                    $0.parent = "A"
                })
            #expect(view.mounts.first?.options == ["ro", "rbind"])
            #expect(try await client.mounts(.with { $0.key = "v" }) == view)
            let updated = try await client.update(
                .with {
                    $0.info.name = "A"
                    $0.info.labels = ["k": "w"]
                    $0.updateMask.paths = ["labels.k"]
                })
            #expect(updated.info.labels == ["k": "w"])

            let layer = await #expect(throws: RPCError.self) {
                try await client.prepare(
                    .with {
                        $0.key = "x"
                        $0.labels = image.labels[0]
                    })
            }
            #expect(layer?.code == .alreadyExists)
            let names = try await client.list(.with { $0.filters = ["kind==Committed"] }) { response in
                try await response.messages.reduce(into: [String]()) { $0 += $1.info.map(\.name) }
            }
            #expect(names == ["A", "sha256:chain10-0"])

            let missing = await #expect(throws: RPCError.self) { try await client.stat(.with { $0.key = "none" }) }
            #expect(missing?.code == .notFound && missing?.message == "snapshot none is not there")
            let child = await #expect(throws: RPCError.self) { try await client.remove(.with { $0.key = "A" }) }
            #expect(child?.code == .failedPrecondition)
            let filter = await #expect(throws: RPCError.self) {
                try await client.list(.with { $0.filters = ["name="] }) { for try await _ in $0.messages {} }
            }
            #expect(filter?.code == .invalidArgument)
            _ = try await client.remove(.with { $0.key = "v" })
            _ = try await client.remove(.with { $0.key = "A" })
            _ = try await client.cleanup(.init())
        }
        #expect(rig.failures.codes.withLock { $0 } == [.notFound, .precondition, .invalid])
    }
}
