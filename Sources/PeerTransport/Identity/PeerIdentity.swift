import CTLS
import ChunkModel
import NIOCore
import NIOSSL

/// What this node is and whom it trusts, loaded whole: certificate, key, bundle and deny list that fit together.
///
/// Never changed after it was made; new files make a new one with a higher generation. Safe from any thread.
package final class PeerIdentity: Sendable {
    package let name: NodeName
    /// One more than that of the identity it replaced.
    package let generation: UInt64
    /// When our chain expires, in seconds since 1970.
    package let notAfter: Int64
    /// Verifies others against this identity's bundle and deny list.
    package let verifier: PeerVerifier
    package let denied: Set<NodeName>
    let chain: [Certificate]
    let key: PrivateKey
    /// The TLS server's settings; its session tickets are sealed with a key of its own, so none outlives the identity.
    let serverContext: NIOSSLContext

    package var trustDomain: TrustDomain { verifier.trustDomain }

    /// Our own chain must pass the check that others put it through. Our own name may be on the deny list: that cuts
    /// others off from us, and the list still holds for everybody else on it.
    init(
        generation: UInt64, bundle: [Certificate], chain: [Certificate], key: PrivateKey, verifier: PeerVerifier,
        denied: Set<NodeName>
    ) throws(IdentityError) {
        let verified = try verifier.verifyOwn(chain)
        self.generation = generation
        self.verifier = verifier
        self.denied = denied
        self.chain = chain
        self.key = key
        name = verified.name
        notAfter = verified.notAfter
        serverContext = try Self.serverContext(bundle: bundle, chain: chain, key: key)
    }

    private static func serverContext(
        bundle: [Certificate], chain: [Certificate], key: PrivateKey
    ) throws(IdentityError) -> NIOSSLContext {
        do {
            let sources = try chain.map { NIOSSLCertificateSource.certificate(try .init(bytes: $0.der, format: .der)) }
            let privateKey = try NIOSSLPrivateKey(bytes: key.der, format: .der)
            var configuration = TLSConfiguration.makeServerConfiguration(
                certificateChain: sources, privateKey: .privateKey(privateKey))
            configuration.minimumTLSVersion = .tlsv13
            configuration.maximumTLSVersion = .tlsv13
            configuration.applicationProtocols = ["http/1.1"]
            // A certificate is demanded; whether it is good is for `PeerVerifier` alone to say.
            configuration.certificateVerification = .noHostnameVerification
            configuration.trustRoots = .certificates(
                try bundle.map { try NIOSSLCertificate(bytes: $0.der, format: .der) })
            configuration.shutdownTimeout = .seconds(1)
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw IdentityError(.malformedFile, "the TLS server refuses the certificate or key: \(error)")
        }
    }
}

extension PrivateKey {
    /// The key as DER, for the TLS server's own library.
    fileprivate var der: [UInt8] {
        let count = Int(i2d_PrivateKey(pointer, nil))
        guard count > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            var position = buffer.baseAddress
            used = Int(max(0, i2d_PrivateKey(pointer, &position)))
        }
    }
}
