import CTLS
import ChunkModel

/// One X.509 certificate, parsed by libcrypto.
///
/// Safe from any thread: nothing changes it after it was made.
final class Certificate: @unchecked Sendable {
    // @unchecked: an X509 is reference-counted and read only here; OpenSSL locks what it caches in it (X509_new(3)).
    let pointer: OpaquePointer
    /// Seconds since 1970.
    let notBefore: Int64
    let notAfter: Int64

    /// Longest certificate in bytes; a P-256 one has about 500, an RSA-4096 one with many names under 4,000.
    static let maxBytes = 16_384
    /// Certificates in a chain, the leaf included: two intermediates are common, four are enough.
    static let maxChain = 5

    /// Takes ownership of an X509.
    init(owning pointer: OpaquePointer) throws(IdentityError) {
        self.pointer = pointer
        guard let times = Self.times(of: pointer) else {
            X509_free(pointer)
            throw IdentityError(.malformedCertificate, "certificate has malformed times")
        }
        (notBefore, notAfter) = times
    }

    /// Parses exactly one DER certificate.
    convenience init(der: [UInt8]) throws(IdentityError) {
        guard der.count <= Self.maxBytes else {
            throw IdentityError(.malformedCertificate, "certificate has \(der.count) bytes, limit \(Self.maxBytes)")
        }
        let parsed = der.withUnsafeBufferPointer { buffer -> OpaquePointer? in
            var position = buffer.baseAddress
            guard let parsed = d2i_X509(nil, &position, buffer.count) else { return nil }
            if position == buffer.baseAddress.map({ $0 + buffer.count }) { return parsed }
            X509_free(parsed)
            return nil
        }
        ERR_clear_error()
        guard let parsed else { throw IdentityError(.malformedCertificate, "certificate is not DER") }
        try self.init(owning: parsed)
    }

    deinit { X509_free(pointer) }

    static func times(of pointer: OpaquePointer) -> (notBefore: Int64, notAfter: Int64)? {
        var bad: (Int32, Int32) = (0, 0)
        let from = ctls_seconds(X509_get0_notBefore(pointer), &bad.0)
        let to = ctls_seconds(X509_get0_notAfter(pointer), &bad.1)
        return bad == (0, 0) ? (from, to) : nil
    }

    /// All certificates of a PEM text, in order; at most `limit`.
    static func all(pem: [UInt8], limit: Int) throws(IdentityError) -> [Certificate] {
        try pem.withUnsafeBufferPointer { (bytes) throws(IdentityError) in
            // BIO_new_mem_buf(3) does not copy: the text is read to its end in here.
            guard let text = BIO_new_mem_buf(bytes.baseAddress, Int32(clamping: bytes.count)) else {
                throw IdentityError(.malformedFile, "no certificate")
            }
            defer { BIO_free(text) }
            var out: [Certificate] = []
            var isDamaged: Int32 = 0
            while let next = ctls_next_certificate(text, &isDamaged) {
                out.append(try Certificate(owning: next))
                guard out.count <= limit else { throw IdentityError(.malformedFile, "over \(limit) certificates") }
            }
            guard isDamaged == 0 else { throw IdentityError(.malformedFile, "damaged after \(out.count) certificates") }
            guard !out.isEmpty else { throw IdentityError(.malformedFile, "no certificate") }
            return out
        }
    }

    /// The certificate as DER.
    var der: [UInt8] {
        let count = Int(i2d_X509(pointer, nil))
        guard count > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            var position = buffer.baseAddress
            used = Int(max(0, i2d_X509(pointer, &position)))
        }
    }

    var isAuthority: Bool { X509_check_ca(pointer) != 0 }

    /// Whether the extended key usage is there and names server and client authentication both (X509-SVID section 4.4).
    var isForBothSides: Bool {
        guard X509_get_extension_flags(pointer) & UInt32(EXFLAG_XKUSAGE) != 0 else { return false }
        let both = UInt32(XKU_SSL_SERVER | XKU_SSL_CLIENT)
        return X509_get_extended_key_usage(pointer) & both == both
    }

    /// The one URI among the subject alternative names (X509-SVID section 2: exactly one).
    func uriName() throws(IdentityError) -> String {
        var length = 0
        var count: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: TrustDomain.maxIDBytes) { buffer, used in
            buffer.withMemoryRebound(to: CChar.self) {
                count = ctls_uri_names(pointer, $0.baseAddress, $0.count, &length)
            }
            used = length
        }
        switch count {
        case 1: return String(decoding: bytes, as: UTF8.self)
        case 0:
            let name = commonName.map { "; the common name \($0) does not count" } ?? ""
            throw IdentityError(.noURIName, "expected one URI name, found none\(name)")
        case 2...: throw IdentityError(.severalURINames, "expected one URI name, found \(count)")
        default: throw IdentityError(.malformedCertificate, "subject alternative names are malformed or too long")
        }
    }

    private var commonName: String? {
        // 64 characters at most (X.520 ub-common-name), up to four bytes each.
        var text = [CChar](repeating: 0, count: 257)
        guard ctls_common_name(pointer, &text, Int32(text.count)) == 1 else { return nil }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A private key, in libcrypto's form.
final class PrivateKey: @unchecked Sendable {
    // @unchecked: an EVP_PKEY is reference-counted and only read after it was made.
    let pointer: OpaquePointer

    /// Reads one unencrypted PEM key.
    init(pem: [UInt8]) throws(IdentityError) {
        let key = pem.withUnsafeBytes {
            ctls_private_key($0.bindMemory(to: CChar.self).baseAddress, Int32(clamping: $0.count))
        }
        guard let key else { throw IdentityError(.malformedFile, "no unencrypted private key in PEM") }
        pointer = key
    }

    deinit { EVP_PKEY_free(pointer) }

    /// Whether it is the key of the certificate.
    func belongs(to certificate: Certificate) -> Bool {
        defer { ERR_clear_error() }
        return X509_check_private_key(certificate.pointer, pointer) == 1
    }
}
