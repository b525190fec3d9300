import FoundationEssentials
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The whole path on real parts: docker-registry, chunkd, chunkgate, the kernel. One test at a time, since they share
/// the machine's processors with the programs they time out on.
@Suite(
    "End to end", .serialized,
    .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct EndToEnd {
    @Test("the machine can run these tests")
    func machine() { #expect(KernelRequirement.missing == nil) }
}

/// A registry with images made from trees that the test still has.
final class Images {
    let registry: RegistryFixture
    let scratch: ScratchDirectory
    let seed: UInt64

    init(seed: UInt64 = SeededGenerator.seedOfThisRun(environment: ProcessInfo.processInfo.environment)) throws {
        print("seed \(seed) (CHUNKD_TEST_SEED repeats it)")
        self.seed = seed
        registry = try RegistryFixture.start(tls: true, auth: .password)
        scratch = try ScratchDirectory("images")
    }

    func reference(_ name: String) -> String { "\(registry.host)/test/\(name):1" }

    /// A tree with everything in it.
    func sampleTree(_ name: String) throws -> String {
        let tree = try scratch.makeDirectory(name)
        try SampleTree.make(at: tree, SampleTree.Options(seed: seed))
        return tree
    }

    /// A tree of a few files given by name and size, which do not compress.
    func plainTree(_ name: String, _ files: [(name: String, bytes: Int)], salt: UInt64 = 0) throws -> String {
        let tree = try scratch.makeDirectory(name)
        for (number, file) in files.enumerated() {
            // From name and size alone, so that a file of the same name is the same in another tree.
            var random = SeededGenerator(seed: seed &+ salt &+ UInt64(file.bytes) &* 31 &+ UInt64(number))
            let target = try File(path: tree + "/" + file.name, flags: O_WRONLY | O_CREAT, mode: 0o644)
            try random.bytes(file.bytes).withUnsafeBytes { try target.writeAll($0, at: 0) }
        }
        return tree
    }

    /// Reads all of a mount as programs do, and compares.
    @discardableResult
    func compare(_ tree: String, _ mount: String) throws -> GoldenReader.Report {
        try GoldenReader(original: tree, seed: seed).compare(with: mount)
    }
}

/// What tests do with files and caches.
enum Files {
    /// Drops every clean page of the machine, so that the next read of a mount reaches its file system.
    static func dropCaches() throws {
        try Command.run("sh", "-c", "echo 3 >/proc/sys/vm/drop_caches")
    }

    /// Reads a file to its end; its bytes, or the errno.
    static func read(_ path: String) -> Result<[UInt8], SystemError> {
        Result { () throws(SystemError) in try File(path: path, flags: O_RDONLY).contents(limit: 1 << 30) }
    }

    /// Whether both can be read and hold the same.
    static func areEqual(_ a: String, _ b: String) -> Bool {
        guard case .success(let one) = read(a), case .success(let other) = read(b) else { return false }
        return one == other
    }

    /// Inverts one bit of a file.
    static func flipBit(_ path: String, at offset: UInt64) throws {
        let file = try File(path: path, flags: O_RDWR)
        var byte: [UInt8] = [0]
        _ = try byte.withUnsafeMutableBytes { try file.readAll(into: $0, at: offset) }
        byte[0] ^= 0x10
        try byte.withUnsafeBytes { try file.writeAll($0, at: offset) }
    }
}
