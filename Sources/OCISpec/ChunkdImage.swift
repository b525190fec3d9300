import ChunkModel

/// The validated shape of a chunkd image manifest: config, bootstrap and, per EROFS device in order, a blob with its
/// chunk index.
///
/// Layers are, in this order: one bootstrap, then for each device its blob immediately followed by the blob's chunk
/// index. A zstd blob carries its raw size and the digest of its seek table in annotations. See docs/formats/image.md.
/// Value type, safe on any thread.
package struct ChunkdImage: Hashable, Sendable {
    /// How a blob is stored.
    package enum Compression: String, Sendable, CaseIterable {
        case raw, zstd

        /// The layer's media type.
        package var mediaType: String {
            switch self {
            case .raw: MediaTypes.blobRaw
            case .zstd: MediaTypes.blobZstd
            }
        }
    }

    /// One EROFS data device.
    package struct Blob: Hashable, Sendable {
        /// The stored blob: what the registry keeps, compressed or not.
        package let descriptor: Descriptor
        package let compression: Compression
        /// Bytes of the raw (uncompressed) device; must equal the chunk index's `rawSize`.
        package let rawSize: UInt64
        /// The blob's chunk index.
        package let index: Descriptor
        /// Of the seek table at the end of a zstd blob: what a part of the blob is checked by before the whole is there.
        /// Nil for a raw blob.
        package let seekTable: Digest?

        package init(
            descriptor: Descriptor, compression: Compression, rawSize: UInt64, index: Descriptor, seekTable: Digest?
        ) {
            self.descriptor = descriptor
            self.compression = compression
            self.rawSize = rawSize
            self.index = index
            self.seekTable = seekTable
        }
    }

    /// Annotation on a zstd blob's descriptor: the raw device's size in bytes, decimal.
    package static let rawSizeAnnotation = "dev.chunkd.blob.raw-size"
    /// Annotation on a zstd blob's descriptor: SHA-256 of its seek table, 64 hexadecimal digits. Without `sha256:`, or the
    /// token rule would take it for a layer.
    package static let seekTableAnnotation = "dev.chunkd.blob.seek-table"
    /// Bytes of a raw device: what the chunk index can describe.
    package static let maxRawSize = UInt64(Limits.maxChunksPerBlob) * UInt64(Limits.maxChunkSize)
    /// Bytes of a stored zstd blob: zstd grows incompressible data by less than 1/128 plus framing of about 32 bytes
    /// a chunk; 1/64 is a safe bound.
    package static func maxStoredSize(rawSize: UInt64) -> UInt64 { rawSize + rawSize / 64 + (1 << 20) }

    package let config: Descriptor
    package let bootstrap: Descriptor
    /// In device order: `blobs[0]` is EROFS device 1.
    package let blobs: [Blob]

    /// Checks a manifest and the bytes it was read from; `notChunkdImage` or `limitExceeded` says what was expected and
    /// found. Both, because the gate reads the bytes without a JSON parser: what the two see must be one image
    /// (docs/formats/image.md, "The token rule").
    package init(manifest: Manifest, bytes: [UInt8]) throws(OCISpecError) {
        try self.init(manifest: manifest)
        let tokens: ManifestDigests
        do throws(ManifestDigests.Invalid) {
            tokens = try ManifestDigests(manifest: bytes)
        } catch { throw Self.refuse("\(error)") }
        guard tokens.config == config.digest, tokens.bootstrap == bootstrap.digest,
            tokens.blobs == blobs.map({ ResidencyMap.Key(blob: $0.descriptor.digest, index: $0.index.digest) })
        else { throw Self.refuse("the manifest holds digests beside those of config and layers, or in another order") }
    }

    private init(manifest: Manifest) throws(OCISpecError) {
        let types = manifest.layers.map(\.mediaType)
        guard let first = manifest.layers.first, first.mediaType == MediaTypes.bootstrap else {
            let found = types.first.map { "first layer is \(OCISpecError.quote($0))" } ?? "the manifest has no layers"
            throw Self.refuse("\(found), expected \(MediaTypes.bootstrap)")
        }
        guard MediaTypes.isConfig(manifest.config.mediaType) else {
            throw Self.refuse(
                "config is \(OCISpecError.quote(manifest.config.mediaType)), expected \(MediaTypes.ociConfig)")
        }
        try Self.check("config", manifest.config.size, 1...UInt64(OCILimits.maxConfigSize))
        try Self.check("bootstrap", first.size, UInt64(Limits.blockSize)...UInt64(Limits.maxBootstrapSize))
        let rest = manifest.layers.dropFirst()
        guard rest.count % 2 == 0 else {
            throw Self.refuse("\(rest.count) layers after the bootstrap, expected pairs of blob and chunk index")
        }
        guard rest.count / 2 <= Limits.maxBlobsPerImage else {
            throw OCISpecError(
                .limitExceeded, "chunkd image has \(rest.count / 2) blobs, limit \(Limits.maxBlobsPerImage)")
        }
        var blobs: [Blob] = []
        for number in 0..<rest.count / 2 {
            let at = rest.startIndex + number * 2
            let blob = try Self.blob(number, rest[at], rest[at + 1])
            guard !blobs.contains(where: { $0.descriptor.digest == blob.descriptor.digest }) else {
                throw Self.refuse("blob \(number) repeats \(blob.descriptor.digest)")
            }
            blobs.append(blob)
        }
        config = manifest.config
        bootstrap = first
        self.blobs = blobs
    }

    private static func blob(_ number: Int, _ blob: Descriptor, _ index: Descriptor) throws(OCISpecError) -> Blob {
        guard let compression = Compression.allCases.first(where: { $0.mediaType == blob.mediaType }) else {
            throw refuse(
                "blob \(number) is \(OCISpecError.quote(blob.mediaType)), expected \(MediaTypes.blobRaw) or "
                    + MediaTypes.blobZstd)
        }
        guard index.mediaType == MediaTypes.chunkIndex else {
            throw refuse(
                "layer after blob \(number) is \(OCISpecError.quote(index.mediaType)), expected "
                    + MediaTypes.chunkIndex
            )
        }
        let annotation = blob.annotations[rawSizeAnnotation]
        let rawSize: UInt64
        var seekTable: Digest?
        switch compression {
        case .raw:
            guard annotation == nil || decimal(annotation) == blob.size else {
                throw refuse("raw blob \(number) has size \(blob.size) but says its raw size is otherwise")
            }
            rawSize = blob.size
        case .zstd:
            guard let value = decimal(annotation) else {
                throw refuse("zstd blob \(number) lacks a decimal annotation \(rawSizeAnnotation)")
            }
            rawSize = value
            seekTable = blob.annotations[seekTableAnnotation].flatMap { Digest(hex: $0) }
            guard seekTable != nil else {
                throw refuse("zstd blob \(number) lacks an annotation \(seekTableAnnotation) of 64 hexadecimal digits")
            }
        }
        try check("raw blob \(number)", rawSize, 1...maxRawSize)
        try check("stored blob \(number)", blob.size, 1...maxStoredSize(rawSize: rawSize))
        // 104 bytes of framing around an empty table, see ChunkIndex.
        try check("chunk index \(number)", index.size, 104...UInt64(Limits.maxChunkIndexSize))
        return Blob(descriptor: blob, compression: compression, rawSize: rawSize, index: index, seekTable: seekTable)
    }

    /// Strictly decimal: no sign, no leading zero, at most 19 digits.
    private static func decimal(_ text: String?) -> UInt64? {
        guard let text, (1...19).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }),
            text.utf8.count == 1 || text.utf8.first != 48
        else { return nil }
        return UInt64(text)
    }

    private static func check(_ what: String, _ size: UInt64, _ allowed: ClosedRange<UInt64>) throws(OCISpecError) {
        guard allowed.contains(size) else {
            throw OCISpecError(
                .limitExceeded,
                "\(what) has \(size) bytes, expected \(allowed.lowerBound) to \(allowed.upperBound)")
        }
    }

    private static func refuse(_ found: String) -> OCISpecError {
        OCISpecError(.notChunkdImage, "not a chunkd image: \(found); build one with chunkctl image build")
    }

    /// The layers of a manifest for these blobs, in the order that `init(manifest:bytes:)` expects; sets each media type
    /// and the annotations.
    package static func layers(bootstrap: Descriptor, blobs: [Blob]) -> [Descriptor] {
        var first = bootstrap
        first.mediaType = MediaTypes.bootstrap
        var out = [first]
        for part in blobs {
            var blob = part.descriptor
            blob.mediaType = part.compression.mediaType
            blob.annotations[rawSizeAnnotation] = part.compression == .zstd ? String(part.rawSize) : nil
            blob.annotations[seekTableAnnotation] = part.seekTable?.hex
            var index = part.index
            index.mediaType = MediaTypes.chunkIndex
            out += [blob, index]
        }
        return out
    }
}
