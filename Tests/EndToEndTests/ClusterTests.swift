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

        @Test("a cluster left behind by a process that was killed is taken down by the next `up`")
        func leftBehind() throws {
            let owner = try ProcessFixture(["sleep", "600"], logFile: "/dev/null")
            let first = try Cluster(nodes: 1, owner: owner.pid)
            let agent = try first.agentPid(1)
            owner.stop()
            let second = try Cluster(nodes: 1)
            #expect(kill(agent, 0) == -1 && errno == ESRCH, "chunkd of the first cluster still runs")
            #expect(try second.stat(1).gateConnected)
        }
    }
}
