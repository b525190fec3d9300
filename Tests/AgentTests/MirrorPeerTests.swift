import ChunkModel
import ContentIndex
import Glibc
import HTTPTransfer
import LinuxSystem
import Membership
import OCISpec
import PeerTestSupport
import PeerTransport
import RegistryClient
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import Agent

@Suite("Ordinary images among peers", .timeLimit(.minutes(3))) struct MirrorPeerTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory(prefix: "chunkd-mirror") }

    /// Nodes of one cluster, each in its own directory.
    private final class Nodes {
        let registry: RegistryFixture
        let directory: String
        let authority: TestAuthority
        let ports: [UInt16]
        /// Of nodes that are started from now on.
        var sharing: SharingPolicy
        private let files: [IdentityFiles]
        private var rigs: [MirrorRig] = []

        init(
            _ count: Int, _ registry: RegistryFixture, _ directory: String, _ sharing: SharingPolicy
        ) async throws {
            self.registry = registry
            self.sharing = sharing
            self.directory = directory
            authority = try await TestAuthority.make()
            ports = try (0..<count).map { _ in try Ports.free() }
            var files: [IdentityFiles] = []
            for number in 0..<count { files.append(try await authority.files("node-\(number)")) }
            self.files = files
        }

        var all: [MirrorRig] { rigs }
        subscript(number: Int) -> MirrorRig { rigs[number] }

        func start() async throws {
            for number in ports.indices { rigs.append(try await start(number)) }
        }

        private func start(_ number: Int) async throws -> MirrorRig {
            // The first joins through the last: when it is started again there is somebody to join.
            let seed = ports[number == 0 ? ports.count - 1 : 0]
            return try await MirrorRig(
                registry.host, directory: directory + "/m\(number)", sharing: sharing,
                peers: (files[number], authority.trustDomain, ports[number], seed))
        }

        /// The same node with what it has on disk, in a new process as it were.
        func restart(_ number: Int) async throws {
            let old = rigs.remove(at: number)
            try await old.stop()
            rigs.insert(try await start(number), at: number)
        }

        func stop() async throws {
            while let rig = rigs.popLast() { try await rig.stop() }
        }

        func areTogether() async -> Bool {
            let (all, others) = (rigs, rigs.count - 1)
            return await off {
                Wait.until(.seconds(30)) {
                    all.allSatisfy { $0.cluster?.state.withLock { $0.membership.counts.alive } ?? 0 >= others }
                }
            }
        }
    }

    /// Nodes that see each other.
    private func with(
        _ count: Int, _ registry: RegistryFixture, sharing: SharingPolicy = SharingPolicy(),
        _ body: (Nodes) async throws -> Void
    ) async throws {
        let nodes = try await Nodes(count, registry, directory.path, sharing)
        let result: Result<Void, any Error>
        do {
            try await nodes.start()
            try #require(await nodes.areTogether(), "the nodes do not find each other")
            try await body(nodes)
            result = .success(())
        } catch { result = .failure(error) }
        try await nodes.stop()
        try result.get()
    }

    /// Waits until a node knows that another has all of an image.
    private func expectComplete(_ image: OrdinaryImage, at node: MirrorRig, seenBy other: MirrorRig) async throws {
        let name = try #require(node.cluster?.own)
        let isKnown = await off {
            Wait.until(.seconds(20)) {
                other.cluster?.state.withLock { state in
                    state.index.records(of: name).contains { $0.record.state == .complete }
                } ?? false
            }
        }
        try #require(isKnown, "nobody hears that \(name) has the image")
    }

    /// Stops the registry: the image's layer comes all the same.
    private func expectOnlyAPeerGives(
        _ image: OrdinaryImage, to node: MirrorRig, _ registry: RegistryFixture
    ) async throws {
        registry.stop()
        let found = try await node.blob(1, of: image, authorization: MirrorRig.good)
        #expect(found.body == image.blobs[1])
        #expect(node.bytes(from: "peer") == UInt64(image.blobs[1].count))
    }

    @Test("nodes that pull an image at the same instant cost the registry one copy")
    func together() async throws {
        let registry = try RegistryFixture.start()
        let image = try await OrdinaryImage.push(to: registry, "app", layers: [4_000_000, 3_000_000, 2_000_000])
        try await with(3, registry) { nodes in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for node in nodes.all { group.addTask { try await node.pull(image) } }
                try await group.waitForAll()
            }
            let size = UInt64(image.blobs.reduce(0) { $0 + $1.count })
            let fetched = nodes.all.reduce(0) { $0 + $1.bytes(from: "registry") }
            let shared = nodes.all.reduce(0) { $0 + $1.bytes(from: "peer") }
            // A node that has not heard of the others when it needs its first blob fetches that one itself.
            #expect(fetched <= size + size / 2, "\(fetched) bytes from the registry for an image of \(size)")
            #expect(fetched + shared == 3 * size)
        }
    }

    @Test("a blob that the registry has lost comes from a peer; a private one only with the right to its manifest")
    func registryDown() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let image = try await OrdinaryImage.push(
            to: registry, "app", layers: [1_000_000], credential: .password(username: "u", password: "p"))
        try await with(2, registry) { nodes in
            try await nodes[0].pull(image, authorization: MirrorRig.good)
            #expect(try await nodes[1].manifest(image).head.status == 401)
            #expect(try await nodes[1].manifest(image, authorization: MirrorRig.good).head.status == 200)
            try await expectComplete(image, at: nodes[0], seenBy: nodes[1])
            try await expectOnlyAPeerGives(image, to: nodes[1], registry)
            #expect(nodes[0].metrics.mirroring.sentToPeers.value == 1_000_000)
            // Nothing that could be asked for by a digest alone is named among peers.
            let names = nodes[0].cluster?.state.withLock { Array($0.wholes.values) } ?? []
            #expect(names.count == 1 && names.allSatisfy { $0.number(of: WireID(image.digests[1])) == nil })
        }
    }

    @Test("a peer that lies costs time: the blob comes from the registry, and the peer is asked no more")
    func liar() async throws {
        let registry = try RegistryFixture.start()
        let image = try await OrdinaryImage.push(to: registry, "app", layers: [1_000_000])
        try await with(2, registry) { nodes in
            try await nodes[0].pull(image)
            let path = nodes[0].path(image.digests[1])
            try File(path: path, flags: O_WRONLY).writeAll([image.blobs[1][500] ^ 1], at: 500)
            _ = try await nodes[1].manifest(image)
            try await expectComplete(image, at: nodes[0], seenBy: nodes[1])
            #expect(try await nodes[1].blob(1, of: image).body == image.blobs[1])
            #expect(nodes[1].bytes(from: "registry") == 1_000_000 && nodes[1].bytes(from: "peer") == 0)
            #expect(nodes[1].metrics.cluster.quarantined["wrong_bytes"].value == 1)
        }
    }

    @Test("a restarted node gives peers what it has, of a private image too, though nobody there pulls it again")
    func restarted() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let credential = RegistryCredential.password(username: "u", password: "p")
        let image = try await OrdinaryImage.push(to: registry, "app", layers: [1_000_000], credential: credential)
        let other = try await OrdinaryImage.push(to: registry, "other", layers: [500_000], credential: credential)
        try await with(2, registry) { nodes in
            try await nodes[0].pull(image, authorization: MirrorRig.good)
            try await nodes[0].pull(other, authorization: MirrorRig.good)
            // Of the other nothing is left: nobody needs to hear of it.
            for digest in other.digests { try Command.run("rm", nodes[0].path(digest)) }
            try await nodes.restart(0)
            #expect(nodes[0].cluster?.state.withLock { $0.wholes.count } == 1)
            let records = try Directory.names(nodes[0].directory + "/images")
            #expect(records == [image.manifest.hex])

            try #require(await nodes.areTogether(), "the nodes do not find each other again")
            #expect(try await nodes[1].manifest(image, authorization: MirrorRig.good).head.status == 200)
            try await expectComplete(image, at: nodes[0], seenBy: nodes[1])
            try await expectOnlyAPeerGives(image, to: nodes[1], registry)
        }
    }

    @Test("an image that was public by the settings alone is not after a restart without them")
    func tightened() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let image = try await OrdinaryImage.push(
            to: registry, "app", layers: [10_000], credential: .password(username: "u", password: "p"))
        try await with(2, registry, sharing: SharingPolicy(publicImages: "*")) { nodes in
            // Of each image that peers may know, whether its names are keyed.
            func areKeyed() -> [Bool] {
                nodes[0].cluster?.state.withLock { $0.wholes.values.map { $0.key != nil } } ?? []
            }
            try await nodes[0].pull(image, authorization: MirrorRig.good)
            #expect(areKeyed() == [false])
            nodes.sharing = SharingPolicy()
            try await nodes.restart(0)
            #expect(areKeyed() == [true])
        }
    }
}
