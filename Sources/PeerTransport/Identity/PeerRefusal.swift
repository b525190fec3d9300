import ChunkModel

/// Why a peer, its certificate, a connection or a request was refused: a closed set, each value a label for a metric.
package enum PeerRefusalReason: String, Sendable, CaseIterable {
    // What a certificate chain lacks.
    case noCertificate = "no_certificate"
    case malformedCertificate = "malformed_certificate"
    case chainTooLong = "chain_too_long"
    /// Not signed, over any number of steps, by a certificate of our bundle.
    case unknownAuthority = "unknown_authority"
    case expired
    case notYetValid = "not_yet_valid"
    /// The extended key usage does not name both server and client authentication.
    case wrongUsage = "wrong_usage"
    /// A certificate authority's own certificate in place of a node's.
    case notALeaf = "not_a_leaf"
    /// No URI among the subject alternative names; a common name does not count.
    case noURIName = "no_uri_name"
    case severalURINames = "several_uri_names"
    case otherTrustDomain = "other_trust_domain"
    /// A SPIFFE name of our trust domain that is not a node's.
    case notANode = "not_a_node"
    /// Weak keys or signatures, violated constraints, unknown critical extensions.
    case invalidCertificate = "invalid_certificate"
    case denied
    /// A valid node, but not the one that was asked for.
    case wrongName = "wrong_name"
    // What a signed record lacks.
    case malformedProof = "malformed_proof"
    case badSignature = "bad_signature"
    // What our own files lack.
    case unreadableFile = "unreadable_file"
    case malformedFile = "malformed_file"
    case keyMismatch = "key_mismatch"
    /// There is no usable identity of our own (yet).
    case noIdentity = "no_identity"
    // What a connection does wrong.
    case plaintext
    /// A TLS version below 1.3.
    case oldProtocol = "old_protocol"
    case noALPN = "no_alpn"
    case handshakeFailed = "handshake_failed"
    case handshakeTimeout = "handshake_timeout"
    case tooManyConnections = "too_many_connections"
    case tooManyHandshakes = "too_many_handshakes"
    case handshakeRate = "handshake_rate"
    case tooManyForName = "too_many_for_name"
    /// This node is leaving.
    case draining
    // What a request does wrong.
    case malformedRequest = "malformed_request"
    case headersTooLarge = "headers_too_large"
    case bodyTooLarge = "body_too_large"
    case pipelined
    case requestTimeout = "request_timeout"
    case slowReader = "slow_reader"
}

/// A refusal: the closed reason, and for people what was expected, what was found and where. The message may quote
/// foreign bytes; it holds printable ASCII only and is bounded.
package struct IdentityError: Error, Sendable, CustomStringConvertible {
    package let reason: PeerRefusalReason
    package let message: String

    /// Longest message in bytes: a file name and two SPIFFE ids, cut where a certificate says more.
    package static let maxMessageBytes = 1024

    package init(_ reason: PeerRefusalReason, _ message: String) {
        self.reason = reason
        self.message = printable(message, limit: Self.maxMessageBytes)
    }

    package var description: String { message }
}

/// Text with everything but printable ASCII replaced, cut at `limit` bytes: safe for logs and terminals.
func printable(_ text: String, limit: Int) -> String {
    String(decoding: text.utf8.prefix(limit).map { (32...126).contains($0) ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
}

/// What the transport tells its owner, for counters and the log. Called on event loops and the transfer thread: the
/// observer must not block.
package enum PeerTransportEvent: Sendable {
    /// Somebody who connected to us, or answered us, or a record was refused. `peer` is set once a name was proven.
    case refused(PeerRefusalReason, peer: NodeName?, address: String, detail: String)
    /// A handshake with us succeeded.
    case connected(NodeName)
    case disconnected(NodeName)
    /// New files are in use.
    case identityLoaded(PeerIdentity)
    /// New files are not fit for use; the last good ones stay. Once per change of the files.
    case identityRejected(IdentityError)
}

package typealias PeerTransportObserver = @Sendable (PeerTransportEvent) -> Void
