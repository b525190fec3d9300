/// Media types that chunkd reads and writes (OCI image-spec `media-types.md`; Docker image manifest v2 schema 2).
package enum MediaTypes {
    package static let ociManifest = "application/vnd.oci.image.manifest.v1+json"
    package static let ociIndex = "application/vnd.oci.image.index.v1+json"
    package static let ociConfig = "application/vnd.oci.image.config.v1+json"
    package static let ociEmpty = "application/vnd.oci.empty.v1+json"
    package static let ociLayerTar = "application/vnd.oci.image.layer.v1.tar"
    package static let ociLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
    package static let ociLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd"
    package static let ociLayerForeignPrefix = "application/vnd.oci.image.layer.nondistributable.v1.tar"

    package static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
    package static let dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
    package static let dockerConfig = "application/vnd.docker.container.image.v1+json"
    package static let dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    package static let dockerLayerTar = "application/vnd.docker.image.rootfs.diff.tar"

    /// EROFS metadata image with a device table.
    package static let bootstrap = "application/vnd.oci.image.layer.chunkd.bootstrap.v1.erofs"
    /// EROFS data device, as it is.
    package static let blobRaw = "application/vnd.oci.image.layer.chunkd.blob.v1.raw"
    /// EROFS data device in seekable zstd, one frame a chunk.
    package static let blobZstd = "application/vnd.oci.image.layer.chunkd.blob.v1.zstd"
    /// casync blob index of one blob.
    package static let chunkIndex = "application/vnd.oci.image.layer.chunkd.index.v1.caibx"

    /// What a manifest request accepts, the preferred form first.
    package static let acceptedManifests = [ociManifest, ociIndex, dockerManifest, dockerManifestList]

    package static func isManifest(_ type: String) -> Bool { type == ociManifest || type == dockerManifest }
    package static func isIndex(_ type: String) -> Bool { type == ociIndex || type == dockerManifestList }
    package static func isConfig(_ type: String) -> Bool { type == ociConfig || type == dockerConfig }

    /// How the tar stream of an ordinary layer is compressed.
    package enum LayerCompression: Sendable { case none, gzip, zstd }

    /// The compression of an ordinary layer's media type; nil when it is no tar layer chunkd can apply.
    package static func layerCompression(_ type: String) -> LayerCompression? {
        switch type {
        case ociLayerTar, dockerLayerTar, ociLayerForeignPrefix: LayerCompression.none
        case ociLayerGzip, dockerLayerGzip, ociLayerForeignPrefix + "+gzip": .gzip
        case ociLayerZstd, ociLayerForeignPrefix + "+zstd": .zstd
        default: nil
        }
    }

    /// The type without parameters, in lower case: `application/json; charset=utf-8` → `application/json`.
    /// nil when it is not `type/subtype` of RFC 6838 characters or is too long.
    package static func essence(of value: some StringProtocol) -> String? {
        guard value.utf8.count <= OCILimits.maxHeaderValueLength else { return nil }
        var out: [UInt8] = []
        for unit in value.utf8 {
            if unit == UInt8(ascii: ";") { break }
            out.append((65...90).contains(unit) ? unit + 32 : unit)
        }
        while out.last == 32 || out.last == 9 { out.removeLast() }
        while out.first == 32 || out.first == 9 { out.removeFirst() }
        let parts = out.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard out.count <= OCILimits.maxMediaTypeLength, parts.count == 2,
            parts.allSatisfy({ !$0.isEmpty && $0.allSatisfy(isRestrictedNameUnit) })
        else { return nil }
        return String(decoding: out, as: UTF8.self)
    }

    private static func isRestrictedNameUnit(_ unit: UInt8) -> Bool {
        (97...122).contains(unit) || (48...57).contains(unit) || "!#$&-^_.+".utf8.contains(unit)
    }
}
