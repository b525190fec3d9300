import ContainerTestSupport
import ControlAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import TestSupport
import Testing

extension EndToEnd.Containers {
    /// A chunkd image on a node of its own whose containerd pulls and runs with chunkd's snapshotter.
    struct Lazy {
        let cluster: Cluster
        let image: ContainerImage
        let runtime: ContainerRuntime
        let pod: ContainerRuntime.Pod
        /// Snapshots when the image had not been pulled.
        let before: Set<String>

        init(megabytes: Int) async throws {
            cluster = try Cluster(nodes: 1, settings: ["snapshotter: {enabled: true}"])
            image = try cluster.makeContainerImage("app", megabytes: megabytes)
            runtime = try cluster.startContainerd(1, snapshotter: "chunkd")
            pod = try await runtime.runPod("pod")
            before = try cluster.snapshots(1, of: "chunkd")
        }

        func read(_ container: String, location: SourceLocation = #_sourceLocation) async throws {
            try await EndToEnd.Containers.expectFiles(of: image, in: container, runtime, location: location)
        }
        func write(_ container: String) async throws {
            try await EndToEnd.Containers.expectWrite(in: container, runtime)
        }
        func start(_ name: String) async throws -> String {
            let container = try await runtime.start(
                name, of: image.converted, in: pod, patience: .seconds(15))
            try cluster.expectGreeting(of: name)
            return container
        }
        /// Chunks' bytes that chunkd has from anywhere.
        func fetched() throws -> UInt64 { try cluster.stat(1).sources.reduce(0) { $0 + $1.bytes } }
    }

    @Suite("A chunkd image on chunkd's snapshotter")
    struct ChunkdImages {
        @Test("a pull downloads manifest and config, a container runs while chunks arrive, removal frees all")
        func lazily() async throws {
            let node = try await Lazy(megabytes: 24)
            let (cluster, runtime) = (node.cluster, node.runtime)
            let empty = try cluster.stored(1)
            try await runtime.pull(node.image.converted)
            let container = try await node.start("first")
            #expect(try node.fetched() < 8 << 20, "a shell was started, and most of the image fetched")

            // The registry's word for it: containerd took the config, and no layer.
            let manifest = try JSONDecoder().decode(
                Manifest.self, from: Data(try cluster.manifest(of: node.image.converted).utf8))
            let downloads = cluster.downloads(of: node.image.repository + "-chunkd")
            let byContainerd = Set(downloads.filter(\.isContainerd).map(\.name))
            let layers = Set(manifest.layers.map { "\($0.digest)" })
            #expect(byContainerd.contains("\(manifest.config.digest)"))
            #expect(byContainerd.isDisjoint(with: layers), "containerd downloaded layers")
            #expect(!layers.isDisjoint(with: downloads.filter { !$0.isContainerd }.map(\.name)))

            try await node.read(container)
            try await node.write(container)
            #expect(try node.fetched() > 24 << 20)
            // What it wrote is not in the image: another container has that as it was.
            let other = try await node.start("second")
            try await node.write(other)
            try await node.read(other)
            #expect(try cluster.stat(1).integrity.mismatches == 0)

            for id in [container, other] { try await runtime.remove(container: id) }
            try await runtime.removeImage(node.image.converted)
            try EndToEnd.Containers().expectOnly(node.before, cluster, "chunkd")
            let isUnmounted = try Wait.until(.seconds(20)) { try cluster.images(1).allSatisfy { !$0.mounted } }
            #expect(isUnmounted, "chunkd still has it mounted")
            try cluster.exec(1, "gc")
            #expect(try cluster.stored(1) < empty + 2 << 20)
            try await runtime.remove(node.pod)
        }

        @Test("ctr runs a container of an image that the CRI pulled")
        func ctr() async throws {
            let node = try await Lazy(megabytes: 4)
            try await node.runtime.pull(node.image.converted)
            let text = try node.cluster.ctr(
                1, "run", "--rm", "--net-host", "--snapshotter", "chunkd", node.image.converted, "chunkd-\(getpid())",
                "/bin/sh", "-c", "find /data -type f | sort | xargs sha256sum")
            #expect(text == node.image.sums)
        }

        @Test("an image is not unmounted under a container, which reads on after a restart of chunkd")
        func unmountUnderContainer() async throws {
            let node = try await Lazy(megabytes: 8)
            let (cluster, runtime) = (node.cluster, node.runtime)
            try await runtime.pull(node.image.converted)
            let container = try await node.start("first")
            try cluster.mount(1, node.image.converted)
            let refusal = #expect(throws: FixtureError.self) { try cluster.exec(1, "umount", cluster.path(1, "mnt")) }
            #expect(refusal?.description.contains("/\(container)") == true, "\(String(describing: refusal))")
            // Its mount is the gate's own, whoever asks: also without the directory.
            try Command.run("umount", cluster.path(1, "mnt"))
            let manifest = try #require(try cluster.images(1).first?.manifestDigest)
            let answer = try cluster.exec(
                1, "--", "curl", "-s", "--unix-socket", cluster.path(1, "run/control.sock"), "-d",
                #"{"manifestDigest":"\#(manifest)"}"#, "http://chunkd/v1/umounts")
            #expect(answer.contains(#""conflict""#) && answer.contains(container))
            try cluster.exec(1, "gc")
            #expect(try cluster.images(1).map(\.mounted) == [true])
            try cluster.scenario("restart", "1")
            try await node.read(container)

            // With the container gone nothing keeps it, once containerd has removed its snapshot.
            try await runtime.remove(container: container)
            try cluster.mount(1, node.image.converted)
            let isUnmounted = try Wait.until(.seconds(40)) {
                // containerd waits a while before it calls a snapshotter again that was away, and forgets the removals that
                // failed meanwhile until somebody removes another snapshot.
                guard cluster.removeAnotherSnapshot(1, of: "chunkd") else { return false }
                try cluster.collect(1)
                // Refused until then.
                return (try? cluster.exec(1, "umount", cluster.path(1, "mnt"))) != nil
            }
            let left = try cluster.snapshots(1, of: "chunkd")
            #expect(isUnmounted, "\(left)")
            #expect(try cluster.images(1).map(\.mounted) == [false])
            let other = try await node.start("second")
            try await node.read(other)
            try await runtime.remove(container: other)
            try await runtime.removeImage(node.image.converted)
            try EndToEnd.Containers().expectOnly(node.before, cluster, "chunkd")
            try await runtime.remove(node.pod)
        }

        /// What is ended and started again while a container runs.
        enum Restart: String, CaseIterable, Sendable {
            case containerd, chunkd, chunkdKilled, both
        }

        @Test(
            "containers run on over restarts, read what had not been fetched, and new ones start",
            arguments: Restart.allCases)
        func restarts(of what: Restart) async throws {
            let node = try await Lazy(megabytes: 8)
            let (cluster, runtime) = (node.cluster, node.runtime)
            try await runtime.pull(node.image.converted)
            let container = try await node.start("first")
            switch what {
            case .containerd: try cluster.restartContainerd(1, signal: "KILL")
            case .chunkd: try cluster.scenario("restart", "1")
            case .chunkdKilled:
                try cluster.scenario("kill", "1")
                // What is resident is read without it.
                let greeting = try await runtime.exec(container, "/bin/sh", "-c", "echo here")
                #expect(greeting == .init(status: 0, text: "here\n"))
                try cluster.scenario("restart", "1")
            case .both:
                try cluster.scenario("kill", "1")
                try cluster.restartContainerd(1, signal: "KILL")
                try cluster.scenario("restart", "1")
            }
            #expect(try await runtime.state(container).isRunning)
            try await node.read(container)
            try await node.write(container)
            // A containerd that starts while its snapshotter is away forgets its images; the kubelet pulls them again.
            if what == .both { try await runtime.pull(node.image.converted, patience: .seconds(15)) }
            let other = try await node.start("second")
            try await node.write(other)
            for id in [container, other] { try await runtime.remove(container: id) }
            try await runtime.removeImage(node.image.converted)
            try EndToEnd.Containers().expectOnly(node.before, cluster, "chunkd")
            try await runtime.remove(node.pod)
        }
    }
}
