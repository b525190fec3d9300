import ChunkModel
import Glibc
import ImageBuild
import LinuxSystem
import OCISpec
import RegistryClient
import Synchronization
import Testing
import TestSupport

/// A scratch directory with what the tests of the builder do over and over.
struct Workshop {
    let scratch: ScratchDirectory

    init(_ name: String) throws { scratch = try ScratchDirectory("build-" + name) }

    func path(_ name: String) -> String { scratch.appending(name) }

    /// Options with their own directory for temporary files, so that a test can see what is left in it.
    func options(_ change: (inout BuildOptions) -> Void = { _ in }) throws -> BuildOptions {
        var options = BuildOptions()
        let temporary = path("tmp")
        try Directory.create(temporary, mode: 0o700)
        options.temporaryDirectory = temporary
        change(&options)
        return options
    }

    var leftovers: [String] { (try? Directory.names(path("tmp"))) ?? [] }

    @discardableResult
    func build(
        _ source: ImageSource, to layout: String = "image", tag: String? = nil,
        _ change: (inout BuildOptions) -> Void = { _ in }
    ) async throws -> BuildResult {
        try await ImageBuilder(options: try options(change))
            .build(source: source, destination: .layout(path: path(layout), tag: tag))
    }

    func inspect(_ layout: String = "image", tag: String? = nil) async throws -> ImageSummary {
        try await ImageInspector().inspect(.layout(path: path(layout), tag: tag))
    }

    func blob(_ digest: Digest, in layout: String = "image") -> String { path(layout) + "/blobs/sha256/" + digest.hex }

    func contents(_ path: String) throws -> [UInt8] {
        try File(path: path, flags: O_RDONLY).contents(limit: 1 << 30)
    }

    /// The image's manifest and config as JSON.
    func documents(_ layout: String = "image") async throws -> (manifest: [UInt8], config: [UInt8]) {
        let summary = try await inspect(layout)
        return (
            try contents(blob(summary.manifestDigest, in: layout)),
            try contents(blob(summary.config.digest, in: layout))
        )
    }

    /// The parts as plain files: the bootstrap, the raw blob (decompressed by zstd(1)) when there is one.
    func parts(_ layout: String = "image") async throws -> (bootstrap: String, blob: String?, index: String?) {
        let summary = try await inspect(layout)
        let bootstrap = blob(summary.layers[0].digest, in: layout)
        guard let device = summary.blobs.first else { return (bootstrap, nil, nil) }
        let index = blob(summary.layers[2].digest, in: layout)
        guard device.compression == "zstd" else { return (bootstrap, blob(device.digest, in: layout), index) }
        let raw = path(layout + ".raw")
        try Command.run("zstd", "-q", "-d", "-f", "-o", raw, blob(device.digest, in: layout))
        return (bootstrap, raw, index)
    }

    /// Compares the image with a tree by mounting it.
    @discardableResult
    func compare(_ tree: String, with layout: String = "image", seed: UInt64) async throws -> GoldenReader.Report {
        let parts = try await parts(layout)
        let target = try scratch.makeDirectory(layout + ".mount")
        try Mount.erofs(image: parts.bootstrap, devices: parts.blob.map { [$0] } ?? [], at: target)
        defer { try? Mount.unmount(target, lazily: true) }
        return try GoldenReader(original: tree, seed: seed).compare(with: target)
    }
}

/// What a progress callback was told.
final class ProgressLog: Sendable {
    private let entries = Mutex<[BuildProgress]>([])

    func add(_ progress: BuildProgress) { entries.withLock { $0.append(progress) } }

    var all: [BuildProgress] { entries.withLock { $0 } }
}

/// The seed of this run, printed so that it can be used again.
func printedSeed() -> UInt64 {
    let value = getenv("CHUNKD_TEST_SEED").map { String(cString: $0) }
    let seed = SeededGenerator.seedOfThisRun(environment: value.map { ["CHUNKD_TEST_SEED": $0] } ?? [:])
    print("seed \(seed)")
    return seed
}
