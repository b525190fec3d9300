/// Limits that more than one module keeps. Each has its arithmetic beside it.
package enum Limits {
    /// EROFS block, page and chunk alignment, in bytes.
    package static let blockSize = 4096
    /// No chunk is larger, in bytes: what one verification buffer must hold.
    package static let maxChunkSize = 4 << 20
    /// Chunks in one blob: 1 Mi × 512 KiB ≈ 512 GiB of raw data, and a residency map of 128 KiB.
    package static let maxChunksPerBlob = 1 << 20
    /// Blobs (EROFS devices) in one image: their descriptors fit one 64 KiB frame and one SCM_RIGHTS message.
    package static let maxBlobsPerImage = 64
    /// Bytes of an image manifest or index that are read at all (the distribution spec's own recommendation).
    package static let maxManifestSize = 4 << 20
    /// Bytes of a chunk index file: 48-byte header, 40 bytes an entry, 56 bytes of table framing.
    package static let maxChunkIndexSize = 48 + 16 + maxChunksPerBlob * 40 + 40
    /// Bytes of a bootstrap: 100,000 files take about 10 MB; 1 GiB leaves room for the largest trees.
    package static let maxBootstrapSize = 1 << 30
}
