import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("Several nodes, and what happens to networks, certificates, disks and processes")
    struct ClusterScenarios {
        @Test("a partition: right bytes or EIO within the deadline on both sides; healed, all see and serve each other")
        func partition() throws {
            // Nothing is fetched but what is read: so the side without the registry has a known half of the image. Two nodes
            // that are gone may be the first to be asked, up to 3 s each: the peers' part of this deadline is 6 s.
            let deadline = 12
            let cluster = try Cluster(
                nodes: 4, settings: ["gate: {deadline: \(deadline)s}", "readAhead: {windowMax: 0}"])
            let image = try cluster.build(megabytes: 24)
            for node in 1...4 { try cluster.mount(node, image) }
            // Node 4 may have fetched it all for node 3, and then lacks only what neither has: so it is asked of a chunk.
            // The one after all that is asked of node 3 below; a sixteenth and more behind it, so that it is announced.
            try cluster.read(3, megabytes: 0..<12).expectSuccess(.seconds(20))
            let edge = try #require(try cluster.explain(3, image).blobs.first?.chunkDigest)
            try cluster.read(3, megabytes: 12..<15).expectSuccess(.seconds(20))
            let knows = try Wait.until(.seconds(30)) {
                let holders = try cluster.explain(4, "\(edge)").blobs.first?.holders ?? []
                return holders.contains { $0.node == "node-3" && $0.likelihood == 1 }
            }
            #expect(knows, "node 4 does not hear what node 3 has")
            try cluster.scenario("partition", "1,2,registry", "3,4")

            // One side has the registry, the other what one of its nodes has.
            let whole = try (1...2).map { try cluster.read($0) }
            let before = try cluster.stat(4).bytes(from: "registry")
            let half = try cluster.read(4, megabytes: 0..<12)
            let halfEnded = half.wait(atMost: .seconds(20))
            let story = try cluster.story(4, unless: halfEnded == 0)
            #expect(halfEnded == 0, "\(half.log)\(story)")
            #expect(try cluster.stat(4).bytes(from: "registry") == before)
            for reader in whole { #expect(reader.wait(atMost: .seconds(20)) == 0, "\(reader.log)") }
            // Far from where node 3 stopped, whose kernel had read on. A read that fails asks twice: for the window that
            // would be read ahead, then for the one page.
            let other = try cluster.read(4, megabytes: 18..<24)
            #expect(other.wait(atMost: .seconds(2 * deadline + 4)) == 2, "\(other.log)")
            #expect(try cluster.stat(4).reads.denied > 0)
            for node in 1...3 {
                let denied = try cluster.stat(node).reads.denied
                let story = try cluster.story(node, unless: denied == 0)
                #expect(denied == 0, "\(story)")
            }
            let isSeen = try Wait.until(.seconds(25)) {
                try cluster.peer(3, of: 1)?.state == "dead" && cluster.peer(1, of: 4)?.state == "dead"
            }
            #expect(isSeen, "the sides do not take each other to be dead")

            try cluster.scenario("partition", "off")
            let isWhole = try Wait.until(.seconds(30)) { try cluster.seeEachOther([1, 2, 3, 4]) }
            #expect(isWhole, "not all see all again")
            // What the other side has counts again, too.
            let counts = try Wait.until(.seconds(10)) { try cluster.peer(1, of: 4)?.completeBlobs == 1 }
            #expect(counts, "what node 1 has is not known to node 4")
            for reader in try (3...4).map({ try cluster.read($0) }) {
                #expect(reader.wait(atMost: .seconds(20)) == 0, "\(reader.log)")
            }
            for node in 1...4 { #expect(try cluster.stat(node).integrity.mismatches == 0) }
        }

        @Test("with 30 % loss between nodes an image is read rightly by all, and nobody gets EIO")
        func loss() throws {
            // A reader's chunk is left to peers for ten seconds at most, and few connections get one through this: so few
            // chunks.
            let cluster = try Cluster(nodes: 3)
            let image = try cluster.build(megabytes: 3)
            try cluster.scenario("loss", "all", "all", "30")
            let readers = try (1...3).map { try cluster.mountAndRead($0, image) }
            for (number, reader) in readers.enumerated() {
                #expect(reader.wait(atMost: .seconds(40)) == 0, "node \(number + 1): \(reader.log)")
            }
            for node in 1...3 { #expect(try cluster.stat(node).reads.denied == 0) }
            try cluster.scenario("loss", "off")
            let isWhole = try Wait.until(.seconds(30)) { try cluster.seeEachOther([1, 2, 3]) }
            #expect(isWhole, "not all see all when nothing is lost any more")
        }

        @Test("a node on the deny list and one of another authority are refused, each with its reason; others go on")
        func refusals() throws {
            let cluster = try Cluster(nodes: 4)
            let image = try cluster.build(megabytes: 8)
            // Node 4 believes everybody; nobody else knows its authority.
            let stranger = try cluster.makeAuthority("stranger")
            try cluster.replace(4, "ca.crt", with: cluster.bundle(cluster.authority) + cluster.bundle(stranger))
            try cluster.issue(4, by: stranger, days: 30)
            for node in 1...2 { try cluster.replace(node, "denied", with: "node-3  # lost\n") }
            for (node, reason) in [(1, "denied"), (2, "denied"), (1, "unknown_authority"), (2, "unknown_authority")] {
                let isCounted = try Wait.until(.seconds(30)) {
                    try cluster.metric(node, "chunkd_peer_refusals_total", ["reason": reason]) > 0
                }
                #expect(isCounted, "node \(node) has refused nobody for \(reason)")
            }

            for node in [1, 3, 4] { try cluster.mountAndRead(node, image).expectSuccess(.seconds(30)) }
            // Without the registry's blobs nothing can come from there instead, however slow a peer is just now.
            try cluster.removeBlobs()
            try cluster.mountAndRead(2, image).expectSuccess(.seconds(30))
            #expect(try cluster.stat(2).bytes(from: "peer") > 7_000_000)
            // A busy machine may have a node suspected; it says that it lives.
            let goesOn = try Wait.until(.seconds(10)) { try cluster.peer(1, of: 2)?.state == "alive" }
            #expect(goesOn, "node 1 is dead to node 2")
            // They have what they read from the registry: nobody gave them a byte.
            for node in [3, 4] { #expect(try cluster.stat(node).bytes(from: "peer") == 0) }
            let toSecond = try #require(try cluster.peer(2, of: 1)).sentBytes
            #expect(try cluster.metric(1, "chunkd_peer_sent_bytes_total") == Double(toSecond))
        }

        @Test("certificates, then the authority, are replaced without a restart, and chunks go on coming from peers")
        func rotation() throws {
            let cluster = try Cluster(nodes: 3, settings: ["readAhead: {windowMax: 0}"])
            let image = try cluster.build(megabytes: 16)
            try cluster.mountAndRead(1, image).expectSuccess(.seconds(20))
            try cluster.mount(2, image)
            try cluster.scenario("stop-registry")
            let pids = try (1...3).map { try cluster.agentPid($0) }
            let (old, new) = (cluster.authority, try cluster.makeAuthority("new"))
            let both = cluster.bundle(old) + cluster.bundle(new)

            // As an authority is replaced: first all believe both, then all have certificates of the new one, then
            // nobody believes the old one. The days tell which certificate is in use.
            let steps = [(both, old), (both, new), (cluster.bundle(new), new)]
            for (step, (bundle, authority)) in steps.enumerated() {
                let days = 30 + step
                for node in 1...3 {
                    try cluster.replace(node, "ca.crt", with: bundle)
                    try cluster.issue(node, by: authority, days: days)
                }
                let isInUse = try Wait.until(.seconds(20)) {
                    try (1...3).allSatisfy { node in
                        let end = try cluster.peers(node).certificateExpiresUnixSeconds ?? 0
                        return abs(end - Int64(time(nil)) - Int64(days) * 86_400) < 3600
                    }
                }
                #expect(isInUse, "certificates of step \(step) are not taken over")
                try cluster.read(2, megabytes: (5 * step)..<(5 * step + 5)).expectSuccess(.seconds(20))
                #expect(try cluster.stat(2).bytes(from: "peer") > UInt64(4_500_000 * (step + 1)))
            }
            let pidsNow = try (1...3).map { try cluster.agentPid($0) }
            #expect(pidsNow == pids, "a node was restarted")
            for node in 1...2 {
                #expect(try cluster.stat(node).reads.denied == 0)
                let refusals = try cluster.samples(node, "chunkd_peer_refusals_total").filter { $0.value > 0 }
                #expect(refusals.isEmpty, "node \(node) refused somebody")
            }
            // A newcomer knows the new authority only: what all say of themselves must be signed by it by now.
            try cluster.scenario("kill", "3")
            try cluster.scenario("restart", "3")
            let isKnown = try Wait.until(.seconds(20)) { try cluster.seeEachOther([1, 2, 3]) }
            #expect(isKnown, "the newcomer does not see all")
        }

        @Test("a peer whose disk is damaged: right bytes, it is quarantined with the reason, told, and heals itself")
        func lyingPeer() throws {
            let cluster = try Cluster(nodes: 2)
            let image = try cluster.build(megabytes: 16)
            try cluster.mountAndRead(1, image).expectSuccess(.seconds(20))
            let blobs = try cluster.stat(1).images.flatMap(\.blobs)
            let blob = try #require(blobs.max { $0.rawBytes < $1.rawBytes })
            let data = try Command.run(
                "find", cluster.path(1, "state/gate/blobs"), "-name", "data", "-size", "+8M")
            let file = try File(path: String(data.prefix { $0 != "\n" }), flags: O_RDWR)
            try [UInt8](repeating: 0xA5, count: 4096).withUnsafeBytes { try file.writeAll($0, at: blob.rawBytes / 2) }
            #expect(try cluster.verify(1, image).badChunks == 1)
            let knows = try Wait.until(.seconds(30)) { try cluster.peer(1, of: 2)?.completeBlobs == 1 }
            #expect(knows, "node 2 does not hear what node 1 has")

            // For a reader the registry may be asked as well, and be quicker; for a prefetch it is not.
            try cluster.mount(2, image)
            try cluster.exec(2, "prefetch", image)
            try cluster.read(2).expectSuccess(.seconds(20))
            let stat = try cluster.stat(2)
            #expect(stat.integrity.mismatches == 1 && stat.reads.denied == 0)
            #expect(stat.bytes(from: "peer") > 0)
            let liar = try #require(try cluster.peer(1, of: 2))
            #expect(liar.quarantine == "wrong_bytes" && liar.state == "alive")
            #expect(try #require(liar.quarantineSeconds) > 500)
            #expect(try cluster.metric(2, "chunkd_peer_quarantines_total", ["reason": "wrong_bytes"]) == 1)

            let isTold = try Wait.until(.seconds(10)) { try cluster.metric(1, "chunkd_peer_complaints_total") == 1 }
            #expect(isTold, "the damaged node has not heard of it")
            let isHealed = try Wait.until(.seconds(20)) { try cluster.verify(1, image).badChunks == 0 }
            #expect(isHealed, "the damaged node does not heal")
            try Files.dropCaches()
            try cluster.read(1).expectSuccess(.seconds(20))
        }

        @Test("all nodes killed and started at once find each other again, and nothing is fetched twice")
        func massRestart() throws {
            let cluster = try Cluster(nodes: 4)
            let image = try cluster.build(megabytes: 16)
            for node in 1...4 { try cluster.mount(node, image) }
            for reader in try (1...4).map({ try cluster.read($0, megabytes: 0..<8) }) {
                try reader.expectSuccess(.seconds(30))
            }
            try cluster.scenario("kill", "all")
            try cluster.scenario("restart", "all")
            let isWhole = try Wait.until(.seconds(15)) { try cluster.seeEachOther([1, 2, 3, 4]) }
            #expect(isWhole, "not all see all again")
            try Files.dropCaches()
            for reader in try (1...4).map({ try cluster.read($0, megabytes: 0..<7) }) {
                try reader.expectSuccess(.seconds(20))
            }
            for node in 1...4 {
                let stat = try cluster.stat(node)
                #expect(stat.reads.denied == 0 && !stat.integrity.integrityGap)
                #expect(stat.bytesFetched == 0, "node \(node) has fetched \(stat.bytesFetched) bytes again")
            }
        }

        @Test("a node gives what it had before its chunkd was restarted, the parts of the image included")
        func restarted() throws {
            let cluster = try Cluster(nodes: 2)
            let image = try cluster.build(megabytes: 8)
            try cluster.mountAndRead(1, image).expectSuccess(.seconds(20))
            try cluster.scenario("restart", "1")
            let knows = try Wait.until(.seconds(30)) { try cluster.peer(1, of: 2)?.completeBlobs == 1 }
            #expect(knows, "node 2 does not hear what node 1 has")
            try cluster.removeBlobs()
            try cluster.mountAndRead(2, image).expectSuccess(.seconds(30))
            #expect(try cluster.stat(2).bytes(from: "registry") == 0)
            #expect(try cluster.metric(2, "chunkd_image_part_bytes_total", ["source": "registry"]) == 0)
        }

        @Test("a part of an image that has rotted is not given, or refused: the mount has right bytes from elsewhere")
        func rottenParts() throws {
            let cluster = try Cluster(nodes: 3)
            let image = try cluster.build(megabytes: 8)
            try cluster.mountAndRead(1, image).expectSuccess(.seconds(20))
            func part(_ node: Int, _ source: String) throws -> Double {
                try cluster.metric(node, "chunkd_image_part_bytes_total", ["source": source])
            }

            let isKnown = try Wait.until(.seconds(30)) { try cluster.peer(1, of: 2)?.completeBlobs == 1 }
            #expect(isKnown, "node 2 does not hear what node 1 has")

            // What chunkd keeps itself it checks before it gives it: nobody has a reason to distrust the node.
            try cluster.spoil(1, "state/agent/content/*.index")
            try cluster.mountAndRead(2, image).expectSuccess(.seconds(30))
            #expect(try part(2, "registry") > 0, "the index is the registry's")
            #expect(try part(2, "peer") > 0, "the bootstrap is node 1's")
            #expect(try cluster.peers(2).peers.allSatisfy { $0.quarantine == nil })

            // The bootstrap is the gate's: who gets it checks it, asks that node no more, and has it from the registry.
            for node in 1...2 { try cluster.spoil(node, "state/gate/images/*/bootstrap.erofs") }
            let knows = try Wait.until(.seconds(30)) {
                try (1...2).allSatisfy { try cluster.peer($0, of: 3)?.completeBlobs == 1 }
            }
            #expect(knows, "node 3 does not hear what the others have")
            try cluster.mountAndRead(3, image).expectSuccess(.seconds(30))
            #expect(try cluster.peers(3).peers.filter { $0.quarantine == "wrong_bytes" }.count == 2)
            let stat = try cluster.stat(3)
            #expect(stat.reads.denied == 0 && stat.integrity.verifyFailures == 0)
        }
    }
}

extension ProcessFixture {
    /// Waits for the process and requires that it ends well within the time.
    fileprivate func expectSuccess(_ limit: Duration, location: SourceLocation = #_sourceLocation) throws {
        let status = wait(atMost: limit)
        let shown = status.map { "status \($0)" } ?? "still running"
        #expect(status == 0, "\(shown): \(log)", sourceLocation: location)
    }
}
