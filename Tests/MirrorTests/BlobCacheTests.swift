import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import Synchronization
import TestSupport
import Testing

@testable import Mirror

@Suite("Whole blobs on disk") struct BlobCacheTests {
    static let kibibyte: UInt64 = 1024

    /// A cache whose evictions are seen.
    final class Rig: Sendable {
        let directory: TemporaryDirectory
        let gone = Mutex<[Digest]>([])

        init() throws { directory = try TemporaryDirectory(prefix: "chunkd-mirror") }

        var path: String { directory.path + "/mirror" }
        func open(quota: UInt64) throws -> BlobCache {
            try BlobCache(directory: path, quota: quota) { digest in self.gone.withLock { $0.append(digest) } }
        }
    }

    static func bytes(_ seed: UInt64, _ count: Int = 1024) -> [UInt8] {
        var random = SeededGenerator(seed: seed)
        return random.bytes(count)
    }

    @discardableResult
    static func put(_ bytes: [UInt8], in cache: BlobCache) throws -> Digest {
        let digest = SHA256.hash(bytes)
        let draft = try cache.begin(digest, size: UInt64(bytes.count))
        try draft.file.writeAll(bytes, at: 0)
        _ = try cache.commit(draft, digest)
        return digest
    }

    static func read(_ digest: Digest, _ size: Int, _ cache: BlobCache, trust: Duration = .zero) throws -> [UInt8]? {
        try cache.open(digest, size: UInt64(size), trust: trust)?.file.contents(limit: size)
    }

    @Test("what was written is found again, also by the next process; a draft is not")
    func keeps() throws {
        let rig = try Rig()
        let (one, other) = (Self.bytes(1), Self.bytes(2, 5000))
        do {
            let cache = try rig.open(quota: 1 << 20)
            let digest = try Self.put(one, in: cache)
            #expect(try Self.read(digest, one.count, cache) == one)
            #expect(!cache.has(SHA256.hash(other), size: 5000))
            let draft = try cache.begin(SHA256.hash(other), size: 5000)
            try draft.file.writeAll(other, at: 0)
            #expect(try Self.read(SHA256.hash(other), 5000, cache) == nil)
        }
        #expect(try Directory.names(rig.path + "/new") == [], "a draft that was let go of")
        let file = try File(path: rig.path + "/new/left", flags: O_WRONLY | O_CREAT)
        try file.writeAll([1, 2, 3], at: 0)
        let cache = try rig.open(quota: 1 << 20)
        #expect(cache.bytes == 1024)
        #expect(try Self.read(SHA256.hash(one), one.count, cache) == one)
        #expect(try Self.read(SHA256.hash(one), one.count - 1, cache) == nil, "another size")
        #expect(try Directory.names(rig.path + "/new") == [], "left by a crash")
    }

    @Test("a damaged, torn or missing file is never given out, and is gone")
    func damage() throws {
        let rig = try Rig()
        let blobs = (1...3).map { seed in Self.bytes(UInt64(seed)) }
        do {
            let cache = try rig.open(quota: 1 << 20)
            for blob in blobs { try Self.put(blob, in: cache) }
        }
        let paths = blobs.map { "\(rig.path)/blobs/\(SHA256.hash($0).hex)" }
        try File(path: paths[0], flags: O_WRONLY).writeAll([blobs[0][100] ^ 1], at: 100)
        // As long as before, with zeros: what a power cut leaves.
        let torn = try File(path: paths[1], flags: O_WRONLY)
        try torn.truncate(to: 512)
        try torn.truncate(to: 1024)
        let cache = try rig.open(quota: 1 << 20)
        unlink(paths[2])
        // However long ago it may have been hashed: this process has not.
        for blob in blobs { #expect(try Self.read(SHA256.hash(blob), 1024, cache, trust: .seconds(1000)) == nil) }
        #expect(Set(rig.gone.withLock { $0 }) == Set(blobs.map { SHA256.hash($0) }))
        #expect(cache.bytes == 0)
        #expect(try Directory.names(rig.path + "/blobs") == [])
    }

    @Test("what this process has hashed lately is trusted for so long, and rot is found after it")
    func trust() throws {
        let rig = try Rig()
        let cache = try rig.open(quota: 1 << 20)
        let blob = Self.bytes(1)
        let digest = try Self.put(blob, in: cache)
        try File(path: "\(rig.path)/blobs/\(digest.hex)", flags: O_WRONLY).writeAll([blob[0] ^ 1], at: 0)
        #expect(try Self.read(digest, 1024, cache, trust: .seconds(1000)) != nil)
        #expect(try Self.read(digest, 1024, cache, trust: .zero) == nil)
    }

    @Test("the longest unused goes first, over a restart too, and nothing that is being sent")
    func eviction() throws {
        let rig = try Rig()
        var digests: [Digest] = []
        do {
            let cache = try rig.open(quota: 4 * Self.kibibyte)
            for seed in 1...4 { digests.append(try Self.put(Self.bytes(UInt64(seed)), in: cache)) }
            #expect(cache.bytes == 4096)
            _ = cache.open(digests[0], size: 1024, trust: .zero)
            let lease = cache.open(digests[1], size: 1024, trust: .zero)
            digests.append(try Self.put(Self.bytes(5), in: cache))
            #expect(rig.gone.withLock { $0 } == [digests[2]])
            digests.append(try Self.put(Self.bytes(6, 2048), in: cache))
            #expect(rig.gone.withLock { $0 } == [digests[2], digests[3], digests[0]], "\(digests[1]) is being sent")
            #expect(try lease?.file.contents(limit: 1024) == Self.bytes(2))
        }
        // The quota of the next process may be less.
        let cache = try rig.open(quota: 2 * Self.kibibyte)
        #expect(cache.bytes <= 2048)
        #expect(rig.gone.withLock { $0.count } >= 4)
    }

    @Test("drafts count, too: what does not fit beside them is refused")
    func drafts() throws {
        let rig = try Rig()
        let cache = try rig.open(quota: 4 * Self.kibibyte)
        #expect(throws: BlobCache.NoRoom.quota) {
            try cache.begin(SHA256.hash([1]), size: 4 * Self.kibibyte + 1)
        }
        var draft: BlobCache.Draft? = try cache.begin(SHA256.hash([1]), size: 3 * Self.kibibyte)
        #expect(throws: BlobCache.NoRoom.quota) { try cache.begin(SHA256.hash([2]), size: 2 * Self.kibibyte) }
        withExtendedLifetime(draft) {}
        draft = nil
        #expect(throws: Never.self) { try cache.begin(SHA256.hash([2]), size: 2 * Self.kibibyte) }
        let huge = try rig.open(quota: 1 << 60)
        #expect(throws: BlobCache.NoRoom.disk) { try huge.begin(SHA256.hash([3]), size: 1 << 55) }
        #expect(throws: BlobCache.NoRoom.disk, "what was reserved for it is free again") {
            try huge.begin(SHA256.hash([3]), size: 1 << 59)
        }
    }
}
