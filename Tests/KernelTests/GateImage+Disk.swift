import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import TestSupport

extension GateImage {
    /// An image of one file `big` that holds `chunks` chunks of random bytes.
    static func random(
        _ name: String, chunks: Int, using random: inout SeededGenerator, in scratch: ScratchDirectory
    ) throws -> (image: GateImage, big: [UInt8]) {
        let tree = try scratch.makeDirectory("tree-" + name)
        let big = random.bytes(chunks * chunkSize)
        try File(path: tree + "/big", flags: O_CREAT | O_WRONLY, mode: 0o644).writeAll(big, at: 0)
        return (try GateImage(tree: tree, in: scratch, name: name), big)
    }

    private var key: ResidencyMap.Key { .init(blob: SHA256.hash(blob), index: SHA256.hash(indexFile)) }

    /// The blob's directory in a gate's state directory (docs/formats/store.md, `KEY`).
    func blobDirectory(_ state: String) -> String {
        "\(state)/gate/blobs/\(SHA256.hash(key.blob.rawBytes + key.index.rawBytes).hex)"
    }

    /// What the map on disk says: a bit a chunk, none when there is no map.
    func durable(_ state: String) throws -> ResidencyMap {
        let empty = ResidencyMap(key: key, chunkCount: index.count, rawSize: index.rawSize)
        let path = blobDirectory(state) + "/map"
        guard Directory.exists(path) else { return empty }
        let bytes = try File(path: path, flags: O_RDONLY).contents(limit: 1 << 20)
        return try ResidencyMap.decode(bytes, key: key, chunkCount: index.count, rawSize: index.rawSize).map
    }
}

extension GateClient {
    /// Which chunks the gate has, a bit each.
    func residency(_ blob: UInt32) throws -> [UInt8] {
        guard case .residencyBits(_, _, let bits) = try ask(.residency(blob: blob)) else {
            throw FixtureError("no residency")
        }
        return bits
    }

    func verify(_ blob: UInt32) throws -> (checked: Int, bad: [UInt32]) {
        let event = try ask(.verify(blob: blob, first: 0, count: 256))
        guard case .verified(_, let checked, _, let bad) = event else { throw FixtureError("verify: \(event)") }
        return (Int(checked), bad)
    }
}

/// Drops every clean page of the machine, so that the next read reaches the disk.
func dropPageCache() throws { try Command.run("sh", "-c", "echo 1 >/proc/sys/vm/drop_caches") }

extension RunningGate {
    /// A gate whose own files are on the machine's disk and the blob of one image on another, mounted at `disk`.
    convenience init(
        _ scratch: ScratchDirectory, blobOf image: GateImage, on disk: String, arguments: [String] = []
    ) throws {
        let first = try RunningGate(scratch)
        let client = try first.connect()
        _ = try client.open(image, mount: false)
        client.close()
        first.stop()
        let directory = image.blobDirectory(first.state)
        try Command.run("cp", "-a", "--sparse=always", directory, disk + "/blob")
        try Command.run("mount", "--bind", disk + "/blob", directory)
        try self.init(scratch, arguments: arguments)
    }

    /// Ends it and lets go of every file system it used.
    func killAndUnmount() {
        kill()
        for path in [state, scratch.path] { ScratchDirectory.unmountAll(beneath: path) }
    }
}
