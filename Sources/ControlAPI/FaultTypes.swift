import ChunkModel

/// One reader that waits for a chunk now, and what is done about it.
package struct BlockedReader: Codable, Equatable, Sendable {
    /// As chunkgate sees it; 0 when that is not known.
    package var pid: UInt32
    /// Name of its program, and the container it is in, as far as chunkd can see its /proc.
    package var command: String?
    package var container: String?
    package var blockedSeconds: Double
    /// An image on this node that has the blob: its reference, else its manifest digest.
    package var image: String?
    package var blob: Digest?
    package var chunk: UInt64
    package var chunkBytes: UInt64?
    /// What is being done: `describing`, `locating`, `queued`, `backingOff`, `waitingForPeers`, `copying`, `fetching`,
    /// `writing`, `makingRoom`.
    package var step: String
    /// Who is asked, or is next: `disk`, `peer/NAME`, `registry/HOST`.
    package var source: String?
    /// How long the request under way has taken.
    package var sourceSeconds: Double?
    /// Asked as well, since the first takes long.
    package var secondSource: String?
    /// Requests of this source so far.
    package var attempts: UInt64 = 0
    /// Whom it was asked of so far, in order; at most eight.
    package var asked: [String] = []

    package init(pid: UInt32, blockedSeconds: Double, chunk: UInt64, step: String) {
        self.pid = pid
        self.blockedSeconds = blockedSeconds
        self.chunk = chunk
        self.step = step
    }
}

/// Answer to `GET /v1/faults`: those who have waited longest first, a reader of several absent chunks once for each.
package struct FaultsReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var blocked: [BlockedReader]
    /// There are more than these.
    package var isCut: Bool

    package init(blocked: [BlockedReader], isCut: Bool = false) {
        self.blocked = blocked
        self.isCut = isCut
    }
}
