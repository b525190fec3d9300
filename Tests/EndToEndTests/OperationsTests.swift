import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("What an operator does")
    struct Operations {
        @Test(
            "prefetch completes an image; damage on disk is found by verify, repaired on request; gc frees what is unused"
        )
        func lifeOfAnImage() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.plainTree("tree", [("a", 6_000_000), ("b", 70_000)])
            let reference = images.reference("operated")
            try node.build(tree, to: reference)

            let prefetched = try node.control(PrefetchReply.self, "prefetch", reference)
            #expect(prefetched.chunks > 0 && prefetched.filledChunks == prefetched.chunks)
            let complete = try Wait.until(.seconds(20)) { try node.stat().graduatedBlobs == 1 }
            #expect(complete, "a prefetched blob does not graduate")
            #expect(try node.control(VerifyReply.self, "verify", reference).badChunks == 0)

            let blobs = BytePath(node.stateDirectory + "/gate/blobs")
            let blob = try #require(try blobs.entries().first)
            try Files.flipBit(blobs.appending(blob).appending("data").description, at: 3_000_000)
            let found = try node.control(["verify", reference])
            #expect(found.status == 1 && found.errors.contains("1 chunks"), "\(found.text)\(found.errors)")
            let repaired = try node.control(VerifyReply.self, "verify", "--repair", reference)
            #expect(repaired.badChunks == 1 && repaired.repairedChunks == 1)
            #expect(try node.control(VerifyReply.self, "verify", reference).badChunks == 0)
            let mount = try node.mount(reference)
            try images.compare(tree, mount)

            #expect(try node.control(GarbageReply.self, "gc").removed.isEmpty, "a mounted image was removed")
            try node.unmount(mount)
            #expect(try node.control(PinReply.self, "pin", reference).pinned)
            #expect(try node.control(GarbageReply.self, "gc").removed.isEmpty, "a pinned image was removed")
            #expect(try node.control(ImagesReply.self, "images").images.map(\.pinned) == [true])
            #expect(try !node.control(PinReply.self, "unpin", reference).pinned)
            let planned = try node.control(GarbageReply.self, "gc", "--dry-run")
            #expect(planned.removed.count == 1 && planned.freedBytes > 6_000_000)
            #expect(try node.control(ImagesReply.self, "images").images.count == 1, "a dry run removed something")
            let collected = try node.control(GarbageReply.self, "gc")
            #expect(collected.removed.map(\.manifestDigest) == planned.removed.map(\.manifestDigest))
            #expect(collected.freedBytes == planned.freedBytes)
            #expect(try node.control(ImagesReply.self, "images").images.isEmpty)
            #expect(try blobs.entries().isEmpty, "the blob's files are still there")
            try node.expectHealthy()
        }

        @Test("metrics and probes answer, and say when the gate is away")
        func metrics() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.plainTree("tree", [("a", 1_000_000)])
            try node.build(tree, to: images.reference("measured"))
            try images.compare(tree, try node.mount(images.reference("measured")))
            let base = "http://127.0.0.1:\(node.metricsPort)"
            let text = try Command.run("curl", "-sf", base + "/metrics")
            let page = try PrometheusText(text)
            #expect(page.lint == [])
            // What Prometheus itself says of names, types and units, of chunkd's and of chunkgate's counts alike.
            #expect(text.contains("chunkd_gate_fills_total"))
            let file = try TemporaryDirectory(prefix: "chunkd-metrics")
            let path = file.path + "/page"
            try File(path: path, flags: O_WRONLY | O_CREAT).writeAll(Array(text.utf8), at: 0)
            try Command.run("sh", "-c", "exec promtool check metrics <'\(path)'")
            #expect(page.families.count > 30)
            let fetched = text.split(separator: "\n").first { $0.hasPrefix("chunkd_fetched_chunks_total{") }
            #expect(fetched?.hasSuffix(" 0") == false, "\(fetched ?? "no chunkd_fetched_chunks_total")")
            #expect(text.contains("chunkd_gate_connected 1"))
            #expect(text.contains("chunkd_gate_self_events_total 0"))
            for probe in ["/livez", "/readyz"] { try Command.run("curl", "-sf", base + probe) }
            try node.expectHealthy()
        }

        @Test("what cannot work says what, where and what to do, and ends with the documented status")
        func errors() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let missing = try node.control(["mount", images.reference("no-such-image"), node.scratch.path])
            #expect(missing.status == 1 && missing.errors.contains("no-such-image"), "\(missing.errors)")
            let unnamed = try node.control(["mount", "no-registry", node.scratch.path])
            #expect(unnamed.status != 0 && unnamed.errors.contains("registry"), "\(unnamed.errors)")
            #expect(try node.control(["no-such-command"]).status == 2)

            try Command.run("sh", "-c", "echo 'hydrate: {rat: 1}' >>\(node.configFile)")
            let misspelt = try node.control(["stat"])
            #expect(misspelt.status == 2 && misspelt.errors.contains("hydrate"), "\(misspelt.errors)")
        }

        @Test("doctor finds nothing wrong on a node that works")
        func doctor() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let output = try node.control(["doctor"])
            #expect(output.status == 0, "\(output.text)\(output.errors)")
            for word in ["kernel", "fanotify", "EROFS"] {
                #expect(output.text.lowercased().contains(word.lowercased()), "no check of \(word)")
            }
        }
    }
}
