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
        var blobs: [ChunkdImage.Blob] = []
        if let blob {
            let indexDigest = SHA256.hash(index)
            diffIDs += [blob.rawDigest, indexDigest]
            let compression: ChunkdImage.Compression = options.format == .raw ? .raw : .zstd
            blobs.append(
                ChunkdImage.Blob(
                    descriptor: Descriptor(
                        mediaType: compression.mediaType, digest: blob.storedDigest, size: blob.storedSize),
                    compression: compression, rawSize: image.rawSize,
                    index: Descriptor(mediaType: MediaTypes.chunkIndex, digest: indexDigest, size: UInt64(index.count)),
                    seekTable: blob.seekTableDigest))
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
            _ = try ChunkdImage(manifest: manifest, bytes: manifestBytes)
        } catch { throw ImageBuildError(.invalidImage, "the manifest breaks its own rules", cause: error) }
    }
}
