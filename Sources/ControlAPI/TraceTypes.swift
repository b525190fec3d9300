import ChunkModel

/// `POST /v1/traces`: record which chunks of an image are read first. `POST /v1/traces/end`: end that.
package struct TraceRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// An OCI reference, as for a mount; the image need not be mounted yet.
    package var reference: String

    package init(reference: String) { self.reference = reference }
}

/// Last line of `POST /v1/traces`.
package struct TraceReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var reference: String
    package var manifestDigest: Digest
    /// The document: docs/formats/trace.md.
    package var trace: String
    package var chunks: UInt64
    /// Raw bytes of these chunks.
    package var bytes: UInt64
    package var imageChunks: UInt64
    /// Chunks that were here when the recording began: those of them that had been read before are not in the trace.
    package var residentBefore: UInt64
    /// More was read than a trace may hold: this is its beginning.
    package var isFull: Bool
    package var seconds: Double

    package init(
        reference: String, manifestDigest: Digest, trace: String, chunks: UInt64, bytes: UInt64, imageChunks: UInt64,
        residentBefore: UInt64, isFull: Bool, seconds: Double
    ) {
        self.reference = reference
        self.manifestDigest = manifestDigest
        self.trace = trace
        self.chunks = chunks
        self.bytes = bytes
        self.imageChunks = imageChunks
        self.residentBefore = residentBefore
        self.isFull = isFull
        self.seconds = seconds
    }
}

/// Answer to `POST /v1/traces/end`.
package struct TraceEndReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    /// Such a recording was under way.
    package var ended: Bool

    package init(ended: Bool) { self.ended = ended }
}
