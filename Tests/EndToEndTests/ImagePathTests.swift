import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("An image from build to complete")
    struct ImagePath {
        @Test(
            "build, push, mount: every file reads as in the tree, each chunk is fetched at most once",
            arguments: ["zstd", "raw"])
        func goldenRead(compression: String) throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.sampleTree("tree")
            let reference = images.reference("sample")
            try node.build(tree, to: reference, ["--compression", compression])
            let mount = try node.mount(reference)
            #expect(try node.registryChunks() == 0, "a mount fetches no data")

            try Command.run("find", mount, "-ls")
            #expect(try node.registryChunks() == 0, "metadata is local: find fetches no data")

            let report = try images.compare(tree, mount)
            #expect(report.files > 300)
            let stat = try node.stat()
            let image = try #require(stat.images.first)
            #expect(image.references == [reference])
            #expect(image.residentChunks == image.chunks, "everything was read, so everything is here")
            #expect(stat.reads.misses > 0 && stat.reads.denied == 0)
            #expect(stat.bytesFetched > 0)
            #expect(stat.sources.reduce(0) { $0 + $1.chunks } <= image.chunks, "a chunk was fetched twice")
            #expect(stat.integrity.mismatches == 0 && stat.errors.isEmpty, "\(stat.errors)")
            try node.expectHealthy()
            try node.unmount(mount)
        }

        @Test("a complete blob graduates: reads raise no event any more")
        func graduation() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.plainTree("tree", [("a", 5_000_000), ("b", 100)])
            let reference = images.reference("graduates")
            try node.build(tree, to: reference)
            let mount = try node.mount(reference)
            try images.compare(tree, mount)
            #expect(
                try Wait.until(.seconds(20)) { try node.stat().graduatedBlobs == 1 }, "the blob has not graduated")
            let before = try node.stat()
            #expect(before.images.first?.blobs.first?.graduated == true)

            try Files.dropCaches()
            try images.compare(tree, mount)
            #expect(try node.stat().reads.events == before.reads.events, "a graduated blob raised events")
            try node.expectHealthy()
        }

        @Test("a partly read image has only what was read")
        func lazy() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.plainTree("tree", [("large", 64 << 20), ("small", 65_536), ("other", 32 << 20)])
            let reference = images.reference("lazy")
            try node.build(tree, to: reference)
            let mount = try node.mount(reference)
            #expect(Files.areEqual(tree + "/small", mount + "/small"))
            let chunks = try node.registryChunks()
            #expect((1...2).contains(chunks), "\(chunks) chunks for one file of 64 KiB")
            try node.expectHealthy()
        }

        @Test("images that share content fetch the shared chunks once")
        func sharedChunks() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let (first, second) = (images.reference("first"), images.reference("second"))
            let one = try images.plainTree("one", [("shared", 24 << 20), ("own-1", 300_000)])
            let two = try images.plainTree("two", [("shared", 24 << 20), ("own-2", 400_001)])
            try node.build(one, to: first)
            try node.build(two, to: second)

            try images.compare(one, try node.mount(first))
            let before = try node.stat()
            try images.compare(two, try node.mount(second))
            let after = try node.stat()
            let fetched = Self.remoteChunks(after) - Self.remoteChunks(before)
            let copied = after.sources.first { $0.source == "local" }?.chunks ?? 0
            // Where the shared file meets its neighbours, and the second tree's own file.
            #expect(fetched <= 5, "\(fetched) chunks came from the registry again")
            #expect(copied >= 20, "\(copied) chunks were copied on the node")
            try node.expectHealthy()
        }

        private static func remoteChunks(_ stat: StatReply) -> UInt64 {
            stat.sources.filter { $0.source != "local" }.reduce(0) { $0 + $1.chunks }
        }

        @Test("the second mount of an image costs no fetch")
        func secondMount() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.plainTree("tree", [("a", 9_000_000), ("b", 5000)])
            let reference = images.reference("twice")
            try node.build(tree, to: reference)
            let mount = try node.mount(reference)
            try images.compare(tree, mount)
            try node.unmount(mount)

            let before = try node.stat()
            let again = try node.mount(reference)
            try Files.dropCaches()
            try images.compare(tree, again)
            #expect(try node.stat().bytesFetched == before.bytesFetched)
            try node.expectHealthy()
        }

        @Test("overlayfs on top of a mount: programs run, files change above it")
        func overlay() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.sampleTree("tree")
            let reference = images.reference("overlay")
            try node.build(tree, to: reference)
            let lower = try node.mount(reference)
            let above = try ScratchDirectory("overlay")
            let (upper, work) = (try above.makeDirectory("upper"), try above.makeDirectory("work"))
            let merged = try above.makeDirectory("merged")
            let layers = "lowerdir=\(lower),upperdir=\(upper),workdir=\(work)"
            try Command.run("mount", "-t", "overlay", "overlay", "-o", layers, merged)

            #expect(try Command.run(merged + "/bin/busybox", "echo", "runs") == "runs\n")
            #expect(try Command.run("chroot", merged, "/bin/busybox", "cat", "/sizes/1").utf8.count > 0)
            try Command.run("sh", "-c", "printf more >>\(merged)/sizes/4097 && rm \(merged)/sizes/4096")
            #expect(try Files.read(merged + "/sizes/4097").get().count == 4101)
            #expect(Files.areEqual(tree + "/sizes/4097", lower + "/sizes/4097"), "the image below changed")
            try images.compare(tree, lower)
            try Mount.unmount(merged)
            try node.expectHealthy()
        }

        @Test("a program runs from a cold mount")
        func execute() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.sampleTree("tree")
            let reference = images.reference("execute")
            try node.build(tree, to: reference)
            let mount = try node.mount(reference)
            #expect(try Command.run(mount + "/bin/busybox", "echo", "the first read") == "the first read\n")
            try node.expectHealthy()
        }

        @Test("the cache works on every file system that carries marks", arguments: LoopFileSystem.Kind.allCases)
        func cacheFileSystem(kind: LoopFileSystem.Kind) throws {
            let images = try Images()
            let loop = try LoopFileSystem(kind, size: 400 << 20)
            var options = Node.Options()
            options.stateParent = loop.path
            let node = try Node([images.registry], options)
            let tree = try images.sampleTree("tree")
            let other = try images.plainTree("other", [("large-random", 3 << 20), ("x", 20_000)])
            try node.build(tree, to: images.reference("one"))
            try node.build(other, to: images.reference("two"))
            try images.compare(tree, try node.mount(images.reference("one")))
            try images.compare(other, try node.mount(images.reference("two")))
            try node.expectHealthy()
        }
    }
}
