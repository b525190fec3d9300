import CTLS
import ChunkModel
import Synchronization

/// What is signed: a label, so that a signature over a record is never one over anything else, then the record.
private let recordLabel: [UInt8] = Array("chunkd record 1\0".utf8)

/// Signs this node's own records with the key of its certificate. Safe from any thread; about 30 µs with a P-256 key.
package struct RecordSigner: Sendable {
    private let store: IdentityStore

    package init(_ store: IdentityStore) { self.store = store }

    /// The proof to send beside `bytes`: valid as long as the certificate is, so sign again after each reload.
    package func sign(_ bytes: [UInt8]) throws(IdentityError) -> [UInt8] {
        let identity = try store.require()
        guard let signature = identity.key.sign(recordLabel + bytes),
            let proof = RecordProof(chain: identity.chain.map(\.der), signature: signature).bytes
        else { throw IdentityError(.keyMismatch, "libcrypto does not sign with the key of \(identity.name)") }
        return proof
    }
}

/// Says whose a signed record is. Safe from any thread: about 250 µs for a record and a chain not seen before, 100 µs
/// when the chain is known, 1 µs when the record is.
package final class RecordVerifier: Sendable {
    /// Records remembered: two generations of 2,048 × about 1 KiB = 4 MiB.
    static let maxRemembered = 2048

    private struct Key: Hashable {
        let bytes: [UInt8]
        let proof: [UInt8]
    }

    private struct State {
        var generation: UInt64 = 0
        var seen = TwoGenerations<Key, VerifiedPeer>(limit: RecordVerifier.maxRemembered)
    }

    private let store: IdentityStore
    private let state = Mutex(State())

    package init(_ store: IdentityStore) { self.store = store }

    /// The node that signed `bytes`: its certificate is good now, and it is not on the deny list.
    package func verify(_ bytes: [UInt8], proof: [UInt8]) throws(IdentityError) -> NodeName {
        let identity = try store.require()
        let key = Key(bytes: bytes, proof: proof)
        let known = state.withLock { state -> VerifiedPeer? in
            // What another bundle vouched for does not count any more.
            if state.generation != identity.generation {
                state = State(generation: identity.generation)
            }
            return state.seen[key]
        }
        if let known { return try identity.verifier.check(known).name }
        let decoded = try RecordProof(proof)
        let peer = try identity.verifier.verify(chain: decoded.chain)
        guard peer.leaf.hasSigned(recordLabel + bytes, decoded.signature) else {
            throw IdentityError(.badSignature, "record of \(bytes.count) bytes is not signed by \(peer.name)")
        }
        state.withLock { state in
            if state.generation == identity.generation { state.seen[key] = peer }
        }
        return peer.name
    }
}

/// The hash a key signs over; Ed25519 brings its own (EVP_DigestSign(3)).
private func hash(for key: OpaquePointer) -> OpaquePointer? {
    EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? nil : EVP_sha256()
}

extension PrivateKey {
    fileprivate func sign(_ message: [UInt8]) -> [UInt8]? {
        guard let context = EVP_MD_CTX_new() else { return nil }
        defer {
            EVP_MD_CTX_free(context)
            ERR_clear_error()
        }
        var count = 0
        guard EVP_DigestSignInit(context, nil, hash(for: pointer), nil, pointer) == 1,
            EVP_DigestSign(context, nil, &count, message, message.count) == 1
        else { return nil }
        var signature = [UInt8](repeating: 0, count: count)
        // The second call says how long it is: an ECDSA signature is often shorter than the first call's bound.
        guard EVP_DigestSign(context, &signature, &count, message, message.count) == 1 else { return nil }
        return Array(signature.prefix(count))
    }
}

extension Certificate {
    /// Whether the certificate's key made the signature.
    fileprivate func hasSigned(_ message: [UInt8], _ signature: [UInt8]) -> Bool {
        guard let key = X509_get0_pubkey(pointer), let context = EVP_MD_CTX_new() else { return false }
        defer {
            EVP_MD_CTX_free(context)
            ERR_clear_error()
        }
        return EVP_DigestVerifyInit(context, nil, hash(for: key), nil, key) == 1
            && EVP_DigestVerify(context, signature, signature.count, message, message.count) == 1
    }
}
