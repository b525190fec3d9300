import Glibc
import HTTPTransfer
import RegistryClient

extension AgentSettings {
    /// What a `RegistryClient` needs to know, passwords read from their files (blocking, at most 64 KiB each).
    /// - Throws: `unreadable` with the key of a password file that cannot be read.
    package func registryConfiguration(userAgent: String) throws(SettingsError) -> RegistryConfiguration {
        var hosts: [String: HostConfiguration] = [:]
        for registry in registries {
            func given(_ text: String) -> String? { text.isEmpty ? nil : text }
            var host = HostConfiguration(
                usesPlainHTTP: registry.plainHTTP, skipsTLSVerification: registry.insecure, mirrors: registry.mirrors,
                caFile: given(registry.caFile), clientCertificateFile: given(registry.clientCert),
                clientKeyFile: given(registry.clientKey), tokenServers: registry.tokenServers)
            if !registry.username.isEmpty {
                host.credential = .password(username: registry.username, password: try Self.password(of: registry))
            }
            hosts[registry.host.lowercased()] = host
        }
        return RegistryConfiguration(
            hosts: hosts, dockerConfigPath: dockerConfig.isEmpty ? nil : dockerConfig,
            registriesDirectory: registriesDirectory.isEmpty ? nil : registriesDirectory, userAgent: userAgent,
            proxy: ProxySettings(
                http: proxy.http.isEmpty ? nil : proxy.http, https: proxy.https.isEmpty ? nil : proxy.https,
                noProxy: proxy.noProxy.split(separator: ",").map { $0.filter { $0 != " " } }))
    }

    private static func password(of registry: RegistrySettings) throws(SettingsError) -> String {
        let text: String
        do throws(SettingsError) {
            text = try SettingsLoader.read(
                registry.passwordFile, mayBeMissing: false, what: "password", limit: 64 << 10)
        } catch {
            throw SettingsError(
                .unreadable, key: "registries.\(registry.host).passwordFile", origin: error.origin, error.message)
        }
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }
}
