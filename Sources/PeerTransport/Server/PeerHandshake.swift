import NIOCore
import NIOSSL

/// What one connection's handshake finds out. Belongs to the channel's event loop.
final class PeerHandshake {
    /// The identity of ours that the handshake was begun with.
    let identity: PeerIdentity
    let address: String
    private var chain: [[UInt8]] = []
    private var verified: VerifiedPeer?
    private var refusal: IdentityError?

    init(identity: PeerIdentity, address: String) {
        self.identity = identity
        self.address = address
    }

    /// Called by the TLS handler with what was sent; not when a session is resumed.
    func verify(_ certificates: [NIOSSLCertificate]) -> Bool {
        do throws(IdentityError) {
            guard let chain = try? certificates.map({ try $0.toDERBytes() }) else {
                throw IdentityError(.malformedCertificate, "certificate is not DER")
            }
            verified = try identity.verifier.verify(chain: chain)
            self.chain = chain
            return true
        } catch {
            refusal = error
            return false
        }
    }

    /// Whose connection it is, with what proves it.
    func complete(
        _ negotiated: String?, _ tls: NIOSSLServerHandler?
    ) throws(IdentityError) -> (peer: VerifiedPeer, chain: [[UInt8]]) {
        guard negotiated == "http/1.1" else {
            throw IdentityError(.noALPN, "ALPN: expected http/1.1, found \(negotiated ?? "none")")
        }
        if let verified { return (verified, chain) }
        // A resumed session. Its ticket was sealed by this identity's server after a whole verification, so the leaf's
        // name counts; the time and the deny list are checked anew.
        guard let leaf = try? tls?.peerCertificate?.toDERBytes() else {
            throw IdentityError(.noCertificate, "no certificate was sent")
        }
        return (try identity.verifier.nameOfResumed(leaf: leaf), [leaf])
    }

    /// Why a handshake failed; nil when the peer just closed, as one does that gives up or reloads its certificate.
    /// BoringSSL's errors have no numbers in NIOSSL's interface: they are told by their names.
    func failure(_ error: any Error) -> IdentityError? {
        if let refusal { return refusal }
        if case .handshakeFailed(.sslError([.eofDuringHandshake])) = error as? NIOSSLError { return nil }
        if error is IOError { return nil }
        let text = "\(error)"
        let reason: PeerRefusalReason =
            if text.contains("PEER_DID_NOT_RETURN_A_CERTIFICATE") {
                .noCertificate
            } else if text.contains("UNSUPPORTED_PROTOCOL") || text.contains("WRONG_VERSION_NUMBER") {
                .oldProtocol
            } else {
                .handshakeFailed
            }
        return IdentityError(reason, text)
    }
}
