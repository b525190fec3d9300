import HTTPTransfer

/// Everything a `RegistryClient` is told from outside. A plain value: reading files and YAML is done elsewhere, but for
/// credentials and per-registry files, which are looked at when a registry is first used.
package struct RegistryConfiguration: Sendable {
    /// By `HOST[:PORT]` in lower case, as references write it.
    package var hosts: [String: HostConfiguration]
    /// docker's `config.json` with `auths`, `credHelpers`, `credsStore`; nil uses none.
    package var dockerConfigPath: String?
    /// Directory of per-registry files, `DIR/HOST[:PORT]/{auth.json,username,password,ca.crt,client.crt,client.key}`;
    /// nil uses none.
    package var registriesDirectory: String?
    /// Sent as `User-Agent`.
    package var userAgent: String
    package var timeouts: TransferTimeouts
    /// Where `docker-credential-*` programs are; nil looks in PATH.
    package var credentialHelperDirectory: String?
    /// How long a credential helper may run.
    package var credentialHelperTimeout: Duration
    package var limits: TransferLimits
    package var proxy: ProxySettings
    package var retry: RetryPolicy
    /// What registries may be shown.
    package var credentials = Credentials.configured

    /// Where credentials come from.
    package enum Credentials: Sendable, Equatable {
        /// From everywhere this configuration names.
        case configured
        /// This one alone, and only to that registry; nil: none at all, to nobody. Client certificates are credentials too.
        case given(RegistryCredential?, registry: String)
    }

    package init(
        hosts: [String: HostConfiguration] = [:], dockerConfigPath: String? = nil, registriesDirectory: String? = nil,
        userAgent: String = "chunkd/dev", timeouts: TransferTimeouts = TransferTimeouts(),
        credentialHelperDirectory: String? = nil, credentialHelperTimeout: Duration = .seconds(10),
        limits: TransferLimits = TransferLimits(),
        proxy: ProxySettings = ProxySettings(), retry: RetryPolicy = RetryPolicy()
    ) {
        self.hosts = hosts
        self.dockerConfigPath = dockerConfigPath
        self.registriesDirectory = registriesDirectory
        self.userAgent = userAgent
        self.timeouts = timeouts
        self.credentialHelperDirectory = credentialHelperDirectory
        self.credentialHelperTimeout = credentialHelperTimeout
        self.limits = limits
        self.proxy = proxy
        self.retry = retry
    }
}

/// What is particular to one registry host.
package struct HostConfiguration: Sendable, Equatable {
    /// Plain http instead of https. Never guessed, never fallen back to.
    package var usesPlainHTTP: Bool
    /// Accepts any TLS certificate. For tests and emergencies.
    package var skipsTLSVerification: Bool
    /// Registries asked before this one for pulls, in order: `HOST[:PORT]` or `http(s)://HOST[:PORT]`. A mirror's own
    /// configuration is looked up by its host; a scheme written here wins over `usesPlainHTTP`.
    package var mirrors: [String]
    /// Wins over every other source of credentials.
    package var credential: RegistryCredential?
    package var caFile: String?
    package var clientCertificateFile: String?
    package var clientKeyFile: String?
    /// Hosts (`HOST[:PORT]`) of token servers that may be sent this registry's credentials, beside its own host.
    package var tokenServers: [String]

    package init(
        usesPlainHTTP: Bool = false, skipsTLSVerification: Bool = false, mirrors: [String] = [],
        credential: RegistryCredential? = nil, caFile: String? = nil, clientCertificateFile: String? = nil,
        clientKeyFile: String? = nil, tokenServers: [String] = []
    ) {
        self.usesPlainHTTP = usesPlainHTTP
        self.skipsTLSVerification = skipsTLSVerification
        self.mirrors = mirrors
        self.credential = credential
        self.caFile = caFile
        self.clientCertificateFile = clientCertificateFile
        self.clientKeyFile = clientKeyFile
        self.tokenServers = tokenServers
    }
}

/// How to prove who we are to a registry. Its description never shows the secret.
package enum RegistryCredential: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible {
    case password(username: String, password: String)
    /// An OAuth2 refresh token (docker's `identitytoken`), exchanged at the token server.
    case identityToken(String)
    /// A ready bearer token (docker's `registrytoken`).
    case bearer(String)

    package var description: String {
        switch self {
        case .password(let username, _): "password of \(username)"
        case .identityToken: "identity token"
        case .bearer: "bearer token"
        }
    }
    package var debugDescription: String { description }
}
