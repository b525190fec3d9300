import ContainerTestSupport
import ControlAPI
import Glibc
import TestSupport
import Testing

extension EndToEnd {
    @Suite("containerd and runc run containers")
    struct Containers {
        static let snapshotters = ["overlayfs", "chunkd"]

        /// Reads all files of a container, as its image's layers make them.
        static func expectFiles(
            of image: ContainerImage, in container: String, _ runtime: ContainerRuntime,
            location: SourceLocation = #_sourceLocation
        ) async throws {
            let found = try await runtime.exec(
                container, "/bin/sh", "-c", "find /data -type f | sort | xargs sha256sum")
            #expect(found == .init(status: 0, text: image.sums), sourceLocation: location)
        }

        /// Writes to a file of the image, as the user of its config.
        static func expectWrite(in container: String, _ runtime: ContainerRuntime) async throws {
            let found = try await runtime.exec(
                container, "/bin/sh", "-c", "echo more >>/home/app/note && cat /home/app/note && id -u")
            #expect(found == .init(status: 0, text: "note\nmore\n1234\n"))
        }

        /// Waits until a snapshotter has no other snapshots: containerd removes what nothing refers to any more in its
        /// own time.
        func expectOnly(_ expected: Set<String>, _ cluster: Cluster, _ snapshotter: String) throws {
            var found: Set<String> = []
            let isClean = try Wait.until(.seconds(20)) {
                found = try cluster.snapshots(1, of: snapshotter)
                return found == expected
            }
            #expect(isClean, "left over: \(found.subtracting(expected)), lost: \(expected.subtracting(found))")
        }

        /// A cluster of one node whose chunkd serves snapshots when it is to be asked for any.
        func node(_ snapshotter: String) throws -> Cluster {
            try Cluster(nodes: 1, settings: snapshotter == "chunkd" ? ["snapshotter: {enabled: true}"] : [])
        }

        @Test(
            "an ordinary image is pulled, run, read, written to and removed, and its space is free again",
            arguments: snapshotters)
        func ordinary(snapshotter: String) async throws {
            let cluster = try node(snapshotter)
            let image = try cluster.makeContainerImage("app", megabytes: 16)
            let runtime = try cluster.startContainerd(1, snapshotter: snapshotter)
            #expect(try await runtime.isReady())
            let pod = try await runtime.runPod("pod")
            let before = try cluster.snapshots(1, of: snapshotter)
            let used = try cluster.stored(1)
            try await runtime.pull(image.ordinary)
            let container = try await runtime.start("first", of: image.ordinary, in: pod)
            try cluster.expectGreeting(of: "first")
            try await Self.expectFiles(of: image, in: container, runtime)
            try await Self.expectWrite(in: container, runtime)
            #expect(try cluster.stored(1) > used + 16 << 20)

            // What it wrote is its own.
            let other = try await runtime.start("second", of: image.ordinary, in: pod)
            try await Self.expectWrite(in: other, runtime)
            for id in [container, other] { try await runtime.remove(container: id) }
            try await runtime.removeImage(image.ordinary)
            #expect(try await runtime.imageNames().contains(image.ordinary) == false)
            try expectOnly(before, cluster, snapshotter)
            #expect(try cluster.stored(1) < used + 1 << 20)
            try await runtime.remove(pod)
        }

        @Test("snapshots are prepared, written, committed, described and removed", arguments: snapshotters)
        func snapshots(snapshotter: String) throws {
            let cluster = try node(snapshotter)
            _ = try cluster.startContainerd(1, snapshotter: "overlayfs")
            func ask(_ arguments: String...) throws -> String {
                try cluster.ctr(1, arguments: ["snapshots", "--snapshotter", snapshotter] + arguments)
            }
            let target = try cluster.scratch.makeDirectory("mounted")
            /// Mounts a snapshot as containerd says, and runs a shell command on it.
            func on(_ key: String, _ command: String) throws -> String {
                try Command.run("sh", "-ec", ask("mounts", target, key))
                defer { ScratchDirectory.unmountAll(beneath: target) }
                return try Command.run("sh", "-ec", "cd \(target); \(command)")
            }
            _ = try ask("prepare", "active")
            _ = try on("active", "head -c 5M /dev/urandom >file; mkdir folder; echo first >folder/note")
            _ = try ask("commit", "committed", "active")
            _ = try ask("prepare", "child", "committed")
            #expect(
                try on("child", "cat folder/note; echo second >folder/note; rm file; ls -a") == "first\n.\n..\nfolder\n"
            )
            _ = try ask("view", "view", "committed")
            // As `ctr` does it for the others: without, containerd collects it whenever it likes.
            _ = try ask("label", "view", "containerd.io/gc.root=test")
            #expect(try on("view", "cat folder/note; stat -c %s file") == "first\n5242880\n")
            #expect(throws: FixtureError.self, "a view can be written to") { try on("view", "echo third >folder/note") }

            let words = try ask("usage", "-b", "committed").split(whereSeparator: \.isWhitespace)
            let size = try #require(words.count == 6 ? UInt64(words[4]) : nil, "usage said \(words)")
            #expect((5 << 20..<6 << 20).contains(size))
            _ = try ask("label", "committed", "color=green")
            let info = try ask("info", "committed")
            #expect(info.contains("\"color\": \"green\"") && info.contains("\"Kind\": \"Committed\""))
            #expect(try ask("info", "child").contains("\"Parent\": \"committed\""))
            #expect(try cluster.snapshots(1, of: snapshotter) == ["committed", "child", "view"])

            #expect(throws: FixtureError.self, "a parent was removed") { try ask("rm", "committed") }
            #expect(throws: FixtureError.self, "a name was given twice") { try ask("prepare", "child", "committed") }
            #expect(throws: FixtureError.self, "there is no such parent") { try ask("prepare", "other", "nobody") }
            _ = try ask("rm", "child", "view", "committed")
            #expect(try cluster.snapshots(1, of: snapshotter) == [])
        }

        @Test("containers run on when containerd ends, is killed and comes back", arguments: snapshotters)
        func containerdRestarts(snapshotter: String) async throws {
            let cluster = try node(snapshotter)
            let image = try cluster.makeContainerImage("app", megabytes: 4)
            let runtime = try cluster.startContainerd(1, snapshotter: snapshotter)
            let pod = try await runtime.runPod("pod")
            let before = try cluster.snapshots(1, of: snapshotter)
            try await runtime.pull(image.ordinary)
            let container = try await runtime.start("first", of: image.ordinary, in: pod)
            try await Self.expectWrite(in: container, runtime)
            for signal in ["TERM", "KILL"] {
                try cluster.restartContainerd(1, signal: signal)
                #expect(try await runtime.state(container).isRunning, "after SIG\(signal)")
                try await Self.expectFiles(of: image, in: container, runtime)
                let other = try await runtime.start("after-\(signal)", of: image.ordinary, in: pod)
                try await Self.expectWrite(in: other, runtime)
                try await runtime.remove(container: other)
            }
            try await runtime.remove(container: container)
            try await runtime.removeImage(image.ordinary)
            try expectOnly(before, cluster, snapshotter)
            try await runtime.remove(pod)
        }
    }
}
