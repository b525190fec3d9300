import ChunkModel
import Integrity
import LinuxSystem
import OCISpec
import RegistryClient
import TestSupport

/// Writes ordinary images into an OCI layout, as other tools would, or as no tool should.
struct OrdinaryImage {
    enum Compression { case none, gzip, zstd }

    var layers: [[UInt8]]
    var compression = Compression.gzip
    var platform = Platform.current
    /// Members added to the config, as JSON text without braces.
    var config = #""config":{"Cmd":["/bin/sh"],"Env":["A=b"]},"created":"2020-01-02T03:04:05Z""#
    var usesDockerTypes = false

    init(layers: [TarArchive]) { self.layers = layers.map(\.whole) }

    /// Writes blobs and manifest; returns the manifest's descriptor.
    func write(to layout: String) throws -> Descriptor {
        for directory in [layout, layout + "/blobs", layout + "/blobs/sha256"] {
            try Directory.create(directory, mode: 0o755)
        }
        try Directory.replaceFile(layout + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        var descriptors: [Descriptor] = []
        for layer in layers {
            descriptors.append(try Self.put(try compressed(layer, layout), layerType, layout))
        }
        let diffIDs = layers.map { "\"\(SHA256.hash($0))\"" }.joined(separator: ",")
        let text = """
            {"architecture":"\(platform.architecture)","os":"\(platform.os)","history":[{"created_by":"test"}],\
            "rootfs":{"type":"layers","diff_ids":[\(diffIDs)]},\(config)}
            """
        let config = try Self.put(
            Array(text.utf8), usesDockerTypes ? MediaTypes.dockerConfig : MediaTypes.ociConfig, layout)
        let type = usesDockerTypes ? MediaTypes.dockerManifest : MediaTypes.ociManifest
        let manifest = try OCIJSON.encode(Manifest(mediaType: type, config: config, layers: descriptors))
        var descriptor = try Self.put(manifest, type, layout)
        descriptor.platform = platform
        return descriptor
    }

    /// Writes the image and an `index.json` that names it.
    func write(to layout: String, tag: String) throws {
        try Self.index([(try write(to: layout), tag)], layout)
    }

    static func index(_ entries: [(Descriptor, String)], _ layout: String) throws {
        let manifests = entries.map { entry, tag in
            var entry = entry
            entry.annotations["org.opencontainers.image.ref.name"] = tag
            return entry
        }
        try Directory.replaceFile(layout + "/index.json", try OCIJSON.encode(ImageIndex(manifests: manifests)))
    }

    /// Writes an image index, one manifest a platform, as a blob.
    static func nested(_ manifests: [Descriptor], _ layout: String) throws -> Descriptor {
        try put(try OCIJSON.encode(ImageIndex(manifests: manifests)), MediaTypes.ociIndex, layout)
    }

    private var layerType: String {
        switch (compression, usesDockerTypes) {
        case (.gzip, true): MediaTypes.dockerLayerGzip
        case (.none, true): MediaTypes.dockerLayerTar
        case (.none, false): MediaTypes.ociLayerTar
        case (.gzip, false): MediaTypes.ociLayerGzip
        case (.zstd, _): MediaTypes.ociLayerZstd
        }
    }

    private func compressed(_ layer: [UInt8], _ layout: String) throws -> [UInt8] {
        if compression == .none { return layer }
        let file = layout + "/layer.tmp"
        try Directory.replaceFile(file, layer)
        switch compression {
        case .gzip: try Command.run("sh", "-c", "gzip -nc \(file) >\(file).out")
        default: try Command.run("zstd", "-q", "-f", "-o", file + ".out", file)
        }
        let bytes = try File(path: file + ".out", flags: 0).contents(limit: 1 << 30)
        try Command.run("rm", file, file + ".out")
        return bytes
    }

    private static func put(_ bytes: [UInt8], _ type: String, _ layout: String) throws -> Descriptor {
        let digest = SHA256.hash(bytes)
        try Directory.replaceFile(layout + "/blobs/sha256/" + digest.hex, bytes)
        return Descriptor(mediaType: type, digest: digest, size: UInt64(bytes.count))
    }
}
