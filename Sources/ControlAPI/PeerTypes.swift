/// One node of the cluster as seen from here.
package struct PeerSummary: Codable, Equatable, Sendable {
    package var name: String
    /// `alive`, `suspect`, `dead` or `left`; this node is `self`.
    package var state: String
    package var zone: String
    /// What its certificate must say: `spiffe://TRUST-DOMAIN/chunkd/node/NAME`.
    package var identity = ""
    /// `ip:port`.
    package var address: String
    package var version: String
    /// Of a small request; nil before the first.
    package var roundTripSeconds: Double?
    /// Chunk bytes it gave us, and we gave it, since chunkd started.
    package var receivedBytes: UInt64 = 0
    package var sentBytes: UInt64 = 0
    package var requests: UInt64 = 0
    package var failures: UInt64 = 0
    /// Estimated bytes a second while it sends.
    package var throughputBytesPerSecond: Double?
    /// How good it is to ask, by what it has done: 1 as expected or better, 0 not asked; nil before the first request.
    package var score: Double?
    /// What it says it has.
    package var completeBlobs = 0
    package var partialBlobs = 0
    package var registeredBlobs = 0
    /// Why it is not asked, and for how much longer.
    package var quarantine: String?
    package var quarantineSeconds: Double?
    package var backOffSeconds: Double?

    package init(name: String, state: String, zone: String, address: String, version: String) {
        self.name = name
        self.state = state
        self.zone = zone
        self.address = address
        self.version = version
    }
}

/// `chunkctl peers`.
package struct PeersReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    /// False: chunkd has no certificate, so there are no peers.
    package var enabled: Bool
    package var node: String
    package var trustDomain: String
    /// When our certificate ends, in seconds since 1970.
    package var certificateExpiresUnixSeconds: Int64?
    package var peers: [PeerSummary]

    package init(
        enabled: Bool, node: String = "", trustDomain: String = "", certificateExpires: Int64? = nil,
        peers: [PeerSummary] = []
    ) {
        self.enabled = enabled
        self.node = node
        self.trustDomain = trustDomain
        certificateExpiresUnixSeconds = certificateExpires
        self.peers = peers
    }
}
