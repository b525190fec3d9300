import HTTPTransfer
import OCISpec

/// One place to ask for a repository: the registry itself or a mirror of it.
struct Endpoint: Hashable, Sendable {
    /// `HOST[:PORT]` as configuration and credentials name it.
    let key: String
    let origin: HTTPURL.Origin
    /// Put before the repository: a mirror `https://HOST/PREFIX` keeps `REPO` as `PREFIX/REPO`.
    let prefix: String
    let isMirror: Bool

    /// The repository's name at this endpoint.
    func repository(_ name: String) -> String { prefix.isEmpty ? name : prefix + "/" + name }

    /// The URL of `/v2/<target>`; nil when the target holds what a URL cannot.
    func url(_ target: String) -> HTTPURL? { HTTPURL(origin: origin, target: "/v2/" + target) }
}

/// The one registry whose name in references is not the host that serves it, nor the one that gives its tokens
/// (docs.docker.com, "Docker Hub").
package enum DockerHub {
    package static let name = "docker.io"
    package static let authority = "registry-1.docker.io"
    static let tokenServer = "auth.docker.io"
}

extension RegistryConfiguration {
    /// What is configured for a host, the per-registry files included.
    func host(_ key: String) -> HostConfiguration {
        var host = hosts[key] ?? HostConfiguration()
        if key == DockerHub.name { host.tokenServers.append(DockerHub.tokenServer) }
        if let registriesDirectory {
            let directory = registriesDirectory + "/" + key + "/"
            host.caFile = host.caFile ?? LocalFile.existing(directory + "ca.crt")
            host.clientCertificateFile = host.clientCertificateFile ?? LocalFile.existing(directory + "client.crt")
            host.clientKeyFile = host.clientKeyFile ?? LocalFile.existing(directory + "client.key")
        }
        if case .given = credentials {
            host.clientCertificateFile = nil
            host.clientKeyFile = nil
        }
        return host
    }

    /// TLS for a host.
    func security(_ key: String) -> TransferSecurity {
        let host = host(key)
        return TransferSecurity(
            isVerified: !host.skipsTLSVerification, caFile: host.caFile,
            clientCertificateFile: host.clientCertificateFile, clientKeyFile: host.clientKeyFile)
    }

    /// The registry's own endpoint.
    func origin(of registry: String) throws(RegistryError) -> Endpoint {
        let scheme: HTTPURL.Scheme = hosts[registry]?.usesPlainHTTP == true ? .http : .https
        let authority = registry == DockerHub.name ? DockerHub.authority : registry
        guard let origin = HTTPURL.origin(scheme, authority: authority) else {
            throw RegistryError(.configuration, "registry \(OCISpecError.quote(registry)) is not HOST[:PORT]")
        }
        return Endpoint(key: registry, origin: origin, prefix: "", isMirror: false)
    }

    /// Where to pull from, in order: the mirrors, then the registry.
    func pullEndpoints(of registry: String) throws(RegistryError) -> [Endpoint] {
        var out: [Endpoint] = []
        for mirror in hosts[registry]?.mirrors ?? [] { out.append(try self.mirror(mirror, of: registry)) }
        out.append(try origin(of: registry))
        return out
    }

    private func mirror(_ text: String, of registry: String) throws(RegistryError) -> Endpoint {
        let hasScheme = text.lowercased().hasPrefix("http://") || text.lowercased().hasPrefix("https://")
        let key = text.prefix { $0 != "/" }.lowercased()
        let scheme: HTTPURL.Scheme = hosts[key]?.usesPlainHTTP == true ? .http : .https
        do throws(OCISpecError) {
            let url = try HTTPURL(hasScheme ? text : scheme.rawValue + "://" + text)
            var prefix = url.target[...]
            while prefix.hasPrefix("/") { prefix = prefix.dropFirst() }
            while prefix.hasSuffix("/") { prefix = prefix.dropLast() }
            guard prefix.isEmpty || Reference.isRepository(String(prefix)) else {
                throw OCISpecError(.invalidURL, "path \(OCISpecError.quote(prefix)) is no repository prefix")
            }
            return Endpoint(key: url.origin.authority, origin: url.origin, prefix: String(prefix), isMirror: true)
        } catch {
            throw RegistryError(
                .configuration, "mirror \(OCISpecError.quote(text)) of \(registry): \(error.message)")
        }
    }
}

extension RegistryConfiguration {
    /// `http(s)://HOST[:PORT]` of a registry itself.
    package func url(of registry: String) throws(RegistryError) -> String {
        try origin(of: registry).origin.description
    }
}

extension HTTPURL.Origin {
    /// `HOST[:PORT]` without a default port: the key of configuration and credentials.
    var authority: String { host + (port == scheme.defaultPort ? "" : ":\(port)") }
}
