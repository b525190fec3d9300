import ChunkModel
import Glibc
import ImageBuild
import LinuxSystem
import OCISpec
import Testing
import TestSupport

@Suite("Layers of ordinary images are applied as a runtime would, and never beyond the tree")
struct LayerBuildTests {
    private let workshop: Workshop

    init() throws { workshop = try Workshop("layers") }

    private var capability: [UInt8] { [1, 0, 0, 2, 0, 4, 0, 0] + [UInt8](repeating: 0, count: 12) }

    private func lower() -> TarArchive {
        var tar = TarArchive()
        tar.add("etc/", .directory, mode: 0o755, mtime: 111)
        tar.add("etc/a", .file, Array("A".utf8), mode: 0o4755, owner: (1000, 1001), mtime: 222)
        tar.add("etc/hard", .hardLink, link: "etc/a")
        tar.add("etc/sym", .symlink, link: "../etc/a", mtime: 333)
        tar.add("dev/", .directory, mode: 0o755)
        tar.add("dev/null", .characterDevice, mode: 0o666, device: (1, 3))
        tar.add("dev/disk", .blockDevice, mode: 0o660, owner: (0, 6), device: (8, 1))
        tar.add("dev/pipe", .fifo)
        tar.add(
            "capable", .file, [1, 2, 3], mode: 0o755,
            xattrs: [("user.one", [1]), ("user.two", [2]), ("security.capability", capability), ("trusted.x", [9])])
        tar.add("gone", .file, [1])
        tar.add("gone-directory/", .directory)
        tar.add("gone-directory/inner", .file, [1])
        tar.add("opaque/", .directory)
        tar.add("opaque/old", .file, [1])
        tar.add("opaque/deep/", .directory)
        tar.add("opaque/deep/old", .file, [1])
        tar.add("becomes-file/", .directory)
        tar.add("becomes-file/inner", .file, [1])
        tar.add("becomes-directory", .file, [1])
        tar.add("large", .file, [UInt8](repeating: 7, count: 3_000_000))
        return tar
    }

    private func upper() -> TarArchive {
        var tar = TarArchive()
        tar.add(".wh.gone")
        tar.add(".wh.gone-directory")
        tar.add("opaque/", .directory, mode: 0o700, mtime: 444)
        tar.add("opaque/.wh..wh..opq")
        tar.add("opaque/new", .file, Array("N".utf8))
        tar.add("becomes-file", .file, Array("F".utf8))
        tar.add("becomes-directory/", .directory)
        tar.add("becomes-directory/inner", .file, Array("I".utf8))
        tar.add("implied/parent/file", .file, Array("P".utf8))
        tar.add("etc/b", .file, Array("B".utf8), mtime: 555)
        return tar
    }

    /// The built image, mounted, as `find -printf` shows it: name, type and mode, owner, whole mtime, link target.
    private func listing(_ layout: String = "image") async throws -> [String: String] {
        let text = try await mounted(layout) { target in
            try Command.run("find", target, "-mindepth", "1", "-printf", #"%P\t%M %U:%G %T@ %l\n"#)
        }
        var out: [String: String] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: "\t", maxSplits: 1, omittingEmptySubsequences: false)
            out[String(parts[0])] = String(parts[1]).replacing(".0000000000", with: "")
        }
        return out
    }

    private func mounted<Value>(_ layout: String, _ body: (String) throws -> Value) async throws -> Value {
        let parts = try await workshop.parts(layout)
        let target = try workshop.scratch.makeDirectory(layout + ".mount")
        try Mount.erofs(image: parts.bootstrap, devices: parts.blob.map { [$0] } ?? [], at: target)
        defer {
            try? Mount.unmount(target, lazily: true)
            rmdir(target)
        }
        return try body(target)
    }

    private func source(_ image: OrdinaryImage, _ name: String = "source") throws -> ImageSource {
        try image.write(to: workshop.path(name), tag: "t")
        return .layout(path: workshop.path(name), tag: "t")
    }

    @Test(.enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
    func whiteoutsLinksOwnersAndDevicesAreApplied() async throws {
        try await workshop.build(try source(OrdinaryImage(layers: [lower(), upper()])))
        let found = try await listing()
        #expect(found["gone"] == nil && found["gone-directory"] == nil && found["gone-directory/inner"] == nil)
        #expect(found["opaque/old"] == nil && found["opaque/deep"] == nil && found["opaque/new"] != nil)
        #expect(found["opaque"] == "drwx------ 0:0 444 ")
        #expect(found["becomes-file"]?.hasPrefix("-rw-r--r--") == true && found["becomes-file/inner"] == nil)
        #expect(found["becomes-directory/inner"] != nil)
        #expect(found["etc"] == "drwxr-xr-x 0:0 111 ", "what was added later does not change the directory's time")
        #expect(found["etc/a"] == "-rwsr-xr-x 1000:1001 222 " && found["etc/hard"] == found["etc/a"])
        #expect(found["etc/sym"] == "lrwxrwxrwx 0:0 333 ../etc/a")
        #expect(found["dev/pipe"]?.hasPrefix("p") == true)
        #expect(found["dev/disk"] == "brw-rw---- 0:6 1000000000 ")
        #expect(found["implied/parent/file"] != nil && found["implied/parent"] == "drwxr-xr-x 0:0 0 ")
        #expect(!found.keys.contains { $0.split(separator: "/").last?.hasPrefix(".wh.") == true })
        let details = try await mounted("image") { target in
            [
                try Command.run("stat", "-c", "%t:%T", target + "/dev/null", target + "/dev/disk"),
                try Command.run("stat", "-c", "%h", target + "/etc/a"),
                try Command.run("getfattr", "-d", "-m", "-", "--absolute-names", target + "/capable"),
                try Command.run("sh", "-c", "cat '\(target)'/etc/hard '\(target)'/opaque/new '\(target)'/becomes-file"),
            ]
        }
        #expect(details[0] == "1:3\n8:1\n" && details[1] == "2\n")
        for name in ["user.one", "user.two", "security.capability", "trusted.x"] { #expect(details[2].contains(name)) }
        #expect(details[3] == "ANF")
        #expect(workshop.leftovers == [])
    }

    @Test func allWaysToPackLayersGiveTheSameImage() async throws {
        var digests: [Digest] = []
        for compression in [OrdinaryImage.Compression.gzip, .zstd, .none] {
            for docker in [false, true] where !(docker && compression == .zstd) {
                var image = OrdinaryImage(layers: [lower(), upper()])
                image.compression = compression
                image.usesDockerTypes = docker
                let name = "\(compression)-\(docker)"
                let result = try await workshop.build(try source(image, name), to: name + ".image")
                digests.append(result.manifestDigest)
            }
        }
        #expect(digests.count == 5 && Set(digests).count == 1)
    }

    @Test func theConfigIsKeptButForItsLayers() async throws {
        var image = OrdinaryImage(layers: [lower()])
        image.config = #"""
            "created":"2020-01-02T03:04:05.678Z","author":"ü/\"x\"","config":{"Cmd":["/bin/sh","-c","echo a/b"],"User":"7:8",\#
            "Healthcheck":{"Interval":30000000000},"Labels":{"sha256:looks":"like a digest"}},"x-other":[1,2.5,null,true,18446744073709551615]
            """#
        try await workshop.build(try source(image))
        let summary = try await workshop.inspect()
        #expect(summary.config.created == "2020-01-02T03:04:05.678Z" && summary.config.user == "7:8")
        #expect(summary.config.command == ["/bin/sh", "-c", "echo a/b"])
        let text = String(decoding: try await workshop.documents().config, as: UTF8.self)
        for part in [
            #""author":"ü/\"x\"""#, #""Interval":30000000000"#, #""Labels":{"sha256:looks":"like a digest"}"#,
            #""x-other":[1,2.5,null,true,18446744073709551615]"#,
        ] { #expect(text.contains(part), "\(part)") }
        #expect(!text.contains("history"))
        // diff_ids: one a layer, of the uncompressed content.
        let parts = try await workshop.parts()
        let raw = try Command.run("sha256sum", try #require(parts.blob)).prefix(64)
        let expected = [summary.layers[0].digest.hex, String(raw), summary.layers[2].digest.hex]
        #expect(text.contains(#""diff_ids":["# + expected.map { "\"sha256:\($0)\"" }.joined(separator: ",") + "]"))
    }

    @Test func theManifestIsCanonicalAndKeepsTheTokenRule() async throws {
        let result = try await workshop.build(try source(OrdinaryImage(layers: [lower()])))
        let text = String(decoding: try await workshop.documents().manifest, as: UTF8.self)
        let summary = try await workshop.inspect()
        #expect(summary.manifestDigest == result.manifestDigest)
        #expect(!text.contains(" ") && !text.contains("\n") && !text.contains("\\/"))
        #expect(text.hasPrefix(#"{"annotations":{"dev.chunkd.image.version":"1"},"config":{"digest":"sha256:"#))
        let tokens = text.split(separator: "sha256:", omittingEmptySubsequences: false).dropFirst().map {
            $0.prefix(64)
        }
        #expect(tokens.map(String.init) == ([summary.config.digest] + summary.layers.map(\.digest)).map(\.hex))
        #expect(text.contains("\"\(ChunkdImage.rawSizeAnnotation)\":\"\(result.rawSize)\""))
    }

    @Test func entriesThatLeadOutOfTheTreeStayInsideOrEndTheBuild() async throws {
        let outside = try workshop.scratch.makeDirectory("outside")
        try Directory.replaceFile(outside + "/victim", [1])
        let up = String(repeating: "../", count: 20)
        var hostile: [TarArchive] = []
        func layer(_ fill: (inout TarArchive) -> Void) {
            var tar = TarArchive()
            fill(&tar)
            hostile.append(tar)
        }
        layer { $0.add("../escape", .file, [1]) }
        layer { $0.add("a/" + up + outside.dropFirst() + "/escape", .file, [1]) }
        layer { $0.add(outside + "/escape", .file, [1]) }
        layer {
            $0.add("link", .symlink, link: outside)
            $0.add("link/escape", .file, [1])
        }
        layer {
            $0.add("link", .symlink, link: up + outside.dropFirst())
            $0.add("link/escape", .file, [1])
        }
        layer { $0.add("hard", .hardLink, link: outside + "/victim") }
        layer { $0.add("hard", .hardLink, link: up + outside.dropFirst() + "/victim") }
        layer {
            $0.add("link", .symlink, link: outside)
            $0.add("link/.wh.victim")
        }
        layer {
            $0.add("link", .symlink, link: outside)
            $0.add("link/.wh..wh..opq")
        }
        layer { $0.add(".wh...") }
        layer {
            $0.add("link", .symlink, link: outside)
            $0.add("link", .directory, mode: 0o777)
            $0.add("link/victim", .file, [2])
        }
        for (number, tar) in hostile.enumerated() {
            do {
                try await workshop.build(
                    try source(OrdinaryImage(layers: [tar]), "hostile\(number)"), to: "hostile\(number).image")
            } catch let error as ImageBuildError { #expect(error.code == .tool, "layer \(number): \(error)") }
            #expect(try Directory.names(outside) == ["victim"], "layer \(number)")
            #expect(try workshop.contents(outside + "/victim") == [1], "layer \(number)")
            #expect(!Directory.exists(workshop.path("escape")) && !Directory.exists(workshop.path("tmp/escape")))
        }
        #expect(workshop.leftovers == [])
    }

    @Test func thePlatformOfAMultiPlatformSourceIsChosen() async throws {
        let layout = workshop.path("source")
        let other = Platform(os: "linux", architecture: "s390x")
        var entries: [Descriptor] = []
        for platform in [other, .current] {
            var tar = lower()
            tar.add("for-\(platform.architecture)", .file, [1])
            var image = OrdinaryImage(layers: [tar])
            image.platform = platform
            entries.append(try image.write(to: layout))
        }
        try OrdinaryImage.index([(try OrdinaryImage.nested(entries, layout), "multi")], layout)
        let source = ImageSource.layout(path: layout, tag: "multi")
        try await workshop.build(source, to: "own")
        try await workshop.build(source, to: "other") { $0.platform = other }
        #expect(try await workshop.inspect("own").config.platform == Platform.current.description)
        #expect(try await workshop.inspect("other").config.platform == other.description)
        await #expect(throws: ImageBuildError.self) {
            try await workshop.build(source, to: "none") { $0.platform = Platform(os: "plan9", architecture: "mips") }
        }
    }

    @Test func damagedSourcesAreRefusedAndNamed() async throws {
        func refusal(_ name: String, _ damage: (String) throws -> Void) async throws -> ImageBuildError.Code? {
            let damaged = try source(OrdinaryImage(layers: [lower()]), name)
            try damage(workshop.path(name))
            do {
                try await workshop.build(damaged, to: name + ".image")
                return nil
            } catch { return (error as? ImageBuildError)?.code }
        }
        func largest(_ layout: String) throws -> String {
            try Command.run("sh", "-c", "ls -S '\(layout)'/blobs/sha256/* | head -1 | tr -d '\\n'")
        }
        #expect(try await refusal("intact") { _ in } == nil)
        #expect(
            try await refusal("flipped") { layout in
                let layer = try largest(layout)
                let file = try File(path: layer, flags: O_RDWR)
                try [UInt8(0xFF)].withUnsafeBytes { try file.writeAll($0, at: 100) }
            } == .corruptSource)
        #expect(
            try await refusal("longer") { try Command.run("sh", "-c", "printf x >>'\(try largest($0))'") }
                == .corruptSource)
        #expect(try await refusal("missing") { try Command.run("rm", try largest($0)) } == .inputOutput)
        #expect(
            try await refusal("no-json") { try Directory.replaceFile($0 + "/index.json", Array("{".utf8)) }
                == .badSource)
        let tagged = try source(OrdinaryImage(layers: [lower()]), "tags")
        #expect(tagged.description.hasSuffix(":t"))
        await #expect(throws: ImageBuildError.self) {
            try await workshop.build(.layout(path: workshop.path("tags"), tag: "other"), to: "x")
        }
        #expect(workshop.leftovers == [])
    }

    @Test func layersMayRepeatAndMayBeMissing() async throws {
        var first = TarArchive()
        first.add("file", .file, [1])
        var second = TarArchive()
        second.add("file", .file, [2, 2])
        for compression in [OrdinaryImage.Compression.gzip, .zstd] {
            var image = OrdinaryImage(layers: [first, second, first])
            image.compression = compression
            let name = "\(compression)"
            let repeated = try await workshop.build(try source(image, name), to: name + ".image")
            #expect(repeated.fileBytes == 1, "the last layer wins")
        }
        let empty = try await workshop.build(try source(OrdinaryImage(layers: []), "empty"), to: "empty.image")
        #expect(empty.files == 1 && empty.rawSize == 0)
    }

    @Test func chunkdImagesAreNoSource() async throws {
        try await workshop.build(try source(OrdinaryImage(layers: [lower()])))
        do {
            try await workshop.build(.layout(path: workshop.path("image"), tag: nil), to: "again")
            Issue.record("built an image of an image's parts")
        } catch let error as ImageBuildError { #expect(error.code == .unsupported) }
    }

    @Test func aLayoutKeepsItsOtherTags() async throws {
        let tree = try workshop.scratch.makeDirectory("tree")
        try Directory.replaceFile(tree + "/file", [1])
        let one = try await workshop.build(.directory(tree), tag: "one")
        try Directory.replaceFile(tree + "/file", [2])
        let two = try await workshop.build(.directory(tree), tag: "two")
        #expect(one.manifestDigest != two.manifestDigest)
        #expect(try await workshop.inspect(tag: "one").manifestDigest == one.manifestDigest)
        try await workshop.build(.directory(tree), tag: "one")
        #expect(try await workshop.inspect(tag: "one").manifestDigest == two.manifestDigest)
        await #expect(throws: ImageBuildError.self, "several images and no tag") { try await workshop.inspect() }
    }
}
