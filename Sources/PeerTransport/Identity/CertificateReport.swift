import CTLS
import ChunkModel
import Glibc
import LinuxSystem

/// What a certificate file says, for people: what it names, who made it, and what a peer would find wrong with it.
package struct CertificateReport: Sendable, Encodable {
    /// `node` or `authority`.
    package let kind: String
    /// The node's name; nil for an authority or a certificate that names none.
    package let name: String?
    package let trustDomain: String?
    /// The one URI name, as it stands there.
    package let uri: String?
    package let issuer: String
    package let subject: String
    /// `EC 256`.
    package let key: String
    /// Seconds since 1970.
    package let notBefore: Int64
    package let notAfter: Int64
    /// SHA-256 of the DER, in lower-case hexadecimal.
    package let fingerprint: String
    /// What a peer would refuse it for; empty when it is fine.
    package let problems: [String]

    /// Reports every certificate of a PEM file, in order. Reads files. With `bundle`, the first of them is verified as a
    /// chain against that bundle.
    package static func read(
        _ path: String, bundle: String? = nil, now: Int64 = Int64(time(nil))
    ) throws(IdentityError) -> [CertificateReport] {
        let chain = try certificates(path)
        let authorities = try bundle.map { (path) throws(IdentityError) in try certificates(path) }
        var out: [CertificateReport] = []
        for (at, certificate) in chain.enumerated() {
            out.append(
                CertificateReport(
                    certificate, chain: at == 0 ? chain : [], authorities: at == 0 ? authorities : nil, now: now))
        }
        return out
    }

    private static func certificates(_ path: String) throws(IdentityError) -> [Certificate] {
        do {
            let pem = try File(path: path, flags: O_RDONLY).contents(limit: IdentityFiles.maxFileBytes)
            return try Certificate.all(pem: pem, limit: IdentityFiles.maxAuthorities)
        } catch let error as IdentityError {
            throw IdentityError(error.reason, "\(path): \(error.message)")
        } catch {
            throw IdentityError(.unreadableFile, "\(path): \(error)")
        }
    }

    private init(_ certificate: Certificate, chain: [Certificate], authorities: [Certificate]?, now: Int64) {
        let isAuthority = certificate.isAuthority
        kind = isAuthority ? "authority" : "node"
        issuer = certificate.issuer
        subject = certificate.subject
        key = certificate.keyKind
        notBefore = certificate.notBefore
        notAfter = certificate.notAfter
        fingerprint = certificate.fingerprint
        var problems: [String] = []
        var uri: String?
        do throws(IdentityError) { uri = try certificate.uriName() } catch {
            // An authority need not name its trust domain.
            if !isAuthority || error.reason != .noURIName { problems.append(error.message) }
        }
        self.uri = uri
        let parts = uri?.split(separator: "/", omittingEmptySubsequences: false) ?? []
        let domain = parts.count > 2 && parts[0] == "spiffe:" && parts[1].isEmpty ? TrustDomain(parts[2]) : nil
        trustDomain = domain?.text
        var name: NodeName?
        if !isAuthority, let uri {
            if let domain {
                do throws(IdentityError) { name = try domain.name(in: uri) } catch { problems.append(error.message) }
            } else {
                problems.append(
                    "expected a name spiffe://TRUST-DOMAIN/chunkd/node/NAME, found \(printable(uri, limit: 200))")
            }
        }
        self.name = name?.text
        if !isAuthority, !certificate.isForBothSides {
            problems.append("extended key usage: expected server and client authentication both")
        }
        if now < certificate.notBefore { problems.append("not valid yet") }
        if now > certificate.notAfter { problems.append("expired") }
        if let authorities, let domain, !isAuthority {
            do throws(IdentityError) {
                _ = try PeerVerifier(bundle: authorities, trustDomain: domain, denied: [], clock: { now })
                    .verify(chain: chain.map(\.der))
            } catch  where !problems.contains(error.message) {
                problems.append(error.message)
            } catch {}
        }
        self.problems = problems
    }
}

extension Certificate {
    fileprivate var subject: String { Self.text(X509_get_subject_name(pointer)) }
    fileprivate var issuer: String { Self.text(X509_get_issuer_name(pointer)) }

    private static func text(_ name: OpaquePointer?) -> String {
        var out = [CChar](repeating: 0, count: 512)
        guard X509_NAME_oneline(name, &out, Int32(out.count)) != nil else { return "" }
        return printable(
            String(decoding: out.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self), limit: 512)
    }

    fileprivate var keyKind: String {
        guard let key = X509_get0_pubkey(pointer), let name = EVP_PKEY_get0_type_name(key) else { return "unknown" }
        return "\(String(cString: name)) \(EVP_PKEY_get_bits(key))"
    }

    fileprivate var fingerprint: String {
        var out = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        guard X509_digest(pointer, EVP_sha256(), &out, &count) == 1 else { return "" }
        return out.prefix(Int(count)).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
