import PeerTransport

/// Configuration files for the openssl tool (config(5), x509v3_config(5)). Every text put in was validated before, or is
/// a test's own.
enum OpenSSLConfiguration {
    static func authority(trustDomain: TrustDomain, directory: String) -> String {
        request(commonName: "chunkd development CA") + signing(directory) + """

            [extensions]
            basicConstraints = critical, CA:true, pathlen:1
            keyUsage = critical, keyCertSign, cRLSign
            subjectKeyIdentifier = hash
            subjectAltName = URI:spiffe://\(trustDomain)

            """
    }

    /// `names` as in `subjectAltName`: `URI:…`, `DNS:…`.
    static func node(commonName: String, names: [String], usages: [String], directory: String) -> String {
        let names = names.isEmpty ? "" : "subjectAltName = " + names.joined(separator: ", ") + "\n"
        let usage = usages.isEmpty ? "" : "extendedKeyUsage = " + usages.joined(separator: ", ") + "\n"
        return request(commonName: commonName) + signing(directory) + """

            [extensions]
            basicConstraints = critical, CA:false
            keyUsage = critical, digitalSignature
            subjectKeyIdentifier = hash
            authorityKeyIdentifier = keyid

            """ + usage + names
    }

    private static func request(commonName: String) -> String {
        """
        [req]
        prompt = no
        utf8 = yes
        distinguished_name = subject
        [subject]
        commonName = \(commonName)

        """
    }

    /// What `openssl ca` insists on; its data base is thrown away.
    private static func signing(_ directory: String) -> String {
        """
        [ca]
        default_ca = authority
        [authority]
        database = \(directory)/index
        new_certs_dir = \(directory)
        rand_serial = yes
        default_md = sha256
        policy = policy
        unique_subject = no
        x509_extensions = extensions
        [policy]
        commonName = supplied

        """
    }
}
