/// The digests an image manifest names, found without a JSON parser: docs/formats/image.md, "Token rule".
///
/// The gate verifies that manifest bytes hash to the image's digest, then takes every `sha256:` token in them, in
/// order. A manifest of ours has exactly: config, bootstrap, then blob and chunk index in turn. Nobody who cannot
/// change the manifest can bring in another digest, or use one in another role.
package struct ManifestDigests: Equatable, Sendable {
    package let config: Digest
    package let bootstrap: Digest
    /// One for each EROFS device, in slot order.
    package let blobs: [ResidencyMap.Key]

    /// Why bytes are not a manifest of this shape.
    package enum Invalid: Error, Equatable, CustomStringConvertible {
        case malformedDigest(offset: Int)
        case wrongCount(Int)
        case tooManyBlobs(Int)

        package var description: String {
            switch self {
            case .malformedDigest(let offset): "malformed digest at byte \(offset) of the manifest"
            case .wrongCount(let count):
                "the manifest names \(count) digests, expected config, bootstrap and a pair for each blob: "
                    + "not an image made by chunkctl image build"
            case .tooManyBlobs(let count): "the manifest names \(count) blobs, limit \(Limits.maxBlobsPerImage)"
            }
        }
    }

    /// Scans manifest bytes. Never traps, whatever they are.
    package init(manifest: [UInt8]) throws(Invalid) {
        let prefix = Array("sha256:".utf8)
        var found: [Digest] = []
        var at = 0
        while at + prefix.count <= manifest.count {
            guard manifest[at] == prefix[0], manifest[at..<at + prefix.count].elementsEqual(prefix) else {
                at += 1
                continue
            }
            let start = at + prefix.count
            guard start + 64 <= manifest.count,
                let digest = Digest(hex: String(decoding: manifest[start..<start + 64], as: UTF8.self))
            else { throw .malformedDigest(offset: at) }
            found.append(digest)
            guard found.count <= 2 + 2 * Limits.maxBlobsPerImage else { throw .tooManyBlobs(found.count / 2 - 1) }
            at = start + 64
        }
        guard found.count >= 2, found.count % 2 == 0 else { throw .wrongCount(found.count) }
        config = found[0]
        bootstrap = found[1]
        blobs = stride(from: 2, to: found.count, by: 2).map { .init(blob: found[$0], index: found[$0 + 1]) }
    }
}
