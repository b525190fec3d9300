import ChunkModel

/// `POST /v1/explain`: where chunks would come from.
package struct ExplainRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// An image by reference or manifest digest, a blob by digest, or a chunk by digest; it must be on this node or mounted.
    package var subject: String

    package init(subject: String) { self.subject = subject }
}

/// One node that has some of a blob, or wants it.
package struct ExplainedHolder: Codable, Equatable, Sendable {
    package var node: String
    package var zone: String
    /// `complete`, `partial` or `registered`: what it says of itself.
    package var state: String
    /// How likely it has the chunk, 0...1.
    package var likelihood: Double
    /// Why it is not asked; nil when it may be.
    package var passedOver: String?

    package init(node: String, zone: String, state: String, likelihood: Double, passedOver: String? = nil) {
        self.node = node
        self.zone = zone
        self.state = state
        self.likelihood = likelihood
        self.passedOver = passedOver
    }
}

/// A place that would be asked, in its order.
package struct ExplainedSource: Codable, Equatable, Sendable {
    /// `disk`, a node's name, or `registry/HOST`.
    package var source: String
    package var why: String

    package init(_ source: String, why: String) {
        self.source = source
        self.why = why
    }
}

/// One blob and one chunk of it.
package struct ExplainedBlob: Codable, Equatable, Sendable {
    package var blob: Digest
    package var chunks: UInt64
    package var residentChunks: UInt64
    /// `public`, `manifest` or `none`: who may have it.
    package var sharing: String
    /// The blob's name among peers; nil when it is not shared.
    package var wireID: String?
    /// Nodes that are asked at a mount who else is interested.
    package var trackers: [String] = []
    /// Nodes that have some of it or want it; `holders` are at most 64 of them.
    package var interestedNodes: UInt64 = 0
    package var holders: [ExplainedHolder] = []
    /// The chunk that was asked for, else the first that is not here, else the first.
    package var chunk: UInt64
    package var chunkDigest: Digest?
    package var chunkBytes: UInt64?
    /// The part of the blob that one node fetches for all.
    package var segment: UInt64?
    /// For a reader that misses the chunk now, first one first.
    package var sources: [ExplainedSource] = []

    package init(blob: Digest, chunks: UInt64, residentChunks: UInt64, sharing: String, chunk: UInt64) {
        self.blob = blob
        self.chunks = chunks
        self.residentChunks = residentChunks
        self.sharing = sharing
        self.chunk = chunk
    }
}

/// Answer to `POST /v1/explain`.
package struct ExplainReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var subject: String
    /// `image`, `blob` or `chunk`: what the subject was taken for.
    package var kind: String
    package var blobs: [ExplainedBlob]

    package init(subject: String, kind: String, blobs: [ExplainedBlob]) {
        self.subject = subject
        self.kind = kind
        self.blobs = blobs
    }
}

/// `POST /v1/drain`.
package struct DrainRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// Fetch what mounted images lack, so that they need no peer any more.
    package var hydrate: Bool

    package init(hydrate: Bool = true) { self.hydrate = hydrate }
}

/// Last line of `POST /v1/drain`.
package struct DrainReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    /// Mounted images, and the chunks of theirs that came now and that could not be had.
    package var images: UInt64
    package var filledChunks: UInt64
    package var missingChunks: UInt64
    /// The other nodes were told that this one leaves; false when there are none.
    package var announced: Bool
    package var seconds: Double

    package init(images: UInt64, filledChunks: UInt64, missingChunks: UInt64, announced: Bool, seconds: Double) {
        self.images = images
        self.filledChunks = filledChunks
        self.missingChunks = missingChunks
        self.announced = announced
        self.seconds = seconds
    }
}
