import ChunkModel

/// What came from one kind of place: `local` (another blob of this node), `registry`, later `peer`.
package struct SourceStat: Codable, Equatable, Sendable {
    /// Source name; for registries with their host, as `registry/docker.io`.
    package var source: String
    package var chunks: UInt64
    /// As transferred: compressed bytes count compressed.
    package var bytes: UInt64
    package var errors: UInt64
    /// Of one request; nil before the first.
    package var p50Seconds: Double?
    package var p99Seconds: Double?

    package init(
        source: String, chunks: UInt64, bytes: UInt64, errors: UInt64, p50Seconds: Double? = nil,
        p99Seconds: Double? = nil
    ) {
        self.source = source
        self.chunks = chunks
        self.bytes = bytes
        self.errors = errors
        self.p50Seconds = p50Seconds
        self.p99Seconds = p99Seconds
    }
}

/// Something no longer asked, and why.
package struct QuarantineStat: Codable, Equatable, Sendable {
    /// `image` or `source`.
    package var kind: String
    package var name: String
    package var reason: String

    package init(kind: String, name: String, reason: String) {
        self.kind = kind
        self.name = name
        self.reason = reason
    }
}

/// How often one bounded reason occurred.
package struct ReasonCount: Codable, Equatable, Sendable {
    package var reason: String
    package var count: UInt64

    package init(reason: String, count: UInt64) {
        self.reason = reason
        self.count = count
    }
}

/// What readers asked for, as the gate saw it since it started.
package struct ReadStat: Codable, Equatable, Sendable {
    /// Bytes asked for in events. Reads the page cache answers, and reads of graduated blobs, raise none.
    package var bytesRead: UInt64 = 0
    package var events: UInt64 = 0
    package var hits: UInt64 = 0
    package var misses: UInt64 = 0
    /// Reads that ended in EIO.
    package var denied: UInt64 = 0
    package var blockedReaders: UInt64 = 0
    /// Age of the oldest read that waits now; 0 when none does.
    package var oldestBlockedSeconds: Double = 0
    /// From miss to fill, over the last misses; nil before the first.
    package var missP50Seconds: Double?
    package var missP99Seconds: Double?

    package init() {}
}

/// Signs of harm. All must be zero, false or empty on a healthy node.
package struct IntegrityStat: Codable, Equatable, Sendable {
    /// Events our own accesses raised: a defect (kernel-facts law 6).
    package var selfEvents: UInt64 = 0
    /// The fanotify group was lost while images were mounted: `chunkctl stat` exits 1.
    package var integrityGap = false
    /// Times that happened, ever.
    package var integrityGaps: UInt64 = 0
    /// Chunks that came with bytes other than the index says, and were refused.
    package var mismatches: UInt64 = 0
    package var verifyFailures: UInt64 = 0
    package var quarantined: [QuarantineStat] = []

    package init() {}
}

/// Ordinary images through the mirror, since chunkd started: bytes of whole blobs.
package struct MirrorStat: Codable, Equatable, Sendable {
    package var bytesFromPeers: UInt64 = 0
    package var bytesFromRegistries: UInt64 = 0
    /// Given to containerd from this node's disk.
    package var bytesFromCache: UInt64 = 0
    package var bytesToPeers: UInt64 = 0
    /// Blobs that could not be had: containerd went on to the registry.
    package var failures: UInt64 = 0
    /// On this node's disk, and the most that may be.
    package var cacheBytes: UInt64 = 0
    package var quotaBytes: UInt64 = 0

    package init() {}
}

/// Answer to `GET /v1/stat`.
package struct StatReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var uptimeSeconds: Double = 0
    package var gateConnected = false
    package var gateRestarts: UInt64 = 0
    package var reads = ReadStat()
    /// Sum of `sources` bytes that came from outside the node.
    package var bytesFetched: UInt64 = 0
    /// Sorted by name.
    package var sources: [SourceStat] = []
    /// Part of the chunks from outside the node that no registry gave, 0...1; nil before the first.
    package var offloadRatio: Double?
    /// What is known of who has what: blobs, and memory.
    package var indexBlobs: UInt64 = 0
    package var indexBytes: UInt64 = 0
    package var images: [ImageSummary] = []
    package var graduatedBlobs: UInt64 = 0
    package var integrity = IntegrityStat()
    /// Sorted by reason.
    package var errors: [ReasonCount] = []
    /// Resident memory of chunkd.
    package var agentMemoryBytes: UInt64 = 0
    /// Bytes of resident chunks in the cache, and the high water mark of the quota (0: none).
    package var cacheBytes: UInt64 = 0
    package var quotaBytes: UInt64 = 0
    /// Nil unless ordinary images are mirrored.
    package var mirror: MirrorStat?

    package init() {}
}
