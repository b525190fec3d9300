import Foundation
import Settings
import Testing

/// A configuration file in a directory of its own, removed at the end.
private final class ConfigFile {
    let path: String

    init(_ text: String) throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "chunkd-settings-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        path = directory.appending(path: "config.yaml").path
        try Data(text.utf8).write(to: URL(filePath: path))
    }

    deinit { try? FileManager.default.removeItem(at: URL(filePath: path).deletingLastPathComponent()) }

    func loader(arguments: [String] = [], environment: [String: String] = [:]) -> SettingsLoader {
        SettingsLoader(arguments: arguments, environment: environment, defaultFile: path)
    }
}

private func error(_ yaml: String, arguments: [String] = [], environment: [String: String] = [:]) throws
    -> SettingsError
{
    let file = try ConfigFile(yaml)
    let loader = file.loader(arguments: arguments, environment: environment)
    let error = #expect(throws: SettingsError.self) { try loader.load() }
    return try #require(error)
}

@Suite struct SettingsPrecedenceTests {
    @Test func noFileMeansDefaults() throws {
        let settings = try SettingsLoader(defaultFile: "/nonexistent/config.yaml").load()
        #expect(settings == AgentSettings.defaults)
        #expect(settings.controlSocket == "/run/chunkd/control.sock")
        #expect(settings.gateSocket == "/run/chunkd/gate.sock")
        #expect(settings.metricsAddress == .init(host: "127.0.0.1", port: 4711))
        #expect(settings.gate.deadline == .seconds(30))
        #expect(settings.gate.agentAwayDeadline == .seconds(120))
    }

    @Test func flagsBeatEnvironmentBeatsFileBeatsDefaults() throws {
        let file = try ConfigFile(
            """
            stateDir: /file
            fetch:
              parallel: 3
              rangeMax: 16MiB
            log: {level: debug}
            """)
        let environment = ["CHUNKD_STATE_DIR": "/environment", "CHUNKD_FETCH_PARALLEL": "5", "PATH": "/bin"]
        #expect(try file.loader().load().stateDirectory == "/file")
        #expect(try file.loader(environment: environment).load().stateDirectory == "/environment")
        let settings = try file.loader(
            arguments: ["--state-dir", "/flag", "--log-format=json"], environment: environment
        ).load()
        #expect(settings.stateDirectory == "/flag")
        #expect(settings.fetch.parallel == 5)
        #expect(settings.fetch.rangeMaxBytes == 16 << 20)
        #expect(settings.logLevel == .debug)
        #expect(settings.logFormat == .json)
        #expect(settings.hydrate == AgentSettings.defaults.hydrate)
    }

    @Test func theFileIsNamedByFlagThenEnvironment() throws {
        let one = try ConfigFile("runDir: /one")
        let two = try ConfigFile("runDir: /two")
        let environment = ["CHUNKD_CONFIG": two.path]
        #expect(try one.loader(environment: environment).load().runDirectory == "/two")
        let loader = two.loader(arguments: ["--config", one.path], environment: environment)
        #expect(try loader.load().controlSocket == "/one/control.sock")
    }

    @Test func theLastOfTwoFlagsWinsAndCommasSurvive() throws {
        let loader = SettingsLoader(
            arguments: ["--state-dir=/a", "--state-dir", "/b,c"], defaultFile: "/nonexistent/config.yaml")
        #expect(try loader.load().stateDirectory == "/b,c")
    }

    @Test func everySettingCanBeGivenInAllThreeWays() throws {
        for setting in SettingsTable.all where !setting.defaultText.isEmpty {
            let parts = setting.key.split(separator: ".")
            let yaml =
                parts.count == 1
                ? "\(parts[0]): '\(setting.defaultText)'"
                : "\(parts[0]): {\(parts[1]): '\(setting.defaultText)'}"
            let file = try ConfigFile(yaml)
            #expect(try file.loader().load() == AgentSettings.defaults, "\(setting.key)")
            let none = "/nonexistent/config.yaml"
            for loader in [
                SettingsLoader(environment: [setting.environmentName: "?"], defaultFile: none),
                SettingsLoader(arguments: [setting.flag, "?"], defaultFile: none),
            ] {
                let error = try #require(#expect(throws: SettingsError.self) { try loader.load() })
                #expect(error.key == setting.key && error.code == .wrongValue, "\(setting.key): \(error)")
            }
        }
    }

    @Test func chunkgateIsStartedWithTheSameSettings() throws {
        let loader = SettingsLoader(
            environment: ["CHUNKD_SHARDS": "2", "CHUNKD_DEADLINE": "12s", "CHUNKD_READ_AHEAD": "1MiB"],
            defaultFile: "/nonexistent/config.yaml")
        let settings = try loader.load()
        #expect(settings.fetch.deadline == .seconds(10))
        #expect(
            settings.gateArguments == [
                "--state-dir", "/var/lib/chunkd", "--run-dir", "/run/chunkd", "--agent-user", "chunkd", "--shards", "2",
                "--deadline", "12000ms", "--agent-away-deadline", "120000ms", "--read-ahead", "1024KiB",
            ])
    }

    @Test func proxiesComeFromTheUsualVariablesUnlessConfigured() throws {
        let environment = ["HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2", "NO_PROXY": ".example"]
        let plain = SettingsLoader(environment: environment, defaultFile: "/nonexistent/config.yaml")
        #expect(try plain.load().proxy == .init(https: "http://b:2", noProxy: ".example"))
        let file = try ConfigFile("proxy: {https: 'http://c:3'}")
        #expect(try file.loader(environment: environment).load().proxy.https == "http://c:3")
    }

    @Test func registriesAreReadByHost() throws {
        let file = try ConfigFile(
            """
            registries:
              registry.example:5000:
                mirrors: [mirror-a.example, "mirror-b.example:443"]
                caFile: /etc/ca.pem
                clientCert: /etc/cert.pem
                clientKey: /etc/key.pem
                username: me
                passwordFile: /etc/password
              docker.io:
                tokenServers: [auth.docker.io]
              mirror-a.example: {plainHTTP: true}
              empty.example:
            """)
        let settings = try file.loader().load()
        #expect(
            settings.registries.map(\.host)
                == ["docker.io", "empty.example", "mirror-a.example", "registry.example:5000"])
        let registry = settings.registry("registry.example:5000")
        #expect(registry.mirrors == ["mirror-a.example", "mirror-b.example:443"])
        #expect(registry.caFile == "/etc/ca.pem" && registry.clientKey == "/etc/key.pem")
        #expect(registry.username == "me" && registry.passwordFile == "/etc/password")
        #expect(settings.registry("docker.io").tokenServers == ["auth.docker.io"])
        #expect(settings.registry("mirror-a.example").plainHTTP)
        #expect(settings.registry("unknown.example") == RegistrySettings(host: "unknown.example"))
    }
}

@Suite struct SettingsErrorTests {
    @Test func anUnknownKeyNamesFileLineAndTheNearestKey() throws {
        let error = try error("log:\n  level: info\nfetch:\n  paralel: 3\n")
        #expect(error.code == .unknownKey)
        #expect(error.key == "fetch.paralel")
        #expect(error.origin.hasSuffix("config.yaml:4"))
        #expect(error.message == "unknown key; did you mean fetch.parallel?")
    }

    @Test func unknownFlagsVariablesAndRegistryKeysNameTheNearest() throws {
        #expect(try error("", arguments: ["--stat-dir", "/x"]).message.contains("--state-dir"))
        let variable = try error("", environment: ["CHUNKD_LOG_LEVL": "info"])
        #expect(variable.origin == "CHUNKD_LOG_LEVL" && variable.message.contains("CHUNKD_LOG_LEVEL"))
        let registry = try error("registries: {a.example: {cafile: /x}}")
        #expect(registry.code == .unknownKey && registry.message.contains("caFile"))
    }

    @Test func serviceLinksOfKubernetesAreNotOurs() throws {
        let environment = [
            "CHUNKD_SERVICE_HOST": "10.0.0.1", "CHUNKD_SERVICE_PORT": "4711", "CHUNKD_SERVICE_PORT_METRICS": "4711",
            "CHUNKD_PORT": "tcp://10.0.0.1:4711", "CHUNKD_PORT_4711_TCP": "x", "CHUNKD_PORT_4711_TCP_ADDR": "x",
        ]
        _ = try SettingsLoader(environment: environment, defaultFile: "/nonexistent/config.yaml").load()
    }

    @Test(arguments: [
        ("quota: {highWater: 50GB}", "quota.highWater", "KiB, MiB, GiB, TiB"),
        ("quota: {highWater: 50}", "quota.highWater", "KiB, MiB, GiB, TiB"),
        ("quota: {highWater: 99999999999TiB}", "quota.highWater", "size"),
        ("fetch: {rangeMax: 1MiB}", "fetch.rangeMax", "from 4MiB to 64MiB"),
        ("fetch: {deadline: 5}", "fetch.deadline", "us, ms, s, m, h"),
        ("fetch: {deadline: 5 s}", "fetch.deadline", "us, ms, s, m, h"),
        ("fetch: {parallel: 0}", "fetch.parallel", "from 1 to 256"),
        ("fetch: {parallel: 1.5}", "fetch.parallel", "whole number"),
        ("hydrate: {rate: 100MiB}", "hydrate.rate", "100MiB/s"),
        ("hydrate: {enabled: yes}", "hydrate.enabled", "true or false"),
        ("limits: {download: 50MB/s}", "limits.download", "100MiB/s"),
        ("limits: {registry: 1023KiB/s}", "limits.registry", "at least 1MiB/s"),
        ("limits: {prefetch: 0}", "limits.prefetch", "unlimited"),
        ("log: {level: loud}", "log.level", "trace, debug, info"),
        ("metrics: {address: 4711}", "metrics.address", "host:port"),
        ("stateDir: relative/path", "stateDir", "absolute path"),
        ("stateDir:", "stateDir", "one value"),
        ("stateDir: [a]", "stateDir", "one value"),
        ("fetch: 3", "fetch", "section"),
        ("registries: [a]", "registries", "hosts"),
        ("registries: {'https://a.example': }", "registries.https://a.example", "without a scheme"),
        ("registries: {a.example: {mirrors: b}}", "registries.a.example.mirrors", "list of hosts"),
        ("registries: {a.example: {mirrors: [https://b]}}", "registries.a.example.mirrors", "without a scheme"),
        ("registries: {a.example: {tokenServers: [a b]}}", "registries.a.example.tokenServers", "host or host:port"),
        ("proxy: {http: 'proxy:3128'}", "proxy.http", "http://proxy.example:3128"),
        ("registries: {a.example: {insecure: 1}}", "registries.a.example.insecure", "true or false"),
        ("registries: {a.example: {caFile: ca.pem}}", "registries.a.example.caFile", "absolute path"),
        ("registries: {a.example: {clientCert: /c}}", "registries.a.example.clientCert", "together"),
        ("registries: {a.example: {username: u}}", "registries.a.example.username", "together"),
        ("registries: {a.example: {plainHTTP: true, caFile: /c}}", "registries.a.example.plainHTTP", "no TLS"),
        ("quota: {highWater: 1GiB, lowWater: 2GiB}", "quota.lowWater", "at most quota.highWater"),
        ("{gate: {deadline: 10s}, fetch: {deadline: 10s}}", "fetch.deadline", "less than gate.deadline"),
        ("gate: {agentUser: 'a b'}", "gate.agentUser", "user name"),
    ])
    func aWrongValueNamesKeyAndForm(yaml: String, key: String, expected: String) throws {
        let error = try error(yaml)
        #expect(error.key == key)
        #expect(error.message.contains(expected), "\(error)")
        #expect(error.origin.contains("config.yaml"))
    }

    @Test(arguments: ["a: b: c", "- 1", "[", "log: {level: info}\nlog: {level: debug}", "? [x]\n: 1"])
    func whatIsNoMappingIsASyntaxError(yaml: String) throws {
        #expect(try error(yaml).code == .syntax)
    }

    @Test func aliasesThatMultiplyAreRefused() throws {
        var yaml = "registries:\n  a0.example: &a0 {username: u, passwordFile: /p}\n"
        for level in 1...40 { yaml += "  a\(level).example: &a\(level) {mirrors: [*a\(level - 1), *a\(level - 1)]}\n" }
        let error = try error(yaml)
        #expect(error.code == .wrongValue || error.code == .syntax)
    }

    @Test func aFileThatIsNamedMustExistAndBeAFileOfBoundedSize() throws {
        for path in ["/nonexistent/config.yaml", "/tmp", "/dev/zero"] {
            let loader = SettingsLoader(arguments: ["--config", path])
            let error = try #require(#expect(throws: SettingsError.self) { try loader.load() })
            #expect(error.code == .unreadable && error.origin == path)
        }
    }

    @Test func argumentsThatAreNoFlagsAreErrors() throws {
        #expect(try error("", arguments: ["serve"]).origin == "serve")
        #expect(try error("", arguments: ["--state-dir"]).message.contains("expected a value"))
    }

    @Test func aBrokenReloadKeepsTheOldSettings() throws {
        let file = try ConfigFile("fetch: {parallel: 7}")
        let loader = file.loader()
        let first = try loader.load()
        try Data("fetch: {parallel: many}".utf8).write(to: URL(filePath: file.path))
        let broken = loader.reload(keeping: first)
        #expect(broken.settings == first)
        #expect(broken.error?.key == "fetch.parallel")
        try Data("fetch: {parallel: 9}".utf8).write(to: URL(filePath: file.path))
        let mended = loader.reload(keeping: first)
        #expect(mended.error == nil && mended.settings.fetch.parallel == 9)
    }
}

@Suite struct UnitsTests {
    @Test func sizesAreWholeNumbersOfBinaryUnits() {
        #expect(Units.size("0") == 0)
        #expect(Units.size("1B") == 1)
        #expect(Units.size("512KiB") == 512 << 10)
        #expect(Units.size("50GiB") == 50 << 30)
        #expect(Units.size("16777215TiB") == 16_777_215 << 40)
        for text in ["", "1", "KiB", "-1KiB", "+1KiB", "1.5KiB", "1 KiB", "1kib", "1KB", "16777216TiB", "１KiB"] {
            #expect(Units.size(text) == nil, "\(text)")
        }
    }

    @Test func durationsAndRatesNeedTheirUnits() {
        #expect(Units.duration("200ms") == .milliseconds(200))
        #expect(Units.duration("30s") == .seconds(30))
        #expect(Units.duration("2h") == .seconds(7200))
        #expect(Units.duration("7us") == .microseconds(7))
        for text in ["", "5", "s", "1d", "-1s", "99999999999999999h"] {
            #expect(Units.duration(text) == nil, "\(text)")
        }
        #expect(Units.rate("100MiB/s") == .some(.some(100 << 20)))
        #expect(Units.rate("unlimited") == .some(nil))
        for text in ["100MiB", "0/s", "0", "1/s", "/s"] { #expect(Units.rate(text) == nil, "\(text)") }
    }

    @Test func sizesAreWrittenAsTheyAreRead() {
        for bytes in [0, 1, 1023, 1024, 1536, 8 << 20, (8 << 20) + 1, 3 << 40] as [UInt64] {
            #expect(Units.size(Units.text(size: bytes)) == bytes)
        }
    }

    @Test func listenAddresses() {
        #expect(AgentSettings.ListenAddress("[::1]:80") == .init(host: "::1", port: 80))
        #expect(AgentSettings.ListenAddress("localhost:0")?.description == "localhost:0")
        for text in ["", ":80", "::1:80", "a:b", "a:65536", "a"] { #expect(AgentSettings.ListenAddress(text) == nil) }
    }
}

@Suite("Settings of the mirror") struct MirrorSettingsTests {
    private func load(_ arguments: String...) throws(SettingsError) -> AgentSettings {
        try SettingsLoader(arguments: ["--config", "/dev/null"] + arguments, environment: [:]).load()
    }

    @Test("it is off, on a loopback address, and for nobody")
    func defaults() throws {
        let mirror = AgentSettings.defaults.mirror
        #expect(!mirror.enabled && !mirror.usesNodeCredentials && mirror.registries.isEmpty)
        #expect(mirror.listen.description == "127.0.0.1:4712" && mirror.quotaBytes == 10 << 30)
    }

    @Test("registries are names as references have them, each once")
    func registries() throws {
        let settings = try load(
            "--mirror-enabled", "true", "--mirror-registries", "docker.io, R.example:5000,docker.io")
        #expect(settings.mirror.registries == ["docker.io", "r.example:5000"])
        for odd in ["registry", "a/b.c", "https://docker.io", "u@docker.io", "docker.io:0"] {
            #expect(throws: SettingsError.self, "\(odd)") { try load("--mirror-registries", odd) }
        }
        let none = #expect(throws: SettingsError.self) { try load("--mirror-enabled", "true") }
        #expect(none?.code == .contradiction && none?.key == "mirror.registries")
    }

    @Test(
        "only loopback addresses are listened on",
        arguments: ["0.0.0.0:4712", "10.0.0.1:1", "localhost:1", "[::]:1", "x"])
    func loopback(address: String) throws {
        #expect(throws: SettingsError.self) { try load("--mirror-listen", address) }
        #expect(try load("--mirror-listen", "[::1]:80").mirror.listen.host == "::1")
        #expect(try load("--mirror-listen", "127.0.0.2:80").mirror.listen.port == 80)
    }
}

@Suite struct SettingsDocumentationTests {
    @Test func theTablesOfTheDocumentationAreTheTablesOfTheCode() throws {
        // Tests/SettingsTests/ → the root of the repository.
        let root = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs/operations.md"), encoding: .utf8)
        #expect(text.contains(SettingsTable.markdown))
        #expect(text.contains(SettingsTable.registryMarkdown))
    }
}
