import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("A disk that loses what it was given")
    struct DiskLoss {
        @Test("what a failed sync lost is fetched again, on demand and by prefetch, without a restart")
        func failedSync() throws {
            let images = try Images()
            let disk = try FaultyDisk(.ext4, size: 128 << 20, journal: .onHealthyDisk)
            defer { disk.remove() }
            var options = Node.Options()
            options.stateParent = disk.path
            options.settings = ["readAhead: {windowMax: 0}"]
            do {
                let node = try Node([images.registry], options)
                let tree = try images.plainTree("tree", [("a", 4 << 20), ("b", 4 << 20), ("c", 4 << 20)])
                let reference = images.reference("lost")
                try node.build(tree, to: reference)
                let mount = try node.mount(reference)
                #expect(Files.areEqual(tree + "/a", mount + "/a"))
                let before = try node.registryChunks()
                #expect(try Wait.until(.seconds(10)) { try node.durableChunks() == before })

                try disk.fail([.write])
                // The page cache takes it; the next sync finds out.
                #expect(Files.areEqual(tree + "/b", mount + "/b"))
                #expect(try Wait.until(.seconds(10)) { try syncErrors(node) > 0 })
                #expect(try node.durableChunks() == before)
                #expect(Files.areEqual(tree + "/a", mount + "/a"))

                try disk.fail([])
                // What a reader asks for first, and what nobody asks for.
                let recovered = Wait.until(.seconds(20)) { Files.areEqual(tree + "/c", mount + "/c") }
                #expect(recovered, "no recovery")
                let prefetched = try node.control(PrefetchReply.self, "prefetch", reference)
                let complete = try Wait.until(.seconds(20)) { try node.stat().graduatedBlobs == 1 }
                #expect(complete, "\(prefetched.filledChunks) chunks fetched, and yet some are missing")
                try Files.dropCaches()
                try images.compare(tree, mount)
                try node.unmount(mount)
                try node.expectHealthy()
            }
        }

        private func syncErrors(_ node: Node) throws -> Double {
            let text = try Command.run("curl", "-sf", "http://127.0.0.1:\(node.metricsPort)/metrics")
            return try PrometheusText(text).families.first { $0.name == "chunkd_gate_sync_errors_total" }?
                .samples.first?.value ?? 0
        }
    }
}
