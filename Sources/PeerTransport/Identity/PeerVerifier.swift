import CTLS
import ChunkModel
import Synchronization

/// A node's name with what proves it: the result of verifying a certificate chain.
package struct VerifiedPeer: Sendable {
    package let name: NodeName
    /// When the first certificate of the chain expires, in seconds since 1970, without the skew.
    package let notAfter: Int64
    let notBefore: Int64
    let leaf: Certificate
}

/// Decides whose a certificate chain is: one rule for both directions of a connection and for signed records.
///
/// A chain is a node's when it leads to the bundle, is valid now give or take the skew, its leaf is for server and client
/// authentication both, and its single URI name is `spiffe://<trust-domain>/chunkd/node/<name>` with a name that is not on
/// the deny list. Safe from any thread; about 150 µs of CPU, 1 µs when it has seen the chain before.
package final class PeerVerifier: Sendable {
    /// Clocks of two nodes may differ by this much, in seconds.
    package static let skewSeconds: Int64 = 60
    /// Chains remembered: two generations of 1,024 × about 3 KiB = 6 MiB.
    static let maxRemembered = 1024

    package let trustDomain: TrustDomain
    private let denied: Set<NodeName>
    private let store: TrustStore
    private let clock: @Sendable () -> Int64
    private let seen = Mutex(TwoGenerations<[[UInt8]], VerifiedPeer>(limit: PeerVerifier.maxRemembered))

    /// - Parameter clock: wall clock, in seconds since 1970.
    init(
        bundle: [Certificate], trustDomain: TrustDomain, denied: Set<NodeName>, clock: @escaping @Sendable () -> Int64
    ) throws(IdentityError) {
        store = try TrustStore(bundle)
        self.trustDomain = trustDomain
        self.denied = denied
        self.clock = clock
    }

    /// Whose chain it is: DER certificates, the leaf first, then what leads from it towards an authority.
    package func verify(chain: [[UInt8]]) throws(IdentityError) -> VerifiedPeer {
        if let known = seen.withLock({ $0[chain] }) { return try check(known) }
        guard !chain.isEmpty else { throw IdentityError(.noCertificate, "no certificate was sent") }
        guard chain.count <= Certificate.maxChain else {
            throw IdentityError(
                .chainTooLong, "\(chain.count) certificates were sent, limit \(Certificate.maxChain)")
        }
        var parsed: [Certificate] = []
        for der in chain { parsed.append(try Certificate(der: der)) }
        let peer = try peer(parsed)
        seen.withLock { $0[chain] = peer }
        return try check(peer)
    }

    /// Our own chain: everything but the deny list.
    func verifyOwn(_ chain: [Certificate]) throws(IdentityError) -> VerifiedPeer {
        let own = try peer(chain)
        try checkTime(own)
        return own
    }

    /// What changes without the chain: the time and the deny list.
    package func check(_ peer: VerifiedPeer) throws(IdentityError) -> VerifiedPeer {
        try checkTime(peer)
        try checkDenied(peer.name)
        return peer
    }

    private func checkTime(_ peer: VerifiedPeer) throws(IdentityError) {
        let now = clock()
        guard now >= peer.notBefore - Self.skewSeconds else {
            throw IdentityError(
                .notYetValid, "certificate of \(peer.name) is valid from \(peer.notBefore), it is \(now)")
        }
        guard now <= peer.notAfter + Self.skewSeconds else {
            throw IdentityError(.expired, "certificate of \(peer.name) was valid until \(peer.notAfter), it is \(now)")
        }
    }

    /// Throws `denied` when the name is on the deny list.
    package func checkDenied(_ name: NodeName) throws(IdentityError) {
        if denied.contains(name) { throw IdentityError(.denied, "\(name) is on the deny list") }
    }

    /// Whose leaf it is, without looking who signed it: for a resumed session, whose ticket we sealed after a full check.
    func nameOfResumed(leaf der: [UInt8]) throws(IdentityError) -> VerifiedPeer {
        let leaf = try Certificate(der: der)
        return try check(
            VerifiedPeer(
                name: try trustDomain.name(in: try leaf.uriName()), notAfter: leaf.notAfter, notBefore: leaf.notBefore,
                leaf: leaf))
    }

    private func peer(_ chain: [Certificate]) throws(IdentityError) -> VerifiedPeer {
        let leaf = chain[0]
        let times = try store.verify(chain)
        guard !leaf.isAuthority else { throw IdentityError(.notALeaf, "the certificate is an authority's") }
        guard leaf.isForBothSides else {
            throw IdentityError(
                .wrongUsage, "extended key usage: expected server and client authentication, found another")
        }
        let name = try trustDomain.name(in: try leaf.uriName())
        return VerifiedPeer(name: name, notAfter: times.notAfter, notBefore: times.notBefore, leaf: leaf)
    }
}

/// The certificates that others are verified against.
private final class TrustStore: @unchecked Sendable {
    // @unchecked: an X509_STORE is only read after `init`, and OpenSSL locks it.
    private let store: OpaquePointer

    init(_ bundle: [Certificate]) throws(IdentityError) {
        guard let store = X509_STORE_new() else { throw IdentityError(.malformedFile, "libcrypto has no memory") }
        self.store = store
        for certificate in bundle {
            guard certificate.isAuthority else {
                throw IdentityError(.malformedFile, "the bundle holds a certificate that is no authority's")
            }
            guard X509_STORE_add_cert(store, certificate.pointer) == 1 else {
                throw IdentityError(.malformedFile, "libcrypto refuses a certificate of the bundle")
            }
        }
    }

    deinit { X509_STORE_free(store) }

    private struct Times {
        var notBefore = Int64.min
        var notAfter = Int64.max
        var isMalformed = false
    }

    /// The time in which the whole chain is valid.
    func verify(_ chain: [Certificate]) throws(IdentityError) -> (notBefore: Int64, notAfter: Int64) {
        var times = Times()
        let between: [OpaquePointer?] = chain.dropFirst().map(\.pointer)
        let result = withUnsafeMutablePointer(to: &times) { times in
            ctls_verify(
                store, chain[0].pointer, between, Int32(between.count), Int32(Certificate.maxChain),
                { certificate, user in
                    guard let certificate, let user else { return }
                    let times = user.assumingMemoryBound(to: Times.self)
                    guard let found = Certificate.times(of: certificate) else {
                        times.pointee.isMalformed = true
                        return
                    }
                    times.pointee.notBefore = max(times.pointee.notBefore, found.notBefore)
                    times.pointee.notAfter = min(times.pointee.notAfter, found.notAfter)
                }, times)
        }
        withExtendedLifetime(chain) {}
        guard result == X509_V_OK else { throw Self.refusal(result) }
        guard !times.isMalformed else {
            throw IdentityError(.malformedCertificate, "a certificate of the chain has malformed times")
        }
        return (times.notBefore, times.notAfter)
    }

    private static func refusal(_ code: Int32) -> IdentityError {
        let words = X509_verify_cert_error_string(Int(code)).map { String(cString: $0) } ?? "error \(code)"
        let reason: PeerRefusalReason =
            switch code {
            // The signature fails when an authority of the same name has another key.
            case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
                X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
                X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_CERT_SIGNATURE_FAILURE, X509_V_ERR_CERT_UNTRUSTED:
                .unknownAuthority
            case X509_V_ERR_CERT_CHAIN_TOO_LONG, X509_V_ERR_PATH_LENGTH_EXCEEDED: .chainTooLong
            default: .invalidCertificate
            }
        return IdentityError(reason, "certificate chain: \(words)")
    }
}

/// A bounded memory of what was seen lately: when a generation is full the one before it is forgotten.
struct TwoGenerations<Key: Hashable, Value> {
    private let limit: Int
    private var young: [Key: Value] = [:]
    private var old: [Key: Value] = [:]

    /// At most `2 × limit` entries.
    init(limit: Int) { self.limit = limit }

    subscript(key: Key) -> Value? {
        mutating get {
            if let value = young[key] { return value }
            guard let value = old[key] else { return nil }
            self[key] = value
            return value
        }
        set {
            if young[key] == nil, young.count >= limit {
                old = young
                young = [:]
            }
            young[key] = newValue
        }
    }

    var count: Int { young.count + old.count }
}
