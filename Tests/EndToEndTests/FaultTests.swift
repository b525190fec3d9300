import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("Bad bytes and full disks")
    struct Faults {
        @Test("a registry that flips one bit: EIO, counted, quarantined; right bytes once it is healed")
        func flippedBit() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.plainTree("tree", [("file", 8 << 20), ("other", 2 << 20)])
            let reference = images.reference("flipped")
            try node.build(tree, to: reference, ["--compression", "raw"])
            let blob = try #require(try images.registry.largestBlob())
            // In the middle of the file, wherever the builder put it.
            let size = try File(path: blob, flags: O_RDONLY).size()
            try Files.flipBit(blob, at: size / 2)

            let mount = try node.mount(reference)
            let bad = Files.read(mount + "/file")
            #expect(throws: SystemError.self) { try bad.get() }
            if case .failure(let error) = bad { #expect(error.errno == EIO) }
            let stat = try node.stat()
            #expect(stat.integrity.mismatches >= 1)
            #expect(!stat.integrity.quarantined.isEmpty, "nothing was quarantined")
            #expect(!stat.errors.isEmpty)

            try Files.flipBit(blob, at: size / 2)
            let recovered = Wait.until(.seconds(90)) { Files.areEqual(tree + "/file", mount + "/file") }
            let quarantined = try node.stat().integrity.quarantined
            #expect(recovered, "the healed registry is not asked again: \(quarantined)")
            try images.compare(tree, mount)
            try node.expectHealthy()
        }

        @Test("a full disk: right bytes or EIO, and right bytes when there is room again")
        func fullDisk() throws {
            let images = try Images()
            let loop = try LoopFileSystem(.ext4, size: 96 << 20)
            var options = Node.Options()
            options.stateParent = loop.path
            let node = try Node([images.registry], options)
            let tree = try images.plainTree("tree", [("file", 32 << 20)])
            let reference = images.reference("full")
            try node.build(tree, to: reference)
            let mount = try node.mount(reference)
            let ballast = loop.path + "/ballast"
            let room = try loop.availableBytes()
            try Command.run("fallocate", "-l", "\(room - 8 << 20)", ballast)

            let offsets = Readers.spread(64, over: 32 << 20)
            let expected = try Readers.expected(tree + "/file", offsets: offsets)
            let outcomes = try #require(try Readers(mount + "/file", offsets: offsets).wait(.seconds(120)))
            #expect(outcomes.contains(.failed(EIO)), "the disk was not full")
            for (outcome, right) in zip(outcomes, expected) where outcome != .failed(EIO) { #expect(outcome == right) }
            #expect(try !node.stat().errors.isEmpty)

            try retrying("unlink", ballast) { unlink(ballast) }
            let recovered = Wait.until(.seconds(60)) { Files.areEqual(tree + "/file", mount + "/file") }
            #expect(recovered, "no recovery after room was made")
            try node.expectHealthy()
        }

        @Test("the registry away: what is here reads, metadata is there, the rest is EIO within the deadline")
        func registryAway() throws {
            let images = try Images()
            var options = Node.Options()
            options.settings = ["fetch: {deadline: 3s}", "gate: {deadline: 5s}"]
            options.gateArguments = ["--deadline", "5s"]
            let node = try Node([images.registry], options)
            let tree = try images.plainTree("tree", [("here", 1 << 20), ("not-here", 24 << 20)])
            let reference = images.reference("away")
            try node.build(tree, to: reference)
            let mount = try node.mount(reference)
            #expect(Files.areEqual(tree + "/here", mount + "/here"))
            images.registry.stop()

            try Files.dropCaches()
            #expect(Files.areEqual(tree + "/here", mount + "/here"))
            #expect(try Command.run("ls", "-la", mount).contains("not-here"))
            let offsets: [UInt64] = [20 << 20]
            // A failing read asks twice: for the window that would be read ahead, then for the one page (fanotify's way).
            let outcome = try #require(try Readers(mount + "/not-here", offsets: offsets).wait(.seconds(2 * 5 + 3)))
            #expect(outcome == [.failed(EIO)])
            try node.expectHealthy()
        }

        @Test("faults names who is blocked, on which image, and whom the chunk is asked of; events say what happened")
        func faultsAndEvents() throws {
            let images = try Images()
            var options = Node.Options()
            options.settings = ["fetch: {deadline: 6s}", "gate: {deadline: 8s}"]
            options.gateArguments = ["--deadline", "8s"]
            let node = try Node([images.registry], options)
            let tree = try images.plainTree("tree", [("file", 4 << 20)])
            let reference = images.reference("blocked")
            try node.build(tree, to: reference)
            let mount = try node.mount(reference)
            #expect(try node.control(FaultsReply.self, "faults").blocked == [])
            images.registry.stop()

            let reader = try ProcessFixture(
                ["dd", "if=\(mount)/file", "of=/dev/null", "bs=4096", "count=1"],
                logFile: node.scratch.appending("dd.log"))
            let registry = "registry/" + reference.prefix { $0 != "/" }
            var seen: [BlockedReader] = []
            let named = Wait.until(.seconds(5)) {
                seen = (try? node.control(FaultsReply.self, "faults").blocked) ?? []
                return seen.contains { $0.pid == UInt32(reader.pid) && $0.asked == [registry] }
            }
            #expect(named, "\(seen)")
            let blocked = try #require(seen.first { $0.pid == UInt32(reader.pid) })
            #expect(blocked.command == "dd")
            #expect(blocked.image == reference)
            #expect(blocked.source == registry)
            #expect(["fetching", "backingOff", "queued"].contains(blocked.step), "\(blocked.step)")
            #expect(blocked.blob != nil && (blocked.chunkBytes ?? 0) > 0)
            let table = try node.control(["faults"]).text
            #expect(table.contains("\(reader.pid)") && table.contains(registry), "\(table)")

            #expect(reader.wait(atMost: .seconds(30)) == 1, "dd was to get EIO")
            #expect(try node.control(FaultsReply.self, "faults").blocked == [])
            let events = try node.control(EventsReply.self, "events").events
            for kind: NodeEvent.Kind in [.started, .gateConnected, .mounted, .sourceFailed, .readFailed] {
                #expect(events.contains { $0.kind == kind }, "\(kind): \(events.map(\.kind))")
            }
            #expect(events.first { $0.kind == .sourceFailed }?.subject == registry)
            #expect(try node.control(["top"]).text.contains("blocked readers:"))
            try node.expectHealthy()
        }
    }
}
