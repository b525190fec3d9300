import Glibc

/// Reads the settings of a node from its file, the environment and flags, each stronger than the one before.
///
/// Stateless: every `load` reads the file anew. Blocking file I/O of at most 1 MiB; call it at start, or off the pool.
package struct SettingsLoader: Sendable {
    /// Command-line arguments without the program's name: only `--flag value` and `--flag=value`.
    package var arguments: [String]
    package var environment: [String: String]
    /// Read when neither `--config` nor `CHUNKD_CONFIG` names another; may be missing.
    package var defaultFile: String

    package init(
        arguments: [String] = [], environment: [String: String] = [:], defaultFile: String = SettingsTable.defaultFile
    ) {
        self.arguments = arguments
        self.environment = environment
        self.defaultFile = defaultFile
    }

    /// All settings, checked. The first error found is thrown: flags, environment, file, then values.
    package func load() throws(SettingsError) -> AgentSettings {
        let flags = try Flags(arguments)
        try checkEnvironment()
        let named = flags.file ?? environment[SettingsTable.fileEnvironmentName]
        let text = try Self.read(
            named ?? defaultFile, mayBeMissing: named == nil, what: "configuration", limit: YAMLDocument.maxBytes)
        let document = try YAMLDocument(text, file: named ?? defaultFile)
        let sources = try Sources(flags: flags, environment: environment, text: text, document: document)

        var settings = AgentSettings()
        for setting in SettingsTable.all {
            let given = sources.text(of: setting)
            let value = given?.text ?? setting.defaultText
            if let expected = setting.assign(value, &settings) {
                throw SettingsError(
                    .wrongValue, key: setting.key, origin: given?.origin ?? "default",
                    "expected \(expected), found \"\(value.prefix(80))\"")
            }
        }
        for host in document.hosts { settings.registries.append(try sources.registry(host)) }
        settings.derive()
        useProxyVariables(&settings.proxy)
        try Self.checkTogether(settings, origin: document.file)
        return settings
    }

    /// What a reload leads to: the new settings, or the old ones and why the new could not be had.
    package struct Reload: Sendable {
        package var settings: AgentSettings
        package var error: SettingsError?
    }

    /// Loads again; a broken configuration keeps `old` whole.
    package func reload(keeping old: AgentSettings) -> Reload {
        do throws(SettingsError) { return Reload(settings: try load(), error: nil) } catch {
            return Reload(settings: old, error: error)
        }
    }

    /// The variables every HTTP client knows, in lower case first, where nothing was configured.
    private func useProxyVariables(_ proxy: inout AgentSettings.Proxy) {
        func variable(_ name: String) -> String { environment[name.lowercased()] ?? environment[name] ?? "" }
        if proxy.http.isEmpty { proxy.http = variable("HTTP_PROXY") }
        if proxy.https.isEmpty { proxy.https = variable("HTTPS_PROXY") }
        if proxy.noProxy.isEmpty { proxy.noProxy = variable("NO_PROXY") }
    }

    private static func checkTogether(_ settings: AgentSettings, origin: String) throws(SettingsError) {
        if settings.quota.lowWaterBytes > settings.quota.highWaterBytes {
            throw SettingsError(
                .contradiction, key: "quota.lowWater", origin: origin,
                "expected at most quota.highWater (\(Units.text(size: settings.quota.highWaterBytes))), "
                    + "found \(Units.text(size: settings.quota.lowWaterBytes))")
        }
        if settings.fetch.deadline >= settings.gate.deadline {
            throw SettingsError(
                .contradiction, key: "fetch.deadline", origin: origin,
                "expected less than gate.deadline (\(settings.gate.deadline)), found \(settings.fetch.deadline)")
        }
        if settings.mirror.enabled, settings.mirror.registries.isEmpty {
            throw SettingsError(
                .contradiction, key: "mirror.registries", origin: origin,
                "expected the registries to be mirrored, such as docker.io, since mirror.enabled is true; found none")
        }
    }

    /// A mistyped `CHUNKD_*` name is an error. What Kubernetes sets for a Service called `chunkd…` is not ours.
    private func checkEnvironment() throws(SettingsError) {
        let known = SettingsTable.all.map(\.environmentName) + [SettingsTable.fileEnvironmentName]
        for name in environment.keys.sorted() where name.hasPrefix("CHUNKD_") && !known.contains(name) {
            if Self.isServiceLink(name) { continue }
            throw SettingsError(
                .unknownKey, key: "", origin: name,
                "unknown environment variable; \(Suggestion.phrase(for: name, among: known))")
        }
    }

    /// kubernetes.io, "Discovering services": `{NAME}_SERVICE_HOST`, `_SERVICE_PORT[_X]`, `_PORT`, `_PORT_80_TCP[_X]`.
    private static func isServiceLink(_ name: String) -> Bool {
        name.hasSuffix("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.hasSuffix("_PORT")
            || ["_TCP", "_UDP", "_SCTP"].contains { name.contains($0) && name.contains("_PORT_") }
    }

    /// A whole UTF-8 file of at most `limit` bytes; empty when it may be missing and is. `what` is named in errors.
    static func read(
        _ path: String, mayBeMissing: Bool, what: String, limit: Int
    ) throws(SettingsError) -> String {
        func failure(_ why: String) -> SettingsError {
            SettingsError(.unreadable, origin: path, "cannot read the \(what) file: \(why)")
        }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno == ENOENT, mayBeMissing { return "" }
            throw failure(String(cString: strerror(errno)))
        }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure(String(cString: strerror(errno))) }
            if count == 0 { break }
            bytes += buffer[..<count]
            guard bytes.count <= limit else { throw failure("over \(limit) bytes") }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw failure("not UTF-8") }
        return text
    }
}
