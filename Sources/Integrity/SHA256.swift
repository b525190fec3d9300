import COpenSSL
import ChunkModel

/// Streaming SHA-256 by libcrypto's EVP (which uses SHA-NI where the CPU has it).
///
/// Not thread-safe: one value, one user. Source: FIPS 180-4; EVP_DigestInit_ex(3).
package struct SHA256: ~Copyable {
    private let context: OpaquePointer

    package init() {
        // Allocation or initialisation can only fail when memory is exhausted or libcrypto is broken: trap, never skip.
        guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            fatalError("libcrypto cannot start SHA-256")
        }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    /// Adds bytes.
    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1 else {
            fatalError("EVP_DigestUpdate failed")
        }
    }

    /// The digest of all that was added; starts over, so the value can hash the next message.
    package mutating func finalize() -> Digest {
        var raw = [UInt8](repeating: 0, count: Digest.byteCount)
        var length: UInt32 = 0
        guard EVP_DigestFinal_ex(context, &raw, &length) == 1, EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1,
            let digest = Digest(rawBytes: raw)
        else { fatalError("EVP_DigestFinal_ex failed") }
        return digest
    }

    /// The digest of one message.
    package static func hash(_ bytes: UnsafeRawBufferPointer) -> Digest {
        var hasher = SHA256()
        hasher.update(bytes)
        return hasher.finalize()
    }

    /// The digest of one message.
    package static func hash(_ bytes: [UInt8]) -> Digest {
        bytes.withUnsafeBytes { hash($0) }
    }
}
