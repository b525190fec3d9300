import ContainerTestSupport
import ControlAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    /// containerd on real nodes, told by `chunkctl mirror install`.
    @Suite("containerd pulls ordinary images through the mirror")
    struct Mirrors {
        static let settings = ["mirror: {enabled: true, registries: \"\(Cluster.registry)\"}"]

        /// containerd's directory of registries on a node.
        private func hosts(_ cluster: Cluster, _ node: Int) -> String { cluster.path(node, "containerd/hosts") }

        private func install(_ cluster: Cluster, _ node: Int) throws -> String {
            try cluster.exec(node, "mirror", "install", "--certs-dir", hosts(cluster, node))
        }

        /// A cluster with containerd on each node; `hosts.toml` is ours alone.
        private func scene(nodes: Int, isPrivate: Bool = false) throws -> (Cluster, [ContainerRuntime]) {
            let cluster = try Cluster(nodes: nodes, settings: Self.settings, hasPrivateRegistry: isPrivate)
            let runtimes = try (1...nodes).map { node in
                let runtime = try cluster.startContainerd(node, snapshotter: "overlayfs")
                try Command.run("rm", hosts(cluster, node) + "/\(Cluster.registry)/hosts.toml")
                #expect(try install(cluster, node).contains("installed"))
                return runtime
            }
            return (cluster, runtimes)
        }

        /// How often the registry has given each blob of a repository, whole or in part.
        private func gets(_ cluster: Cluster, _ image: ContainerImage) throws -> [String: Int] {
            let manifest = try cluster.manifest(of: image.ordinary)
            let found = cluster.downloads(of: image.repository).filter { $0.status < 300 && manifest.contains($0.name) }
            return Dictionary(grouping: found, by: \.name).mapValues(\.count)
        }

        @Test("three nodes that pull one image at the same instant cost the registry about one copy, and run it")
        func together() async throws {
            let (cluster, runtimes) = try scene(nodes: 3)
            let image = try cluster.makeContainerImage("app", megabytes: 24)
            let before = try gets(cluster, image)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for runtime in runtimes { group.addTask { _ = try await runtime.pull(image.ordinary) } }
                try await group.waitForAll()
            }
            let after = try gets(cluster, image)
            let counts = after.map { $0.value - (before[$0.key] ?? 0) }
            #expect(counts.count > 5)
            let direct = cluster.downloads(of: image.repository).filter { $0.isContainerd && $0.status < 300 }
            #expect(direct.isEmpty, "past the mirror: \(direct.map(\.name))")
            #expect(counts.allSatisfy { $0 <= 2 } && counts.reduce(0, +) <= counts.count + 2, "\(counts)")
            let fetched = try (1...3).map {
                try cluster.metric($0, "chunkd_mirror_bytes_total", ["source": "registry"])
            }
            let shared = try (1...3).map { try cluster.metric($0, "chunkd_mirror_bytes_total", ["source": "peer"]) }
            print("from the registry \(fetched), from peers \(shared)")
            #expect(shared.reduce(0, +) > fetched.reduce(0, +))
            for (number, runtime) in runtimes.enumerated() {
                let pod = try await runtime.runPod("pod-\(number)")
                let container = try await runtime.start("c\(number)", of: image.ordinary, in: pod)
                try await Containers.expectFiles(of: image, in: container, runtime)
                try await runtime.remove(container: container)
                try await runtime.remove(pod)
            }
        }

        @Test("a layer that the registry has lost comes from a peer")
        func lost() async throws {
            let (cluster, runtimes) = try scene(nodes: 2)
            let image = try cluster.makeContainerImage("app", megabytes: 4)
            _ = try await runtimes[0].pull(image.ordinary)
            try loseLargeBlobs(cluster)
            _ = try await runtimes[1].pull(image.ordinary)
            let stat = try #require(try cluster.stat(2).mirror)
            #expect(stat.bytesFromPeers > 4_000_000 && stat.cacheBytes > 4_000_000 && stat.failures == 0)
            #expect(try cluster.stat(1).mirror?.bytesToPeers == stat.bytesFromPeers)
        }

        /// Takes the large layer from the registry: no manifest, config or other layer is so large.
        private func loseLargeBlobs(_ cluster: Cluster) throws {
            let large = try cluster.scratch.makeDirectory("set-aside")
            try Command.run(
                "sh", "-c",
                "find \(cluster.directory)/registry/docker/registry/v2/blobs -name data -size +3M -exec mv {} \(large)/ ';'"
            )
        }

        @Test("a private image: the pull's credentials open it, none and wrong ones do not; a peer gives its layers")
        func privateImage() async throws {
            let (cluster, runtimes) = try scene(nodes: 2, isPrivate: true)
            let image = try cluster.makeContainerImage("app", megabytes: 4)
            let (user, password) = try #require(cluster.login)
            func pull(_ number: Int, with password: String) async throws {
                _ = try await runtimes[number].pull(image.ordinary, username: user, password: password)
            }
            await #expect(throws: (any Error).self) { _ = try await runtimes[0].pull(image.ordinary) }
            await #expect(throws: (any Error).self) { try await pull(0, with: "wrong") }
            try await pull(0, with: password)
            try loseLargeBlobs(cluster)
            await #expect(throws: (any Error).self) { _ = try await runtimes[1].pull(image.ordinary) }
            await #expect(throws: (any Error).self) { try await pull(1, with: "wrong") }
            #expect(try cluster.stat(2).mirror?.bytesFromPeers == 0)
            try await pull(1, with: password)
            #expect(try #require(cluster.stat(2).mirror).bytesFromPeers > 4_000_000)
            let direct = cluster.downloads(of: image.repository).filter { $0.isContainerd && $0.status < 300 }
            #expect(direct.isEmpty, "past the mirror: \(direct.map(\.name))")
        }

        @Test("chunkd killed in the middle of a layer, and then gone: pulls succeed all the same")
        func killed() async throws {
            let (cluster, runtimes) = try scene(nodes: 1)
            let image = try cluster.makeContainerImage("app", megabytes: 24)
            // Three seconds at least.
            try cluster.scenario("rate", "registry", "64mbit")
            let pulling = Task { try await runtimes[0].pull(image.ordinary) }
            let new = cluster.path(1, "state/agent/mirror/new")
            let isUnderWay = await Self.off {
                Wait.until(.seconds(30)) {
                    let sizes = (try? Directory.names(new))?.map { name in
                        (try? File(path: new + "/" + name, flags: O_RDONLY).size()) ?? 0
                    }
                    return sizes?.contains { $0 > 2_000_000 } ?? false
                }
            }
            #expect(isUnderWay, "the large layer does not go through the mirror")
            try cluster.scenario("kill", "1")
            _ = try await pulling.value
            try cluster.scenario("rate", "registry", "off")
            try await runtimes[0].removeImage(image.ordinary)
            _ = try await runtimes[0].pull(image.ordinary)
            let pod = try await runtimes[0].runPod("pod")
            let container = try await runtimes[0].start("c", of: image.ordinary, in: pod)
            try await Containers.expectFiles(of: image, in: container, runtimes[0])
            try await runtimes[0].remove(container: container)
            try await runtimes[0].remove(pod)
        }

        @Test("somebody else's hosts.toml stays as it is, and remove takes away what install made")
        func foreign() throws {
            let cluster = try Cluster(nodes: 1, settings: Self.settings)
            let certs = hosts(cluster, 1)
            let file = certs + "/\(Cluster.registry)/hosts.toml"
            _ = try cluster.startContainerd(1, snapshotter: "overlayfs")
            let theirs = TemporaryDirectory.text(of: file)
            #expect(!theirs.isEmpty)
            #expect(throws: FixtureError.self) { try install(cluster, 1) }
            #expect(TemporaryDirectory.text(of: file) == theirs)
            let removed = { try cluster.exec(1, "mirror", "remove", "--certs-dir", certs) }
            #expect(try removed().contains("nothing is installed"))
            #expect(TemporaryDirectory.text(of: file) == theirs)
            try Command.run("rm", "-r", certs + "/\(Cluster.registry)")
            _ = try install(cluster, 1)
            #expect(TemporaryDirectory.text(of: file).contains("server = \"http://\(Cluster.registry)\""))
            #expect(try cluster.exec(1, "mirror", "status", "--certs-dir", certs).contains("installed"))
            #expect(try removed().contains("removed"))
            #expect(!Directory.exists(certs + "/\(Cluster.registry)"))
        }

        /// Runs what waits on a thread of its own.
        private static func off(_ body: @escaping @Sendable () -> Bool) async -> Bool {
            await withCheckedContinuation { continuation in
                do throws(SystemError) {
                    try Thread.start("test") { continuation.resume(returning: body()) }
                } catch { fatalError("no thread: \(error)") }
            }
        }
    }
}
