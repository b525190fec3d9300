import ArgumentParser
import ChunkModel
import Glibc
import ImageBuild
import OCISpec
import RegistryClient
import Settings

struct ImageCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image", abstract: "Build and inspect images.",
        discussion: """
            EXAMPLES:
              chunkctl image build ./tree registry.example/data/set:1
              chunkctl image inspect registry.example/data/set:1
            """,
        subcommands: [ImageBuildCommand.self, ImageInspectCommand.self])
}

struct ImageBuildCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build",
        abstract: "Build an image from a directory, an OCI layout or an ordinary image.",
        discussion: """
            EXAMPLES:
              chunkctl image build ./tree registry.example/data/set:1
              chunkctl image build registry.example/debian:12 registry.example/debian:12-lazy
              chunkctl image build oci:/srv/layout:v1 oci:/srv/out:v1 --compression raw
              chunkctl image build --platform linux/arm64 registry.example/app:1 registry.example/app:1-lazy

            SRC is a path (/PATH, ./PATH), oci:PATH[:TAG] or a registry reference; DEST is oci:PATH[:TAG] or a registry
            reference. The same input gives the same digests. Needs mkfs.erofs, and umoci unless SRC is a directory.
            """)

    enum Compression: String, ExpressibleByArgument, CaseIterable {
        case zstd, raw
    }

    @Argument(help: "Source: a directory, oci:PATH[:TAG] or a registry reference.")
    var source: String

    @Argument(help: "Destination: oci:PATH[:TAG] or a registry reference.")
    var destination: String

    @Option(help: "OS/ARCH[/VARIANT] of a multi-platform source (default: this machine's).")
    var platform: String?

    @Option(help: "How blobs are stored.")
    var compression = Compression.zstd

    @Option(help: "zstd level, 1 to 19 (default: 3).")
    var level: Int?

    @Option(help: ArgumentHelp("Directory for temporary files (default: TMPDIR, or /var/tmp).", valueName: "path"))
    var tempDir: String?

    @OptionGroup var common: CommonOptions

    func validate() throws {
        if let level {
            guard compression == .zstd else { throw ValidationError("--level goes with --compression zstd") }
            guard (1...19).contains(level) else { throw ValidationError("--level: expected 1 to 19, found \(level)") }
        }
    }

    func run() async throws {
        var options = BuildOptions()
        options.format = compression == .raw ? .raw : .zstd(level: level ?? 3)
        if let platform { options.platform = try Platform(platform) }
        options.temporaryDirectory = tempDir
        let from = try ImageSource(argument: source)
        let to = try ImageDestination(argument: destination)
        let builder = ImageBuilder(options: options, registry: try common.registryClient())
        let progress = ProgressLine(common.output)
        defer { progress.end() }
        let build = Task { try await builder.build(source: from, destination: to) { progress.show($0.line) } }
        let result = try await Interrupts.cancelling(build)
        progress.end()
        try Console.show(Versioned(result), as: common.output) { Self.text(result) }
    }

    private static func text(_ result: BuildResult) -> String {
        Table.pairs([
            ("image", result.destination),
            ("digest", result.manifestDigest.description),
            ("files", "\(result.files), \(Table.bytes(result.fileBytes))"),
            ("bootstrap", Table.bytes(result.bootstrapSize)),
            ("data", "\(Table.bytes(result.rawSize)), stored in \(Table.bytes(result.storedSize))"),
            ("chunks", "\(result.chunks), \(result.distinctChunks) of them distinct"),
        ])
    }
}

struct ImageInspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show what an image consists of, and check that its parts agree.",
        discussion: """
            EXAMPLES:
              chunkctl image inspect registry.example/data/set:1
              chunkctl image inspect oci:/srv/out:v1 -o json | jq .tree
            """)

    @Argument(help: "Image: a registry reference or oci:PATH[:TAG].")
    var reference: String

    @Option(help: "OS/ARCH[/VARIANT] of a multi-platform image (default: this machine's).")
    var platform: String?

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let location = try ImageDestination(argument: reference)
        let wanted = try platform.map { try Platform($0) }
        let summary = try await ImageInspector(registry: try common.registryClient())
            .inspect(location, platform: wanted)
        try Console.show(Versioned(summary), as: common.output) { Self.text(summary) }
    }

    private static func text(_ image: ImageSummary) -> String {
        var pairs = [
            ("image", image.reference), ("digest", image.manifestDigest.description),
            ("platform", image.config.platform ?? "-"),
            (
                "tree",
                "\(image.tree.files) files (\(Table.bytes(image.tree.fileBytes))), \(image.tree.directories) directories, "
                    + "\(image.tree.symlinks) links, \(image.tree.specialFiles) special"
            ),
            ("data", "\(Table.bytes(image.rawSize)), stored in \(Table.bytes(image.storedSize)) with all layers"),
        ]
        if let command = image.config.entrypoint ?? image.config.command {
            pairs.append(("runs", command.joined(separator: " ")))
        }
        let layers = image.layers.map { [$0.mediaType, $0.digest.short, Table.bytes($0.size)] }
        let blobs = image.blobs.map { blob in
            [
                blob.digest.short, blob.compression, Table.bytes(blob.rawSize), Table.bytes(blob.storedSize),
                "\(blob.chunks)", "\(blob.distinctChunks)", Table.bytes(UInt64(blob.meanChunk)),
                Table.bytes(UInt64(blob.largestChunk)),
            ]
        }
        return [
            Table.pairs(pairs), Table.render(header: ["LAYER", "DIGEST", "SIZE"], rows: layers, right: [2]),
            Table.render(
                header: ["BLOB", "AS", "SIZE", "STORED", "CHUNKS", "DISTINCT", "MEAN", "LARGEST"], rows: blobs,
                right: [2, 3, 4, 5, 6, 7]),
        ].joined(separator: "\n\n")
    }
}

extension BuildProgress {
    /// `pack 35% 358 MiB of 1 GiB`.
    fileprivate var line: String {
        guard bytesTotal > 0 else { return "\(phase.rawValue) \(Table.bytes(bytesDone))" }
        let share = Table.percent(bytesDone, of: bytesTotal)
        return "\(phase.rawValue) \(share) \(Table.bytes(bytesDone)) of \(Table.bytes(bytesTotal))"
    }
}

extension CommonOptions {
    /// A client with the configuration's registries, and the user's own docker login where it names none.
    func registryClient() throws -> RegistryClient {
        var settings = try settings()
        if settings.dockerConfig.isEmpty {
            let environment = ConnectionOptions.environment()
            let directory = environment["DOCKER_CONFIG"] ?? environment["HOME"].map { $0 + "/.docker" }
            if let path = directory.map({ $0 + "/config.json" }), access(path, R_OK) == 0 {
                settings.dockerConfig = path
            }
        }
        return RegistryClient(
            configuration: try settings.registryConfiguration(userAgent: "chunkctl/\(chunkdVersion)"))
    }
}
