import ControlAPI
import Glibc
import TestSupport
import Testing

extension EndToEnd {
    @Suite("Several nodes, each in a network namespace of its own")
    struct ClusterOfNodes {
        @Test(
            "nodes that mount at once take the image from the registry once, and a later one takes it from them alone")
        func together() throws {
            let cluster = try Cluster(nodes: 4)
            let image = try cluster.build(megabytes: 48)
            let readers = try (1...3).map { try cluster.mountAndRead($0, image) }
            for (number, reader) in readers.enumerated() {
                #expect(reader.wait(atMost: .seconds(90)) == 0, "node \(number + 1) read something else: \(reader.log)")
            }
            let stats = try (1...3).map { try cluster.stat($0) }
            let fromRegistry = stats.reduce(0) { $0 + $1.bytes(from: "registry") }
            let fromPeers = stats.reduce(0) { $0 + $1.bytes(from: "peer") }
            // A hedge or two more than once; three times without peers.
            #expect(fromRegistry < 48_000_000 * 3 / 2, "\(fromRegistry) bytes from the registry")
            #expect(fromPeers > 48_000_000, "\(fromPeers) bytes from peers")
            for stat in stats {
                #expect(stat.integrity.mismatches == 0 && stat.reads.denied == 0 && !stat.integrity.integrityGap)
            }

            // The manifest comes from the registry, everything else from peers, since it is nowhere else.
            try cluster.removeBlobs()
            try cluster.mount(4, image)
            let late = try cluster.read(4)
            #expect(late.wait(atMost: .seconds(90)) == 0, "\(late.log)")
            let stat = try cluster.stat(4)
            #expect(stat.bytes(from: "peer") > 48_000_000)
            #expect(stat.bytes(from: "registry") == 0)
            #expect(stat.reads.denied == 0)

            let peers = try cluster.peers(4)
            #expect(peers.node == "node-4" && peers.peers.count == 4)
            #expect(peers.peers.filter { $0.state == "alive" }.count == 3)
            #expect(peers.peers.reduce(0) { $0 + $1.receivedBytes } > 48_000_000)
            #expect(stat.offloadRatio == 1 && stat.indexBlobs == 1)
            #expect(try cluster.metric(4, "chunkd_image_part_bytes_total", ["source": "registry"]) == 0)

            let explained = try #require(try cluster.explain(4, image).blobs.first)
            #expect(explained.interestedNodes == 3 && explained.holders.allSatisfy { $0.state == "complete" })
            #expect(explained.sources.first?.source == "disk")
            #expect(explained.sources.last?.source == "registry/10.77.0.2:5000")

            // A node that leaves gives nothing any more, and is no mystery to the others.
            let drained = try cluster.drain(1)
            #expect(drained.announced && drained.images == 1 && drained.missingChunks == 0)
            let hasLeft = try Wait.until(.seconds(20)) { try cluster.peer(1, of: 4)?.state == "left" }
            #expect(hasLeft)
            let again = try cluster.read(1)
            #expect(again.wait(atMost: .seconds(30)) == 0, "\(again.log)")
        }

        @Test(
            "a node that is killed is seen to die, its readers' chunks come from others, and it comes back under its name"
        )
        func death() throws {
            let cluster = try Cluster(nodes: 3)
            let image = try cluster.build(megabytes: 16)
            let first = try cluster.mountAndRead(1, image)
            #expect(first.wait(atMost: .seconds(60)) == 0)
            try cluster.scenario("kill", "1")
            let second = try cluster.mountAndRead(2, image)
            #expect(second.wait(atMost: .seconds(90)) == 0, "\(second.log)")
            #expect(try cluster.stat(2).reads.denied == 0)
            let isSeen = try Wait.until(.seconds(60)) {
                try cluster.peers(2).peers.contains { $0.name == "node-1" && ["dead", "suspect"].contains($0.state) }
            }
            #expect(isSeen, "node 1 is still taken to be alive")
            try cluster.scenario("restart", "1")
            let isBack = try Wait.until(.seconds(60)) {
                try cluster.peers(2).peers.contains { $0.name == "node-1" && $0.state == "alive" }
            }
            #expect(isBack, "node 1 does not come back")
        }

        @Test("a miss is one trace over the nodes it went through, with what each of them did")
        func traces() throws {
            // Without reading ahead, so that every chunk is one that a reader waits for. Fifteen segments: that node 2 is the
            // top of all of them is one case in 32,768 files, and no two runs have the same.
            let cluster = try Cluster(nodes: 2, settings: ["readAhead: {windowMax: 0}"])
            let image = try cluster.build(megabytes: 120)
            // Node 1 is there and reads nothing: it fetches what the rendezvous leaves to it when node 2 asks.
            try cluster.mount(1, image)
            let reader = try cluster.mountAndRead(2, image)
            #expect(reader.wait(atMost: .seconds(90)) == 0, "\(reader.log)")
            let (above, below) = (try cluster.spans(1), try cluster.spans(2))
            #expect(above.node == "node-1" && below.node == "node-2")
            #expect(!above.traces.flatMap(\.spans).contains { $0.name == .miss }, "nobody read on node 1")

            let asked = Dictionary(grouping: below.traces, by: \.traceId)
            var relayed = 0
            var served = 0
            for trace in above.traces {
                let asks = (asked[trace.traceId] ?? []).flatMap(\.spans).filter { $0.name == .ask }
                for span in trace.spans where span.name == .serve {
                    #expect(span.attributes["chunkd.peer"] == .text("node-2"))
                    // The asking span may be of a trace that node 2 had to let go.
                    guard let ask = asks.first(where: { $0.spanId == span.parentSpanId }) else { continue }
                    #expect(ask.attributes["chunkd.source"] == .text("peer/node-1"))
                    served += 1
                    let relays = trace.spans.filter { $0.name == .relay && $0.parentSpanId == span.spanId }
                    let sources = trace.spans.filter { part in
                        part.name == .ask && relays.contains { $0.spanId == part.parentSpanId }
                            && part.attributes["chunkd.source"] == .text("registry/10.77.0.2:5000")
                    }
                    if !sources.isEmpty { relayed += 1 }
                }
            }
            #expect(served > 0, "no request of node 2 is seen by node 1")
            #expect(relayed > 0, "node 1 fetched nothing for node 2 within its traces")
            for node in [1, 2] { #expect(try cluster.metric(node, "chunkd_trace_contexts_ignored_total") == 0) }

            // As the manual says that the documents of several nodes are merged.
            let id = try #require(above.traces.last { asked[$0.traceId] != nil }).traceId
            let files = try (1...2).map { node in
                let file = cluster.scratch.appending("node-\(node).json")
                try cluster.exec(node, "spans", "--trace", "\(id)", "-o", "otlp", "--file", file)
                return file
            }
            let merged = try Command("jq", ["-s", "{resourceSpans: map(.resourceSpans[])}"] + files).require()
            #expect(merged.contains("node-1") && merged.contains("node-2"))
        }

        @Test("a cluster left behind by a process that was killed is taken down by the next `up`")
        func leftBehind() throws {
            let owner = try ProcessFixture(["sleep", "600"], logFile: "/dev/null")
            let first = try Cluster(nodes: 1, owner: owner.pid)
            let agent = try first.agentPid(1)
            owner.stop()
            let second = try Cluster(nodes: 1)
            #expect(ProcessFixture.hasEnded(agent), "chunkd of the first cluster still runs")
            #expect(try second.stat(1).gateConnected)
        }
    }
}
