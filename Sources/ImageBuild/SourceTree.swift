internal import ChunkModel
import Glibc
internal import Integrity
internal import LinuxSystem
internal import OCISpec
internal import RegistryClient
internal import Zstandard

/// The tree to build from, and the config the image keeps.
struct SourceTree: Sendable {
    let path: String
    let config: ImageConfig

    /// Bytes that one zstd layer may decompress to.
    static let maxLayerSize: UInt64 = 256 << 30

    /// A plain directory, as it is.
    static func directory(_ path: String, platform: Platform, temporary: BuildDirectory) throws(ImageBuildError)
        -> SourceTree
    {
        guard let resolved = realpath(path, nil) else {
            throw ImageBuildError(.badSource, "cannot read the source", cause: SystemError(errno, "realpath", path))
        }
        defer { free(resolved) }
        let real = String(cString: resolved)
        var status = stat()
        guard stat(real, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw ImageBuildError(.badSource, "\(path) is not a directory")
        }
        if let own = realpath(temporary.path, nil) {
            defer { free(own) }
            guard !String(cString: own).hasPrefix(real == "/" ? "/" : real + "/") else {
                throw ImageBuildError(
                    .invalidArgument,
                    "temporary files would be part of the image; choose a place outside \(path) with --temp-dir")
            }
        }
        return SourceTree(path: real, config: ImageConfig(platform: platform))
    }

    /// An ordinary image: its layers are fetched, verified and applied by umoci, which knows whiteouts, opaque
    /// directories, hard links, attributes, owners and devices, and keeps hostile names inside the tree.
    static func image(
        _ reader: any ImageReader, _ source: ImageSource, options: BuildOptions, in directory: BuildDirectory,
        _ cancellation: Cancellation, _ progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws -> SourceTree {
        let (_, manifest, _) = try await reader.manifest(options.platform ?? .current)
        guard MediaTypes.isConfig(manifest.config.mediaType) else {
            throw ImageBuildError(
                .unsupported,
                "\(source): config is \(OCISpecError.quote(manifest.config.mediaType)), expected an image's")
        }
        let config = try ImageConfig(try await reader.content(manifest.config, limit: OCILimits.maxConfigSize))
        if let wanted = options.platform, let found = config.platform, !found.matches(wanted) {
            throw ImageBuildError(.badSource, "\(source) is for \(found), expected \(wanted)")
        }
        guard let diffIDs = config.diffIDs, diffIDs.count == manifest.layers.count else {
            throw ImageBuildError(
                .badSource,
                "\(source): config names \(config.diffIDs?.count ?? 0) layers, manifest \(manifest.layers.count)")
        }
        let stage = try LayerStage(directory)
        let total = manifest.layers.reduce(UInt64(0)) { $0 &+ $1.size }
        var done: UInt64 = 0
        for (layer, diffID) in zip(manifest.layers, diffIDs) {
            guard let compression = MediaTypes.layerCompression(layer.mediaType) else {
                throw ImageBuildError(
                    .unsupported,
                    "\(source): layer of type \(OCISpecError.quote(layer.mediaType)) cannot be applied; it must be a tar layer"
                )
            }
            try cancellation.check()
            let before = done
            let path = LayoutNames.blob(stage.path, layer.digest)
            try await reader.fetch(layer, to: path, cancellation) { bytes in
                progress(BuildProgress(.fetch, before + bytes, of: total))
            }
            done += layer.size
            try await onThread("build-layer", cancellation) {
                try stage.add(layer, at: path, compression, diffID: diffID, cancellation)
            }
        }
        progress(BuildProgress(.unpack, 0, of: 0))
        let tree = try await onThread("build-unpack", cancellation) {
            try stage.unpack(diffIDs: diffIDs, cancellation)
        }
        return SourceTree(path: tree, config: config)
    }
}

/// An OCI layout of the source's layers, as umoci takes them: OCI media types, no zstd.
private final class LayerStage: Sendable {
    let path: String
    private let tree: String
    private let layers = Monitor<[Descriptor]>([])

    init(_ directory: BuildDirectory) throws {
        path = try directory.makeDirectory("layers")
        _ = try directory.makeDirectory("layers/blobs")
        _ = try directory.makeDirectory("layers/blobs/sha256")
        tree = directory.appending("tree")
    }

    /// Adds a fetched layer; a zstd layer is decompressed, since umoci does not know them.
    func add(
        _ layer: Descriptor, at file: String, _ compression: MediaTypes.LayerCompression, diffID: Digest,
        _ cancellation: Cancellation
    ) throws {
        var descriptor = Descriptor(mediaType: MediaTypes.ociLayerTar, digest: layer.digest, size: layer.size)
        switch compression {
        case .none: break
        case .gzip: descriptor.mediaType = MediaTypes.ociLayerGzip
        case .zstd:
            let target = LayoutNames.blob(path, diffID)
            descriptor.size = try Self.decompress(file, to: target, expecting: diffID, cancellation)
            descriptor.digest = diffID
            if layer.digest != diffID { unlink(file) }
        }
        layers.withLock { $0.append(descriptor) }
    }

    /// Returns the bytes written.
    private static func decompress(
        _ source: String, to target: String, expecting diffID: Digest, _ cancellation: Cancellation
    ) throws -> UInt64 {
        let output = try File(path: target, flags: O_WRONLY | O_CREAT | O_TRUNC)
        var decompressor = try StreamDecompressor(limit: SourceTree.maxLayerSize)
        var hasher = SHA256()
        var size: UInt64 = 0
        do {
            try FileTransfer.each(try File(path: source, flags: O_RDONLY), cancellation) { piece in
                try decompressor.feed(piece) { bytes in
                    hasher.update(bytes)
                    try output.writeAll(bytes, at: size)
                    size += UInt64(bytes.count)
                }
            }
        } catch let error as ZstandardError {
            throw ImageBuildError(.corruptSource, "layer \(diffID)", cause: error)
        }
        let found = hasher.finalize()
        guard decompressor.isAtFrameEnd, found == diffID else {
            throw ImageBuildError(.corruptSource, "layer: expected uncompressed digest \(diffID), found \(found)")
        }
        return size
    }

    /// Applies all layers and returns the tree.
    func unpack(diffIDs: [Digest], _ cancellation: Cancellation) throws -> String {
        guard geteuid() == 0 else {
            throw ImageBuildError(
                .tool,
                "applying layers needs root (owners, devices, security attributes); run as root or build from a directory"
            )
        }
        let writer = try LayoutWriter(path: path)
        // Only the layers matter to umoci; the image's own config, which may hold anything, is not shown to it.
        let config = try ImageConfig(platform: .current).encoded(diffIDs: diffIDs)
        let manifest = Manifest(
            config: Descriptor(
                mediaType: MediaTypes.ociConfig, digest: try writer.put(config), size: UInt64(config.count)),
            layers: layers.withLock { $0 })
        let bytes = try OCIJSON.encode(manifest)
        try writer.commit(
            Descriptor(mediaType: MediaTypes.ociManifest, digest: try writer.put(bytes), size: UInt64(bytes.count)),
            tag: "source")
        let marker = try File(path: path + "/marker", flags: O_WRONLY | O_CREAT)
        let start = try marker.status().st_mtim
        try Tool.run(
            "umoci", ["--log=error", "raw", "unpack", "--image", path + ":source", tree], package: "umoci", cancellation
        )
        try TreeWalk.clearDirectoryTimes(tree, since: start, cancellation)
        // The layers are not needed any more; the tree takes their place on disk.
        try Tool.run("rm", ["-rf", "--", path], package: "coreutils", cancellation)
        return tree
    }
}
