internal import ChunkModel
internal import ErofsFormat
internal import Integrity
internal import OCISpec
internal import RegistryClient

/// Everything an image consists of, with its canonical documents.
struct ImageParts: Sendable {
    let bootstrap: [UInt8]
    let bootstrapDigest: Digest
    let blob: PackedBlob?
    let rawSize: UInt64
    /// The `.caibx` of the blob.
    let index: [UInt8]
    let config: [UInt8]
    let manifest: Manifest
    let manifestBytes: [UInt8]
    let summary: BootstrapSummary

    /// The annotation of every chunkd manifest: the version of docs/formats/image.md it follows.
    static let versionAnnotation = "dev.chunkd.image.version"
    static let version = "1"

    init(_ image: ErofsImage, _ blob: PackedBlob?, config source: ImageConfig, _ options: BuildOptions) throws {
        self.blob = blob
        rawSize = image.rawSize
        summary = image.summary
        bootstrap = try image.sealed(blob: blob?.rawDigest)
        bootstrapDigest = SHA256.hash(bootstrap)
        let sizes = options.chunking
        index = blob?.index.caibx(sizes: (min: sizes.min, average: sizes.average, max: sizes.max)) ?? []
        var diffIDs = [bootstrapDigest]
        var blobs: [(blob: Descriptor, compression: ChunkdImage.Compression, rawSize: UInt64, index: Descriptor)] = []
        if let blob {
            let indexDigest = SHA256.hash(index)
            diffIDs += [blob.rawDigest, indexDigest]
            let compression: ChunkdImage.Compression = options.format == .raw ? .raw : .zstd
            blobs.append(
                (
                    Descriptor(mediaType: compression.mediaType, digest: blob.storedDigest, size: blob.storedSize),
                    compression, image.rawSize,
                    Descriptor(mediaType: MediaTypes.chunkIndex, digest: indexDigest, size: UInt64(index.count))
                ))
        }
        config = try source.encoded(diffIDs: diffIDs)
        let bootstrapDescriptor = Descriptor(
            mediaType: MediaTypes.bootstrap, digest: bootstrapDigest, size: UInt64(bootstrap.count))
        manifest = Manifest(
            config: Descriptor(
                mediaType: MediaTypes.ociConfig, digest: SHA256.hash(config), size: UInt64(config.count)),
            layers: ChunkdImage.layers(bootstrap: bootstrapDescriptor, blobs: blobs),
            annotations: [Self.versionAnnotation: Self.version])
        manifestBytes = try OCIJSON.encode(manifest)
        try check()
    }

    /// What every reader will check, checked here once more: a failure is a defect of the builder.
    private func check() throws(ImageBuildError) {
        do throws(OCISpecError) {
            _ = try ChunkdImage(manifest: manifest)
        } catch { throw ImageBuildError(.invalidImage, "the manifest breaks its own rules", cause: error) }
        let expected = [manifest.config.digest] + manifest.layers.map(\.digest)
        guard DigestTokens.digests(in: manifestBytes) == expected else {
            throw ImageBuildError(.invalidImage, "the manifest's digests are not those of config and layers in order")
        }
    }
}

/// Finds `sha256:` tokens in a manifest as a reader without JSON does (docs/formats/image.md, "The token rule").
enum DigestTokens {
    private static let prefix = Array("sha256:".utf8)

    /// Every digest after `sha256:`, in order of appearance; one that is malformed ends the list.
    static func digests(in bytes: [UInt8]) -> [Digest] {
        var out: [Digest] = []
        var at = 0
        while at + prefix.count <= bytes.count {
            guard bytes[at] == prefix[0], bytes[at..<at + prefix.count].elementsEqual(prefix) else {
                at += 1
                continue
            }
            let hex = bytes[(at + prefix.count)...].prefix(64)
            guard let digest = Digest(hex: String(decoding: hex, as: UTF8.self)) else { return out }
            out.append(digest)
            at += prefix.count + 64
        }
        return out
    }
}
