import FoundationEssentials
import OCISpec

/// Finds the credential for a registry: the configuration's own, then the registry's files, then docker's config.json.
/// Reads files anew each time, so that rotated ones are seen. Value type; lookups block.
struct CredentialStore: Sendable {
    let configuration: RegistryConfiguration

    /// The credential for `HOST[:PORT]`, nil when there is none. Blocks: not for the cooperative pool.
    func credential(for key: String) throws(RegistryError) -> RegistryCredential? {
        if case .given(let credential, let registry) = configuration.credentials {
            return key == registry ? credential : nil
        }
        if let own = configuration.hosts[key]?.credential { return own }
        if let directory = configuration.registriesDirectory,
            let found = try perRegistryFiles(directory + "/" + key, key: key)
        {
            return found
        }
        guard let path = configuration.dockerConfigPath, let config = try DockerConfig.read(path) else { return nil }
        return try config.credential(for: key, configuration)
    }

    private func perRegistryFiles(_ directory: String, key: String) throws(RegistryError) -> RegistryCredential? {
        if let config = try DockerConfig.read(directory + "/auth.json") {
            let found = try config.credential(for: key, configuration)
            // A file of one entry, as Kubernetes and podman users write it by hand.
            if let found { return found }
            return try config.bareEntry
        }
        guard let username = try LocalFile.read(directory + "/username"),
            let password = try LocalFile.read(directory + "/password")
        else { return nil }
        return .password(username: Self.line(username), password: Self.line(password))
    }

    /// The text without the line end that editors and `kubectl create secret --from-file` leave.
    private static func line(_ bytes: [UInt8]) -> String {
        var bytes = bytes[...]
        while let last = bytes.last, last == 10 || last == 13 { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// docker's config.json (docs.docker.com "docker login", cli/config/configfile).
struct DockerConfig: Decodable {
    struct Entry: Decodable {
        let auth: String?
        let username: String?
        let password: String?
        let identitytoken: String?
        let registrytoken: String?
    }

    private let auths: [String: Entry]?
    private let credHelpers: [String: String]?
    private let credsStore: String?
    private let auth: String?
    private let username: String?
    private let password: String?

    /// Reads a config file; nil when there is none. Messages never quote the content.
    static func read(_ path: String) throws(RegistryError) -> DockerConfig? {
        guard let bytes = try LocalFile.read(path) else { return nil }
        do {
            return try JSONDecoder().decode(DockerConfig.self, from: Data(bytes))
        } catch {
            throw RegistryError(.credentials, "\(path) is not a docker config file")
        }
    }

    /// The registry's helper, else its entry in `auths`, else the default store.
    func credential(for key: String, _ configuration: RegistryConfiguration) throws(RegistryError)
        -> RegistryCredential?
    {
        if let helper = credHelpers?.first(where: { Self.host($0.key) == key })?.value {
            return try Self.ask(helper, key, configuration)
        }
        // An exact key wins over one that only means the same host, whatever order the dictionary has.
        let names = (auths ?? [:]).keys.filter { Self.host($0) == key }.sorted()
        if let name = names.first(where: { $0 == key }) ?? names.first, let entry = auths?[name],
            let found = try Self.credential(entry, key: key)
        {
            return found
        }
        guard let credsStore, !credsStore.isEmpty else { return nil }
        return try Self.ask(credsStore, key, configuration)
    }

    private static func ask(
        _ helper: String, _ key: String, _ configuration: RegistryConfiguration
    ) throws(RegistryError) -> RegistryCredential? {
        try CredentialHelper.get(
            helper, registry: key, directory: configuration.credentialHelperDirectory,
            timeout: configuration.credentialHelperTimeout)
    }

    /// The credential of a file that is one entry and no map of them.
    var bareEntry: RegistryCredential? {
        get throws(RegistryError) {
            let entry = Entry(
                auth: auth, username: username, password: password, identitytoken: nil, registrytoken: nil)
            return try Self.credential(entry, key: "auth.json")
        }
    }

    private static func credential(_ entry: Entry, key: String) throws(RegistryError) -> RegistryCredential? {
        if let token = entry.registrytoken, !token.isEmpty { return .bearer(token) }
        if let token = entry.identitytoken, !token.isEmpty { return .identityToken(token) }
        if let auth = entry.auth, !auth.isEmpty {
            guard let data = Data(base64Encoded: auth), let colon = data.firstIndex(of: UInt8(ascii: ":")) else {
                throw RegistryError(.credentials, "the auth of \(key) is not base64 of USER:PASSWORD")
            }
            return .password(
                username: String(decoding: data[..<colon], as: UTF8.self),
                password: String(decoding: data[(colon + 1)...], as: UTF8.self))
        }
        guard let username = entry.username, let password = entry.password, !username.isEmpty else { return nil }
        return .password(username: username, password: password)
    }

    /// `https://HOST/v1/` and `HOST` both mean HOST.
    private static func host(_ name: String) -> String {
        var name = name.lowercased()[...]
        for scheme in ["https://", "http://"] where name.hasPrefix(scheme) { name = name.dropFirst(scheme.count) }
        return String(name.prefix { $0 != "/" })
    }
}
