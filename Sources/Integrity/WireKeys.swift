import COpenSSL
import ChunkModel

/// What only a holder of a manifest's bytes can compute: it keys the wire ids of an image that needed credentials.
///
/// SHA-256("chunkd manifest 1\0" + manifest bytes). The digest of a manifest may be known to anybody who sees a pod
/// description; its bytes are given by the registry to those it lets pull.
package struct ManifestKey: Sendable, Equatable {
    let bytes: [UInt8]

    /// Derives the key from the manifest as the registry gave it.
    package init(manifest: [UInt8]) {
        var hasher = SHA256()
        Array("chunkd manifest 1\0".utf8).withUnsafeBytes { hasher.update($0) }
        manifest.withUnsafeBytes { hasher.update($0) }
        bytes = hasher.finalize().rawBytes
    }

    /// HMAC-SHA256 (RFC 2104) under this key.
    func authenticate(_ message: [UInt8]) -> WireID {
        var tag = [UInt8](repeating: 0, count: WireID.byteCount)
        var length: UInt32 = 0
        let result = HMAC(
            EVP_sha256(), bytes, Int32(bytes.count), message, message.count, &tag, &length)
        // Fails only when memory is exhausted or libcrypto is broken: trap, never go on with another id.
        guard result != nil, length == UInt32(WireID.byteCount), let id = WireID(rawBytes: tag) else {
            fatalError("libcrypto cannot compute HMAC-SHA256")
        }
        return id
    }
}

extension ManifestKey: CustomStringConvertible {
    /// Never the key: it is a secret among those who may pull the image.
    package var description: String { "manifest key" }
}

extension WireID {
    /// The id of a blob on the wire: SHA-256("chunkd blob 1\0" + blob digest + index digest), or the HMAC of the same
    /// under `key` for an image that needed credentials. Both digests, because an index decides which bytes are a
    /// blob's (docs/formats/map.md).
    package static func blob(_ blob: Digest, index: Digest, key: ManifestKey?) -> WireID {
        let message = Array("chunkd blob 1\0".utf8) + blob.rawBytes + index.rawBytes
        return key.map { $0.authenticate(message) } ?? WireID(SHA256.hash(message))
    }

    /// The id of an ordinary image on the wire: SHA-256("chunkd whole image 1\0" + manifest digest), or the HMAC of the same
    /// under `key` for an image that needed credentials. Its blobs are named as chunks are.
    package static func wholeImage(_ manifest: Digest, key: ManifestKey?) -> WireID {
        let message = Array("chunkd whole image 1\0".utf8) + manifest.rawBytes
        return key.map { $0.authenticate(message) } ?? WireID(SHA256.hash(message))
    }

    /// The id of a chunk on the wire: its digest, or the HMAC of its digest under `key`.
    package static func chunk(_ digest: Digest, key: ManifestKey?) -> WireID {
        key.map { $0.authenticate(digest.rawBytes) } ?? WireID(digest)
    }
}
