import FoundationEssentials
import Glibc
import ChunkModel
import Integrity
import LinuxSystem
import OCISpec
import TestSupport
import Testing

extension EndToEnd {
    @Suite("Other programs read what chunkd writes")
    struct Interoperation {
        /// An image in an OCI layout, its documents read.
        private struct Layout {
            let path: String
            let manifestDigest: Digest
            let image: ChunkdImage

            init(_ path: String) throws {
                self.path = path
                let index = try JSONDecoder().decode(ImageIndex.self, from: Self.data(path + "/index.json"))
                let manifest = try #require(index.manifests.first)
                manifestDigest = manifest.digest
                let text = try Self.data(Self.blob(path, manifest.digest))
                image = try ChunkdImage(
                    manifest: try JSONDecoder().decode(Manifest.self, from: text), bytes: Array(text))
            }

            func blob(_ digest: Digest) -> String { Self.blob(path, digest) }
            private static func blob(_ path: String, _ digest: Digest) -> String {
                path + "/blobs/sha256/" + digest.hex
            }
            private static func data(_ path: String) throws -> Data { Data(try Files.read(path).get()) }
        }

        private func build(_ images: Images, _ node: Node, _ arguments: String...) throws -> (tree: String, Layout) {
            let tree = try images.sampleTree("tree")
            let path = images.scratch.appending("layout")
            try node.build(tree, to: "oci:\(path):latest", arguments)
            return (tree, try Layout(path))
        }

        @Test("zstd decompresses the blob to the raw device, and casync makes it from the .caibx")
        func zstdAndCasync() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let (_, layout) = try build(images, node)
            let blob = try #require(layout.image.blobs.first)
            #expect(blob.compression == .zstd)
            let raw = images.scratch.appending("raw")
            try Command.run("zstd", "-q", "-d", "-o", raw, layout.blob(blob.descriptor.digest))
            let bytes = try Files.read(raw).get()
            #expect(UInt64(bytes.count) == blob.rawSize)

            // A chunk store as casync keeps one: each chunk compressed, in a file named by its id.
            let index = try ChunkIndex(caibx: Files.read(layout.blob(blob.index.digest)).get())
            #expect(index.rawSize == blob.rawSize)
            let store = try images.scratch.makeDirectory("store.castr")
            for number in 0..<index.count {
                let entry = index[number]
                let chunk = Array(bytes[Int(entry.range.lowerBound)..<Int(entry.range.upperBound)])
                try #require(SHA256.hash(chunk) == entry.digest, "chunk \(number) is not what the index says")
                let hex = entry.digest.hex
                mkdir(store + "/" + hex.prefix(4), 0o755)
                let path = store + "/\(hex.prefix(4))/\(hex).cacnk"
                let file = try File(path: path + ".raw", flags: O_WRONLY | O_CREAT)
                try chunk.withUnsafeBytes { try file.writeAll($0, at: 0) }
                try Command.run("zstd", "-q", "-f", "--rm", "-o", path, path + ".raw")
            }
            let caibx = images.scratch.appending("image.caibx")
            try Command.run("cp", layout.blob(blob.index.digest), caibx)
            let made = images.scratch.appending("made")
            try Command.run("casync", "extract", "--store=" + store, caibx, made)
            #expect(Files.areEqual(raw, made), "casync made another blob from the index")
        }

        @Test("fsck.erofs and the kernel's own tools accept the bootstrap and extract the tree")
        func fsck() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let (tree, layout) = try build(images, node, "--compression", "raw")
            let blob = try #require(layout.image.blobs.first)
            let out = images.scratch.appending("extracted")
            try Command.run(
                "fsck.erofs", "--device=" + layout.blob(blob.descriptor.digest), "--extract=" + out,
                layout.blob(layout.image.bootstrap.digest))
            // fsck.erofs 1.5 extracts neither nanoseconds nor attributes.
            try GoldenReader(original: tree, seed: images.seed, metadata: false).compare(with: out)
            let superblock = try Command.run(
                "dump.erofs", "-s", "--device=" + layout.blob(blob.descriptor.digest),
                layout.blob(layout.image.bootstrap.digest))
            #expect(superblock.contains("0xE0F5E1E2"))
        }

        @Test("the same input gives the same digests, wherever and whenever it is built")
        func reproducible() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let (tree, first) = try build(images, node)
            let copy = images.scratch.appending("copy")
            try Command.run("cp", "-a", tree, copy)
            let path = images.scratch.appending("second")
            try node.build(copy, to: "oci:\(path):other")
            #expect(try Layout(path).manifestDigest == first.manifestDigest)
        }

        @Test("skopeo copies an image to another registry and back unchanged, and it mounts from there")
        func skopeo() throws {
            let images = try Images()
            let other = try Images(seed: images.seed)
            let node = try Node([images.registry, other.registry])
            let tree = try images.sampleTree("tree")
            try node.build(tree, to: images.reference("original"))
            func digest(_ registry: RegistryFixture, _ reference: String) throws -> Digest {
                let certificates = try images.certificateDirectory(registry)
                let raw = try Command.run(
                    "skopeo", "inspect", "--raw", "--creds=\(registry.username):\(registry.password)",
                    "--cert-dir=" + certificates, "docker://" + reference)
                return SHA256.hash(Array(raw.utf8))
            }
            func copy(_ from: RegistryFixture, _ source: String, _ to: RegistryFixture, _ target: String) throws {
                try Command.run(
                    "skopeo", "copy", "--preserve-digests", "--insecure-policy",
                    "--src-creds=\(from.username):\(from.password)", "--dest-creds=\(to.username):\(to.password)",
                    "--src-cert-dir=" + images.certificateDirectory(from),
                    "--dest-cert-dir=" + images.certificateDirectory(to), "docker://" + source, "docker://" + target)
            }
            let there = other.reference("copy")
            let back = images.reference("back")
            try copy(images.registry, images.reference("original"), other.registry, there)
            try copy(other.registry, there, images.registry, back)
            let expected = try digest(images.registry, images.reference("original"))
            #expect(try digest(other.registry, there) == expected)
            #expect(try digest(images.registry, back) == expected)
            try images.compare(tree, try node.mount(there))
            try node.expectHealthy()
        }
    }
}

extension Images {
    /// A directory with the registry's CA as skopeo wants it (`--cert-dir`).
    fileprivate func certificateDirectory(_ registry: RegistryFixture) throws -> String {
        let path = scratch.appending("certificates-\(registry.port)")
        if access(path, F_OK) != 0 {
            _ = try scratch.makeDirectory("certificates-\(registry.port)")
            try Command.run("cp", try #require(registry.caFile), path + "/ca.crt")
        }
        return path
    }
}
