import Configuration

/// Flags, checked against the table.
struct Flags {
    /// As given by `--config`.
    private(set) var file: String?
    /// In the form `--flag=value`, each known.
    private(set) var arguments: [String] = []

    init(_ given: [String]) throws(SettingsError) {
        let known = SettingsTable.all.map(\.flag) + [SettingsTable.fileFlag]
        var rest = given[...]
        while let argument = rest.popFirst() {
            guard argument.hasPrefix("--") else {
                throw SettingsError(.unknownKey, origin: argument, "unexpected argument; settings are --flag value")
            }
            let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard known.contains(parts[0]) else {
                throw SettingsError(
                    .unknownKey, origin: parts[0],
                    "unknown flag; \(Suggestion.phrase(for: parts[0], among: known))")
            }
            guard let value = parts.count == 2 ? parts[1] : rest.popFirst() else {
                throw SettingsError(.wrongValue, origin: parts[0], "expected a value after it")
            }
            if parts[0] == SettingsTable.fileFlag {
                file = value
            } else {
                // The last one given wins, as everywhere on a command line.
                arguments.removeAll { $0.hasPrefix(parts[0] + "=") }
                arguments.append("\(parts[0])=\(value)")
            }
        }
    }
}

/// The three places a setting can come from, strongest first.
struct Sources {
    private let flags: CommandLineArgumentsProvider
    private let environment: KeyMappingProvider<EnvironmentVariablesProvider>
    private let file: YAMLSnapshot?
    private let document: YAMLDocument

    init(flags: Flags, environment: [String: String], text: String, document: YAMLDocument) throws(SettingsError) {
        self.flags = CommandLineArgumentsProvider(arguments: ["chunkd"] + flags.arguments)
        self.environment = EnvironmentVariablesProvider(environmentVariables: environment)
            .prefixKeys(with: ConfigKey(["chunkd"]))
        self.document = document
        if document.isEmpty {
            file = nil
        } else {
            do {
                file = try YAMLSnapshot(
                    data: Array(text.utf8).span.bytes, providerName: document.file, parsingOptions: .default)
            } catch { throw SettingsError(.syntax, origin: document.file, "\(error)") }
        }
    }

    /// The strongest text given for a setting, and where; nil when none is.
    func text(of setting: Setting) -> (text: String, origin: String)? {
        let key = AbsoluteConfigKey(setting.path)
        // The flag provider splits at commas; a path may contain one.
        if let parts = strings(flags.snapshot(), key) { return (parts.joined(separator: ","), setting.flag) }
        let environmentKey = AbsoluteConfigKey(setting.environmentPath ?? setting.path)
        if let text = string(environment.snapshot(), environmentKey) { return (text, setting.environmentName) }
        if let file, let text = string(file, key) { return (text, document.origin(of: setting.key)) }
        return nil
    }

    /// One entry of `registries`.
    func registry(_ host: String) throws(SettingsError) -> RegistrySettings {
        var registry = RegistrySettings(host: host)
        registry.mirrors = try hosts(host, "mirrors")
        registry.tokenServers = try hosts(host, "tokenServers")
        registry.plainHTTP = try bool(host, "plainHTTP")
        registry.insecure = try bool(host, "insecure")
        registry.caFile = try path(host, "caFile")
        registry.clientCert = try path(host, "clientCert")
        registry.clientKey = try path(host, "clientKey")
        registry.username = field(host, "username") ?? ""
        registry.passwordFile = try path(host, "passwordFile")
        if registry.clientCert.isEmpty != registry.clientKey.isEmpty {
            throw wrong(
                host, registry.clientKey.isEmpty ? "clientCert" : "clientKey",
                "expected clientCert and clientKey together")
        }
        if registry.username.isEmpty != registry.passwordFile.isEmpty {
            throw wrong(
                host, registry.username.isEmpty ? "passwordFile" : "username",
                "expected username and passwordFile together")
        }
        if registry.plainHTTP, registry.insecure || !registry.caFile.isEmpty || !registry.clientCert.isEmpty {
            throw wrong(host, "plainHTTP", "expected no TLS settings beside plainHTTP")
        }
        return registry
    }

    private func key(_ host: String, _ field: String) -> AbsoluteConfigKey {
        AbsoluteConfigKey(["registries", host, field])
    }

    private func field(_ host: String, _ name: String) -> String? { file.flatMap { string($0, key(host, name)) } }

    private func hosts(_ host: String, _ name: String) throws(SettingsError) -> [String] {
        let list = file.flatMap { strings($0, key(host, name)) } ?? []
        for item in list where !RegistryHost.isValid(item) {
            throw wrong(host, name, "expected host or host:port, without a scheme, found \"\(item.prefix(80))\"")
        }
        return list
    }

    private func bool(_ host: String, _ name: String) throws(SettingsError) -> Bool {
        guard let text = field(host, name) else { return false }
        guard let value = Bool(text) else {
            throw wrong(host, name, "expected true or false, found \"\(text.prefix(80))\"")
        }
        return value
    }

    private func path(_ host: String, _ name: String) throws(SettingsError) -> String {
        guard let text = field(host, name) else { return "" }
        guard text.hasPrefix("/") else {
            throw wrong(host, name, "expected an absolute path, found \"\(text.prefix(80))\"")
        }
        return text
    }

    private func wrong(_ host: String, _ name: String, _ message: String) -> SettingsError {
        let key = "registries.\(host).\(name)"
        return SettingsError(.wrongValue, key: key, origin: document.origin(of: key), message)
    }

    /// Shapes were checked by `YAMLDocument` and `Flags`, so a lookup cannot fail; nil means not given.
    private func string(_ snapshot: any ConfigSnapshot, _ key: AbsoluteConfigKey) -> String? {
        guard let value = try? snapshot.value(forKey: key, type: .string).value, case .string(let text) = value.content
        else { return nil }
        return text
    }

    private func strings(_ snapshot: any ConfigSnapshot, _ key: AbsoluteConfigKey) -> [String]? {
        guard let value = try? snapshot.value(forKey: key, type: .stringArray).value,
            case .stringArray(let list) = value.content
        else { return nil }
        return list
    }
}
