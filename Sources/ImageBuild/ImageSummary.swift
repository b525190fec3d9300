package import ChunkModel

/// What `chunkctl image inspect` tells of a chunkd image. Sizes are in bytes.
package struct ImageSummary: Equatable, Sendable, Codable {
    package struct Layer: Equatable, Sendable, Codable {
        package let mediaType: String
        package let digest: Digest
        package let size: UInt64
    }

    /// What the config says; members are nil where it says nothing.
    package struct Config: Equatable, Sendable, Codable {
        package let digest: Digest
        package let platform: String?
        package let created: String?
        package let user: String?
        package let workingDirectory: String?
        package let entrypoint: [String]?
        package let command: [String]?
        package let environment: [String]?
    }

    /// One EROFS device.
    package struct Blob: Equatable, Sendable, Codable {
        package let digest: Digest
        /// `raw` or `zstd`.
        package let compression: String
        package let rawSize: UInt64
        package let storedSize: UInt64
        package let chunks: Int
        package let distinctChunks: Int
        package let smallestChunk: Int
        package let meanChunk: Int
        package let largestChunk: Int
        /// Chunks by size: entry i counts those of more than `bound[i-1]` and at most `bound[i]` bytes.
        package let histogram: [SizeClass]
    }

    package struct SizeClass: Equatable, Sendable, Codable {
        /// Largest size in this class.
        package let upTo: Int
        package let chunks: Int
    }

    /// What the bootstrap holds.
    package struct Tree: Equatable, Sendable, Codable {
        package let files: Int
        package let directories: Int
        package let symlinks: Int
        package let specialFiles: Int
        /// Bytes of regular files, holes included.
        package let fileBytes: UInt64
        package let uuid: String
    }

    package let reference: String
    package let manifestDigest: Digest
    /// Of docs/formats/image.md; nil when the manifest does not say.
    package let version: String?
    package let config: Config
    package let layers: [Layer]
    package let blobs: [Blob]
    package let tree: Tree

    /// Bytes of all raw blobs.
    package var rawSize: UInt64 { blobs.reduce(0) { $0 + $1.rawSize } }
    /// Bytes of all layers as stored.
    package var storedSize: UInt64 { layers.reduce(0) { $0 + $1.size } }
}
