import ChunkModel

/// How urgent a chunk is to who asks for it: a reader waits, a reader will soon, nobody does.
package enum PeerRank: String, Sendable, CaseIterable, Comparable {
    case demand, ahead, background

    private var order: Int {
        switch self {
        case .demand: 0
        case .ahead: 1
        case .background: 2
        }
    }

    /// The more urgent one is less.
    package static func < (a: PeerRank, b: PeerRank) -> Bool { a.order < b.order }
}

/// A request for consecutive chunks of a blob. Value type.
package struct ChunkRequest: Sendable, Equatable {
    /// The id of the first chunk: who can name it may have it.
    package var chunk: WireID
    package var blob: WireID
    /// The first chunk's number in the blob.
    package var at: Int
    /// Chunks wanted, the first included.
    package var count: Int
    package var rank: PeerRank
    /// How long the answer may wait for a chunk that is not there yet.
    package var wait: Duration
    /// Please fetch it yourself: you are the one whom the rendezvous names.
    package var fetch: Bool
    /// The trace it belongs to and the span that asks; nil: none, or none that was understood.
    package var trace: TraceContext?

    package init(
        chunk: WireID, blob: WireID, at: Int, count: Int = 1, rank: PeerRank = .demand, wait: Duration = .zero,
        fetch: Bool = false, trace: TraceContext? = nil
    ) {
        self.chunk = chunk
        self.blob = blob
        self.at = at
        self.count = count
        self.rank = rank
        self.wait = wait
        self.fetch = fetch
        self.trace = trace
    }
}

/// A request for something whole: what a mount needs before its first chunk (bootstrap, chunk index or seek table of an
/// image), or a blob of an ordinary image. Value type.
package struct PartRequest: Sendable, Equatable {
    /// Made from the part's digest as the id of a chunk is: who can name it may have it.
    package var part: WireID
    /// The image's first blob, or the ordinary image: whose registered nodes have the parts, or soon will.
    package var blob: WireID
    /// How long the answer may wait for a part that is not there yet.
    package var wait: Duration
    /// Please fetch it yourself, of an ordinary image: you are the one whom the rendezvous names.
    package var fetch: Bool
    /// A mount waits for the parts of its image; whole blobs are many and long, and readers of chunks come first.
    package var rank: PeerRank

    package init(
        part: WireID, blob: WireID, wait: Duration = .zero, fetch: Bool = false, rank: PeerRank = .demand
    ) {
        self.part = part
        self.blob = blob
        self.wait = wait
        self.fetch = fetch
        self.rank = rank
    }
}

/// "You sent me wrong bytes for this chunk." Value type.
package struct PeerComplaint: Sendable, Equatable {
    package let chunk: WireID
    package let blob: WireID
    package let at: Int

    package init(chunk: WireID, blob: WireID, at: Int) {
        self.chunk = chunk
        self.blob = blob
        self.at = at
    }
}

/// One request of the peer protocol: docs/formats/peer-protocol.md. There is no path, URL or host in it.
package enum PeerCall: Sendable, Equatable {
    case chunks(ChunkRequest)
    /// What of a blob is resident; `proof` is the id of its first chunk.
    case residency(blob: WireID, proof: WireID)
    case part(PartRequest)
    case gossip
    case mount
    case complaint(PeerComplaint)

    /// A label for metrics.
    package enum Kind: String, Sendable, CaseIterable {
        case chunks, residency, part, gossip, mount, complaint, unknown
    }

    package var kind: Kind {
        switch self {
        case .chunks: .chunks
        case .residency: .residency
        case .part: .part
        case .gossip: .gossip
        case .mount: .mount
        case .complaint: .complaint
        }
    }
}

/// Names and bounds of the peer protocol.
package enum PeerProtocol {
    /// Path and query in bytes: `/v1/chunks/` + 64 + `?blob=` + 64 + two numbers are under 190.
    package static let maxTargetBytes = 512
    /// Chunks asked for at once: a segment of 8 MiB in chunks of 128 KiB.
    package static let maxCount = 64
    /// Bytes of one answer: two segments of 8 MiB. A supplier gives fewer chunks rather than more bytes.
    package static let maxAnswerBytes: UInt64 = 16 << 20
    /// Longest wait that is honoured.
    package static let maxWait = Duration.seconds(30)
    /// Chunks in a blob (`Limits` of the chunk index allow fewer).
    package static let maxChunkNumber = 1 << 30
    /// Bytes of a gossip frame, each way.
    package static let maxGossipBytes = 1 << 20
    /// Bytes of a mount request and its answer.
    package static let maxMountBytes = 256 << 10
    /// Bytes of residency bits in a header: 2,048 chunks, 1 GiB of 512 KiB chunks.
    package static let maxHeaderBits = 256
    /// Bytes of residency bits in a body: 8 Mi chunks, 4 TiB of 512 KiB chunks.
    package static let maxResidencyBytes = 1 << 20
    /// Names in `Chunkd-Holders`.
    package static let maxHolders = 8

    package static let rankField = "Chunkd-Rank"
    package static let waitField = "Chunkd-Wait"
    package static let fetchField = "Chunkd-Fetch"
    package static let residencyField = "Chunkd-Residency"
    package static let holdersField = "Chunkd-Holders"
    package static let reasonField = "Chunkd-Reason"
    package static let chunksField = "Chunkd-Chunks"
}
