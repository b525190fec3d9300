import ChunkModel
import LinuxSystem

/// Bytes of consecutive chunks in a file.
package struct ChunkBytes: Sendable {
    /// Kept open until the last byte is sent; read with pread(2). It should raise no pre-content events (opened before
    /// the file was marked, or handed over by the gate).
    package let file: File
    package let range: Range<UInt64>

    package init(file: File, range: Range<UInt64>) {
        self.file = file
        self.range = range
    }
}

/// What there is for a chunk request.
package enum ChunkAnswer: Sendable {
    /// The chunk asked for and those that follow it, as many as are resident in a row, at most `count` chunks and
    /// `PeerProtocol.maxAnswerBytes`. In the blob's order; whole chunks only. `ended` is called once, whatever becomes of the
    /// answer, on any thread; it must not block.
    case found([ChunkBytes], residency: PeerResidency?, ended: @Sendable (_ isSent: Bool) -> Void = { _ in })
    /// Not here, or an id that this blob and number do not have: both look the same from outside.
    case absent(PeerResidency?)
    /// Not now; `holders` have got it from here lately.
    case busy(retryAfter: Duration, holders: [NodeName])
    case refused(PeerDenial)
}

/// Why a peer does not get what is here: bounded, sent as `Chunkd-Reason`.
package enum PeerDenial: String, Sendable, CaseIterable {
    /// The policy for the image's repository does not let it be shared.
    case policy
    /// This node is leaving.
    case leaving
    /// The peer sent wrong bytes, or asks for what it cannot use.
    case distrusted
    /// More requests a second than a peer may make.
    case rate
}

/// Looks up chunks for peers. Safe from any thread; must not block.
package protocol ChunkSupplier: Sendable {
    /// Looks up (blob, number), compares the id of that chunk with `request.chunk`, and waits up to `request.wait` for one
    /// that is in flight here, or that `request.fetch` asks this node to get. Cancelled when the peer is gone.
    func chunks(_ request: ChunkRequest, for peer: NodeName) async -> ChunkAnswer
    /// The file of a part, waiting up to `request.wait` for one that this node is getting: `.found` with the whole of it.
    func part(_ request: PartRequest, for peer: NodeName) async -> ChunkAnswer
    /// What of a blob is resident, and how many chunks it has; nil when it is not known here or `proof` is not the id of
    /// its first chunk.
    func residency(
        blob: WireID, proof: WireID, for peer: NodeName
    ) async -> (residency: PeerResidency, chunkCount: Int)?
}

/// Takes gossip from a peer. Safe from any thread; must not block.
package protocol GossipHandler: Sendable {
    /// One frame in, one frame out (may be empty); nil when the frame is malformed. At most
    /// `PeerProtocol.maxGossipBytes` each.
    func gossip(_ frame: [UInt8], from peer: NodeName) async -> [UInt8]?
}

/// Answers who else is interested in blobs. Safe from any thread; must not block.
package protocol MountHandler: Sendable {
    /// The nodes interested; nil when the request is malformed. At most `PeerProtocol.maxMountBytes` each.
    func mount(_ request: [UInt8], from peer: NodeName) async -> [UInt8]?
}

/// Hears that we sent wrong bytes. Safe from any thread; must not block.
package protocol ComplaintHandler: Sendable {
    /// Has the chunk checked on disk. Calls are limited per peer before they come here.
    func complaint(_ complaint: PeerComplaint, from peer: NodeName) async
}

/// One request that was answered, for counters. `outcome` is one of a closed set.
package struct PeerServed: Sendable {
    package enum Outcome: String, Sendable, CaseIterable {
        case sent, absent, busy, denied, malformed
        /// The connection was lost, or the peer did not take it in time.
        case lost
        /// The file could not be read.
        case unreadable
    }

    package let peer: NodeName
    package let kind: PeerCall.Kind
    /// The request for chunks, if it is one; within a trace its span is this answer's own.
    package let request: ChunkRequest?
    /// The span that asked, within a trace.
    package let parent: SpanID?
    /// It named a trace in a way that is not understood: it was answered as if it had not.
    package let isTraceIgnored: Bool
    package let outcome: Outcome
    /// A further closed word: a denial, a parse error. Empty when there is nothing to add.
    package let detail: String
    /// Body bytes handed to the socket.
    package let bytes: UInt64
    /// From the whole request to the last byte handed to the socket.
    package let elapsed: Duration
}

/// Told of every answer, on any thread: must not block.
package typealias PeerServedObserver = @Sendable (PeerServed) -> Void
