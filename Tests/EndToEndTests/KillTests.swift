import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("Processes die, readers see right bytes or an error")
    struct Kills {
        private static let fileSize = 32 << 20

        /// A node with one mounted image of one large file.
        private struct Scene {
            let images: Images
            let node: Node
            let original: String
            let mounted: String

            init(_ options: Node.Options = Node.Options()) throws {
                images = try Images()
                node = try Node([images.registry], options)
                let tree = try images.plainTree("tree", [("file", Kills.fileSize)])
                let reference = images.reference("kills")
                try node.build(tree, to: reference)
                original = tree + "/file"
                mounted = try node.mount(reference) + "/file"
            }

            /// Starts readers while the registry answers nothing, and waits until all block.
            func block(_ count: Int) throws -> Readers {
                images.registry.pause()
                let readers = try Readers(mounted, offsets: Readers.spread(count, over: Kills.fileSize))
                let blocked = try Wait.until(.seconds(30)) { try node.stat().reads.blockedReaders >= UInt64(count) }
                let found = try node.stat().reads.blockedReaders
                try #require(blocked, "of \(count) readers \(found) block")
                return readers
            }
        }

        @Test("chunkd killed with 200 readers blocked: they stay blocked, the next one finishes them")
        func agentKilled() throws {
            let scene = try Scene()
            let readers = try scene.block(200)
            try scene.node.killAgent()
            scene.images.registry.resume()
            #expect(readers.done == 0, "a reader went on without its bytes")
            try scene.node.startAgent()
            let outcomes = try #require(readers.wait(.seconds(60)), "\(readers.done) of 200 readers finished")
            #expect(try outcomes == Readers.expected(scene.original, offsets: readers.offsets))
            try scene.node.expectHealthy()
        }

        @Test("chunkd stopped in the middle of fetching and killed: readers finish with right bytes")
        func agentKilledFetching() throws {
            let scene = try Scene()
            let readers = try Readers(scene.mounted, offsets: Readers.spread(400, over: Self.fileSize))
            #expect(try Wait.until(.seconds(30)) { try scene.node.registryChunks() >= 3 })
            try scene.node.killAgent()
            try scene.node.startAgent()
            let outcomes = try #require(readers.wait(.seconds(60)), "\(readers.done) of 400 readers finished")
            #expect(try outcomes == Readers.expected(scene.original, offsets: readers.offsets))
            try scene.node.expectHealthy()
        }

        @Test("the gate's child killed with readers blocked: right bytes or EIO, and then right bytes")
        func gateKilled() throws {
            let scene = try Scene()
            let readers = try scene.block(100)
            let child = try #require(scene.node.gateChildPid)
            kill(child, SIGKILL)
            #expect(Wait.until(.seconds(20)) { scene.node.gateChildPid.map { $0 != child } ?? false })
            scene.images.registry.resume()
            let outcomes = try #require(readers.wait(.seconds(150)), "\(readers.done) of 100 readers finished")
            let expected = try Readers.expected(scene.original, offsets: readers.offsets)
            for (outcome, right) in zip(outcomes, expected) where outcome != .failed(EIO) { #expect(outcome == right) }

            #expect(try Wait.until(.seconds(30)) { try scene.node.stat().gateConnected })
            let again = try Readers(scene.mounted, offsets: readers.offsets)
            #expect(try #require(again.wait(.seconds(60))) == expected, "the mount does not recover")
            #expect(try scene.node.stat().gateRestarts == 1)
            try scene.node.expectHealthy()
        }

        @Test("the gate is replaced while readers wait (SIGHUP): no read fails")
        func gateReplaced() throws {
            let scene = try Scene()
            let readers = try scene.block(100)
            let child = try #require(scene.node.gateChildPid)
            kill(scene.node.gatePid, SIGHUP)
            #expect(Wait.until(.seconds(20)) { scene.node.gateChildPid.map { $0 != child } ?? false })
            scene.images.registry.resume()
            let outcomes = try #require(readers.wait(.seconds(150)), "\(readers.done) of 100 readers finished")
            #expect(try outcomes == Readers.expected(scene.original, offsets: readers.offsets))
            try scene.node.expectHealthy()
        }

        @Test("everything killed with the mount in place: nothing durable is fetched again")
        func restart() throws {
            var options = Node.Options()
            // Reading ahead would fetch what was never read.
            options.settings = ["readAhead: {windowMax: 0}"]
            let scene = try Scene(options)
            let offsets = Readers.spread(60, over: Self.fileSize / 2)
            let expected = try Readers.expected(scene.original, offsets: offsets)
            #expect(try Readers(scene.mounted, offsets: offsets).wait(.seconds(60)) == expected)
            let resident = try scene.node.stat().images.reduce(0) { $0 + $1.residentChunks }
            #expect(resident > 20)
            // The record is behind the data by at most its batch.
            try #require(try Wait.until(.seconds(20)) { try scene.node.durableChunks() == Int(resident) })

            try scene.node.killAgent()
            let child = try #require(scene.node.gateChildPid)
            kill(child, SIGKILL)
            #expect(Wait.until(.seconds(20)) { scene.node.gateChildPid.map { $0 != child } ?? false })
            try scene.node.startAgent()

            try Files.dropCaches()
            #expect(try Readers(scene.mounted, offsets: offsets).wait(.seconds(60)) == expected)
            let stat = try scene.node.stat()
            #expect(stat.reads.hits > 0 && stat.reads.misses == 0, "\(stat.reads)")
            #expect(stat.sources.allSatisfy { $0.chunks == 0 }, "fetched again: \(stat.sources)")
            try scene.node.expectHealthy()
        }

        @Test("1,000 readers blocked at once are all served")
        func thousandReaders() throws {
            let scene = try Scene()
            let readers = try scene.block(1000)
            scene.images.registry.resume()
            let outcomes = try #require(readers.wait(.seconds(120)), "\(readers.done) of 1000 readers finished")
            #expect(try outcomes == Readers.expected(scene.original, offsets: readers.offsets))
            try scene.node.expectHealthy()
        }

        @Test("1,000 readers of one chunk cost one fetch")
        func oneChunk() throws {
            let scene = try Scene()
            let offsets = (0..<1000).map { UInt64($0 % 16 * 4096) }
            let readers = try Readers(scene.mounted, offsets: offsets)
            let outcomes = try #require(readers.wait(.seconds(60)))
            #expect(try outcomes == Readers.expected(scene.original, offsets: offsets))
            #expect(try scene.node.registryChunks() <= 2)
            try scene.node.expectHealthy()
        }
    }
}
