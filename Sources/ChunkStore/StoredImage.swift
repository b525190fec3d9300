import ChunkModel

/// An image on disk whose manifest was checked and whose blobs are open.
package struct StoredImage: Sendable {
    package let digest: Digest
    package let digests: ManifestDigests
    /// The image's directory.
    package let directory: String
    package let bootstrapSize: UInt64
    /// In device slot order; the same blob may stand twice.
    package let blobs: [Blob]

    package var bootstrapPath: String { directory + "/bootstrap.erofs" }
    /// Where the gate mounts it.
    package var mountPath: String { directory + "/mnt" }
}
