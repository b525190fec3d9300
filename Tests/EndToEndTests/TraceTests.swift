import ControlAPI
import FoundationEssentials
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("Access traces")
    struct Traces {
        /// What the tests look at of `chunkctl trace show -o json`.
        private struct Shown: Decodable {
            var chunks: UInt64
            var imageChunks: UInt64
        }

        private func counter(_ node: Node, _ series: String) throws -> String? {
            let page = try Command.run("curl", "-sf", "http://127.0.0.1:\(node.metricsPort)/metrics")
            return page.split(separator: "\n").first { $0.hasPrefix(series + " ") }.map {
                String($0.dropFirst(series.count + 1))
            }
        }

        @Test(
            "recorded from a reading order, attached, and at the next mount its chunks come without a reader, and no others"
        )
        func roundTrip() throws {
            let images = try Images()
            var options = Node.Options()
            options.replaysTraces = true
            let node = try Node([images.registry], options)
            let tree = try images.plainTree("tree", [("first", 3 << 20), ("second", 5 << 20), ("unread", 24 << 20)])
            let reference = images.reference("traced")
            try node.build(tree, to: reference)

            // The image is not on the node when the recording begins.
            let (file, target) = (node.scratch.appending("app.trace"), try node.scratch.makeDirectory("recorded"))
            let chunkctl = "\(Programs.path("chunkctl")) mount --config \(node.configFile) \(reference) \(target)"
            let recorded = try node.control(
                ["trace", "record", reference, "--file", file],
                running: ["/bin/sh", "-c", "\(chunkctl) && cat \(target)/second \(target)/first | wc -c"])
            #expect(recorded.status == 0 && recorded.text.contains("8388608"), "\(recorded.text)\(recorded.errors)")
            let trace = try node.control(Shown.self, "trace", "show", file)
            let before = try #require(try node.stat().images.first)
            #expect(trace.chunks == before.residentChunks && trace.imageChunks == before.chunks)
            #expect(trace.chunks >= 8 && trace.chunks < before.chunks / 2, "\(trace.chunks) of \(before.chunks)")
            try node.unmount(target)
            #expect(try node.control(GarbageReply.self, "gc").removed.count == 1)

            let attached = try node.control(["trace", "attach", reference, file])
            #expect(attached.status == 0 && attached.text.contains("under the tag sha256-"), "\(attached.errors)")
            #expect(try node.control(Shown.self, "trace", "show", reference).chunks == trace.chunks)

            let fetched = try node.registryChunks()
            let mount = try node.mount(reference)
            let series = #"chunkd_trace_replays_total{outcome="replayed"}"#
            #expect(try Wait.until(.seconds(20)) { try counter(node, series) == "1" }, "no trace was replayed")
            let after = try #require(try node.stat().images.first)
            #expect(
                after.residentChunks == trace.chunks, "nobody has read, and the trace's chunks alone are to be here")
            #expect(try node.registryChunks() - fetched == trace.chunks)
            #expect(try counter(node, "chunkd_trace_chunks_total") == "\(trace.chunks)")
            for name in ["second", "first"] { #expect(Files.areEqual("\(tree)/\(name)", "\(mount)/\(name)")) }
            #expect(try node.registryChunks() - fetched == trace.chunks, "a read had to wait for a chunk of the trace")
            #expect(try node.stat().reads.denied == 0)

            // A new chunkd finds the mount and lets it be.
            try node.stopAgent()
            try node.startAgent()
            try images.compare(tree, mount)
            #expect(try counter(node, series) == "0")
            let complete = try node.control(["trace", "record", reference, "--for", "1s"])
            #expect(
                complete.status == 1 && complete.errors.contains("chunkctl gc"), "\(complete.text)\(complete.errors)")
            try node.expectHealthy()
        }
    }
}
