package import ChunkModel

/// A blob as one chunk index describes it; see `ResidencyMap.Key`.
package typealias BlobKey = ResidencyMap.Key

/// One blob of an image.
package struct CatalogueBlob: Equatable, Sendable {
    package var key: BlobKey
    /// Bytes of the raw blob.
    package var rawSize: UInt64
    package var chunkCount: Int

    package init(key: BlobKey, rawSize: UInt64, chunkCount: Int) {
        self.key = key
        self.rawSize = rawSize
        self.chunkCount = chunkCount
    }
}

/// One image this node has, or has begun to fetch.
package struct CatalogueImage: Equatable, Sendable {
    package var manifest: Digest
    /// `HOST[:PORT]/REPOSITORY` to fetch its chunks from.
    package var repository: String
    /// What it was asked for by, sorted.
    package var references: [String]
    /// Unix time in seconds of the last mount or read.
    package var lastUsed: Double
    /// Never evicted.
    package var isPinned: Bool
    package var bootstrapSize: UInt64
    /// In the order of the manifest.
    package var blobs: [CatalogueBlob]

    package init(
        manifest: Digest, repository: String, references: [String], lastUsed: Double, isPinned: Bool = false,
        bootstrapSize: UInt64, blobs: [CatalogueBlob]
    ) {
        self.manifest = manifest
        self.repository = repository
        self.references = references
        self.lastUsed = lastUsed
        self.isPinned = isPinned
        self.bootstrapSize = bootstrapSize
        self.blobs = blobs
    }
}

/// Where a chunk's content also lies. Whether it is resident there only the gate's map knows.
package struct ChunkPlace: Hashable, Sendable {
    package var blob: BlobKey
    package var chunk: Int

    package init(blob: BlobKey, chunk: Int) {
        self.blob = blob
        self.chunk = chunk
    }
}
