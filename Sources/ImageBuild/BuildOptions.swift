package import ChunkModel
package import OCISpec

/// How to build an image.
package struct BuildOptions: Sendable {
    /// How blobs are stored.
    package enum BlobFormat: Equatable, Sendable {
        case raw
        /// Seekable zstd, one frame a chunk; `level` as in zstd(1), 1...19.
        case zstd(level: Int)
    }

    package var format: BlobFormat = .zstd(level: 3)
    package var chunking: ContentChunker.Parameters = .standard
    /// Size in bytes of EROFS's own chunks (extents): a power of two, 4096 to 1 GiB. 1 MiB keeps the tables small; smaller
    /// ones find few more equal parts (docs/formats/image.md).
    package var erofsChunkSize = 1 << 20
    /// Which image of a multi-platform source; nil is this machine's.
    package var platform: Platform?
    /// Where temporary files go; nil is TMPDIR, or /var/tmp. About twice the size of the tree is needed.
    package var temporaryDirectory: String?
    /// Threads that hash and compress.
    package var workers = 2

    package init() {}
}

/// How far a build has come.
package struct BuildProgress: Equatable, Sendable {
    package enum Phase: String, Sendable, CaseIterable {
        /// Reading the source's layers.
        case fetch
        /// Applying the layers, or nothing for a directory.
        case unpack
        /// mkfs.erofs writes bootstrap and blob.
        case format
        /// Finding chunk boundaries.
        case cut
        /// Hashing and compressing chunks.
        case pack
        /// Writing to the destination.
        case store
    }

    package let phase: Phase
    package let bytesDone: UInt64
    /// 0 while it is not known.
    package let bytesTotal: UInt64

    package init(_ phase: Phase, _ bytesDone: UInt64, of bytesTotal: UInt64) {
        self.phase = phase
        self.bytesDone = bytesDone
        self.bytesTotal = bytesTotal
    }
}

/// What was built.
package struct BuildResult: Equatable, Sendable, Codable {
    /// The destination as given.
    package let destination: String
    package let manifestDigest: Digest
    /// Bytes of the tree's files, holes included.
    package let fileBytes: UInt64
    package let files: Int
    /// Bytes of the bootstrap.
    package let bootstrapSize: UInt64
    /// Bytes of all raw blobs.
    package let rawSize: UInt64
    /// Bytes of all blobs as stored.
    package let storedSize: UInt64
    package let chunks: Int
    /// Chunks that are not equal to an earlier one of this image.
    package let distinctChunks: Int
}
