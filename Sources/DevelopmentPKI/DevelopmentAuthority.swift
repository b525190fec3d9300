import ChunkModel
import Glibc
import LinuxSystem
import PeerTransport

/// A certificate authority in a directory, for development and tests: `ca.crt` and `ca.key`, made by the openssl tool.
/// Production has SPIRE or cert-manager.
///
/// Every method runs programs and blocks: not on the cooperative pool. Keys are P-256 and 0600; nothing is overwritten
/// unless asked for, and a file is put in its place whole.
package struct DevelopmentAuthority: Sendable {
    package let directory: String
    package let trustDomain: TrustDomain

    /// When a certificate is valid, in seconds since 1970.
    package struct Validity: Sendable {
        package var from: Int64
        package var to: Int64

        package init(from: Int64, to: Int64) {
            self.from = from
            self.to = to
        }

        /// From five minutes ago, for clocks that differ, until `days` from now.
        package static func days(_ days: Int) -> Validity {
            let now = Int64(time(nil))
            return Validity(from: now - 300, to: now + Int64(days) * 86_400)
        }
    }

    /// Where a node's files are.
    package struct Files: Sendable {
        package let certificate: String
        package let key: String
    }

    package var bundle: String { directory + "/ca.crt" }
    private var key: String { directory + "/ca.key" }

    /// An authority made before; its trust domain is read from its certificate.
    package init(directory: String) throws(PKIError) {
        self.directory = directory
        let path = directory + "/ca.crt"
        guard access(path, F_OK) == 0 else {
            throw PKIError(.noAuthority, "no CA in \(directory): make one with chunkctl pki init")
        }
        let report: CertificateReport
        do throws(IdentityError) { report = try CertificateReport.read(path)[0] } catch {
            throw PKIError(.noAuthority, error.message)
        }
        guard let domain = report.trustDomain.flatMap({ TrustDomain($0) }) else {
            throw PKIError(.noAuthority, "\(path) names no trust domain (URI spiffe://TRUST-DOMAIN)")
        }
        trustDomain = domain
    }

    /// Makes an authority in `directory`, which is made when it is not there.
    package static func create(
        directory: String, trustDomain: TrustDomain, validity: Validity, force: Bool = false
    ) throws(PKIError) -> DevelopmentAuthority {
        if mkdir(directory, 0o700) != 0, errno != EEXIST {
            throw PKIError(.inputOutput, "mkdir \(directory): \(String(cString: strerror(errno)))")
        }
        try make(directory, trustDomain, signer: nil, validity, force: force)
        return try DevelopmentAuthority(directory: directory)
    }

    /// Makes an authority beneath this one. What it issues is verified against this one's bundle when its own `ca.crt`
    /// follows the leaf in the certificate file.
    package func intermediate(directory: String, validity: Validity) throws(PKIError) -> DevelopmentAuthority {
        if mkdir(directory, 0o700) != 0, errno != EEXIST {
            throw PKIError(.inputOutput, "mkdir \(directory): \(String(cString: strerror(errno)))")
        }
        try Self.make(directory, trustDomain, signer: self, validity, force: false)
        return try DevelopmentAuthority(directory: directory)
    }

    private static func make(
        _ directory: String, _ trustDomain: TrustDomain, signer: DevelopmentAuthority?, _ validity: Validity,
        force: Bool
    ) throws(PKIError) {
        let place = try Workplace(in: directory)
        defer { place.remove() }
        let (certificate, key) = (directory + "/ca.crt", directory + "/ca.key")
        if !force { try Workplace.refuse(existing: [certificate, key]) }
        try place.write(
            "conf", OpenSSLConfiguration.authority(trustDomain: trustDomain, directory: place.path))
        try place.makeKey("key")
        try place.openssl([
            "req", "-new", "-key", place.at("key"), "-config", place.at("conf"), "-out", place.at("csr"),
        ])
        try place.sign(key: signer?.key ?? place.at("key"), certificate: signer?.bundle, validity)
        try place.put("key", as: key, mode: 0o600, force: force)
        try place.put("crt", as: certificate, mode: 0o644, force: force)
    }

    /// Issues `NAME.crt` and `NAME.key` for a node into `output`, by default the authority's directory. The name is a DNS
    /// name too, so that curl(1) can check it; peers look at the URI alone.
    package func issue(
        _ name: NodeName, validity: Validity, output: String? = nil, force: Bool = false
    ) throws(PKIError) -> Files {
        try issue(
            file: name.text, commonName: name.text, uris: [trustDomain.id(of: name)], dns: [name.text],
            usages: Self.bothSides, validity: validity, output: output, force: force)
    }

    package static let bothSides = ["serverAuth", "clientAuth"]

    /// Issues a certificate with any URI names and usages: for tests of what must be refused. `file` is the files' name
    /// without its ending.
    package func issue(
        file: String, commonName: String, uris: [String], dns: [String] = [], usages: [String], validity: Validity,
        output: String? = nil, force: Bool = false
    ) throws(PKIError) -> Files {
        guard access(key, R_OK) == 0 else { throw PKIError(.noAuthority, "no readable \(key)") }
        let target = output ?? directory
        let place = try Workplace(in: target)
        defer { place.remove() }
        let files = Files(certificate: "\(target)/\(file).crt", key: "\(target)/\(file).key")
        if !force { try Workplace.refuse(existing: [files.certificate, files.key]) }
        try place.write(
            "conf",
            OpenSSLConfiguration.node(
                commonName: commonName, names: uris.map { "URI:" + $0 } + dns.map { "DNS:" + $0 }, usages: usages,
                directory: place.path))
        try place.makeKey("key")
        try place.openssl([
            "req", "-new", "-key", place.at("key"), "-config", place.at("conf"), "-out", place.at("csr"),
        ])
        try place.sign(key: key, certificate: bundle, validity)
        // The key first: whoever watches both sees a pair that does not fit, and waits for the other.
        try place.put("key", as: files.key, mode: 0o600, force: force)
        try place.put("crt", as: files.certificate, mode: 0o644, force: force)
        return files
    }
}
