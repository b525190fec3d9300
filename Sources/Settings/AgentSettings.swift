/// All settings of a node, typed. Names, defaults and meaning of each: `SettingsTable`, docs/operations.md.
///
/// Made by `SettingsLoader`, or `AgentSettings.defaults`. A value: a reload makes a new one.
package struct AgentSettings: Equatable, Sendable {
    /// Where an address is listened on.
    package struct ListenAddress: Equatable, Sendable, CustomStringConvertible {
        /// An IP address or a host name, without brackets.
        package var host: String
        /// 0 lets the kernel choose.
        package var port: Int

        package init(host: String, port: Int) {
            self.host = host
            self.port = port
        }

        /// `host:port` or `[v6]:port`; nil for anything else.
        package init?(_ text: String) {
            guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
                (0...65535).contains(port)
            else { return nil }
            var host = text[..<colon]
            if host.hasPrefix("["), host.hasSuffix("]") {
                host = host.dropFirst().dropLast()
            } else if host.contains(":") {
                return nil
            }
            guard !host.isEmpty else { return nil }
            self.init(host: String(host), port: port)
        }

        package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    }

    package enum LogLevel: String, CaseIterable, Sendable { case trace, debug, info, notice, warning, error, critical }
    /// `auto`: text when standard error is a terminal, JSON otherwise.
    package enum LogFormat: String, CaseIterable, Sendable { case auto, text, json }

    /// Fetching the rest of mounted images in the background.
    package struct Hydrate: Equatable, Sendable {
        package var enabled = false
        /// nil: unlimited.
        package var rateBytesPerSecond: UInt64?
        package var delay = Duration.zero
    }

    /// Access traces.
    package struct Trace: Equatable, Sendable {
        package var replay = false
    }

    package struct Fetch: Equatable, Sendable {
        /// Requests in flight at once, over all images.
        package var parallel = 0
        package var rangeMaxBytes: UInt64 = 0
        package var deadline = Duration.zero
    }

    /// How fast chunks are fetched, over all images. nil: unlimited. `chunkctl limits` changes them until chunkd restarts.
    package struct Limits: Equatable, Sendable {
        /// A chunk, which has 4 MiB at most, is to come before its reader's deadline.
        package static let leastBytesPerSecond: UInt64 = 1 << 20
        package var downloadBytesPerSecond: UInt64?
        package var registryBytesPerSecond: UInt64?
        package var prefetchBytesPerSecond: UInt64?
    }

    /// How registries are reached; empty: directly. What is not configured comes from HTTP_PROXY, HTTPS_PROXY, NO_PROXY.
    package struct Proxy: Equatable, Sendable {
        /// `http://[USER:PASSWORD@]HOST:PORT`.
        package var http: String
        package var https: String
        /// Hosts, domains and address ranges reached directly, separated by commas.
        package var noProxy: String

        package init(http: String = "", https: String = "", noProxy: String = "") {
            self.http = http
            self.https = https
            self.noProxy = noProxy
        }
    }

    /// Bytes of resident chunks; 0 means no quota.
    package struct Quota: Equatable, Sendable {
        package var highWaterBytes: UInt64 = 0
        package var lowWaterBytes: UInt64 = 0
    }

    /// Other nodes: off unless there is a certificate.
    package struct Cluster: Equatable, Sendable {
        package var listen = ListenAddress(host: "0.0.0.0", port: 4710)
        /// `ip:port` others reach this node at; empty: the address of the interface the default route uses.
        package var advertise = ""
        /// PEM files; empty certificate: no cluster.
        package var certFile = ""
        package var keyFile = ""
        package var caFile = ""
        package var denyFile = ""
        package var trustDomain = ""
        package var zone = ""
        /// `host[:port]`, with commas.
        package var seeds = ""
        package var seedsFile = ""
        /// Patterns of repositories whose images are shared with every node, with those that could pull them, with none.
        package var publicImages = ""
        package var keyedImages = ""
        package var unsharedImages = ""
        /// nil: unlimited.
        package var uploadBytesPerSecond: UInt64?
        package var uploadBytesPerSecondPerPeer: UInt64?

        package var isEnabled: Bool { !certFile.isEmpty }
    }

    /// What chunkgate is started with; it reads no file itself. `chunkctl gate-options` prints these as its options.
    package struct Gate: Equatable, Sendable {
        /// The user chunkd runs as: may connect to the gate.
        package var agentUser = ""
        package var shards = 0
        package var deadline = Duration.zero
        package var agentAwayDeadline = Duration.zero
        /// Kernel read-ahead of a mount.
        package var readAheadBytes: UInt64 = 0
    }

    /// Serving containerd's snapshots.
    package struct Snapshotter: Equatable, Sendable {
        package var enabled = false
        /// Empty: `snapshotter.sock` in the run directory.
        package var socket = ""
    }

    /// The mirror of registries for ordinary images.
    package struct Mirror: Equatable, Sendable {
        package var enabled = false
        /// A loopback address.
        package var listen = ListenAddress(host: "127.0.0.1", port: 4712)
        /// `HOST[:PORT]`, as references name them; in order, each once.
        package var registries: [String] = []
        package var quotaBytes: UInt64 = 0
        /// Whether who shows no credentials may use this node's.
        package var usesNodeCredentials = false
    }

    package var stateDirectory = ""
    package var runDirectory = ""
    package var gateSocket = ""
    package var controlSocket = ""
    /// nil: no metrics and no probes are served.
    package var metricsAddress: ListenAddress?
    package var logLevel = LogLevel.info
    package var logFormat = LogFormat.auto
    /// A docker `config.json`; empty: none.
    package var dockerConfig = ""
    /// Per-registry files, `DIR/HOST[:PORT]/{auth.json,ca.crt,…}`; empty: none.
    package var registriesDirectory = ""
    package var proxy = Proxy()
    package var hydrate = Hydrate()
    package var trace = Trace()
    package var readAheadWindowMaxBytes: UInt64 = 0
    package var fetch = Fetch()
    package var limits = Limits()
    package var quota = Quota()
    package var gate = Gate()
    package var cluster = Cluster()
    package var snapshotter = Snapshotter()
    package var mirror = Mirror()
    /// Sorted by host; a host occurs once.
    package var registries: [RegistrySettings] = []

    /// Empty: the table fills in everything.
    init() {}

    /// What holds when nothing is configured.
    package static let defaults: AgentSettings = {
        var settings = AgentSettings()
        for setting in SettingsTable.all {
            let problem = setting.assign(setting.defaultText, &settings)
            precondition(problem == nil, "the default of \(setting.key) is not \(problem ?? "")")
        }
        settings.derive()
        return settings
    }()

    /// The settings for one registry host; those of a host that is not configured are the defaults.
    package func registry(_ host: String) -> RegistrySettings {
        registries.first { $0.host == host } ?? RegistrySettings(host: host)
    }

    /// Fills in what follows from other settings.
    mutating func derive() {
        if gateSocket.isEmpty { gateSocket = runDirectory + "/gate.sock" }
        if controlSocket.isEmpty { controlSocket = runDirectory + "/control.sock" }
        if snapshotter.socket.isEmpty { snapshotter.socket = runDirectory + "/snapshotter.sock" }
        if quota.lowWaterBytes == 0 { quota.lowWaterBytes = quota.highWaterBytes / 10 * 9 }
        // Room for the verdict on the way back, so that readers learn why and not only that time is up.
        if fetch.deadline == .zero { fetch.deadline = gate.deadline / 6 * 5 }
    }

    /// The options chunkgate is started with to hold to these settings: `chunkctl gate-options`.
    package var gateArguments: [String] {
        func milliseconds(_ time: Duration) -> String {
            "\(time.components.seconds * 1000 + time.components.attoseconds / 1_000_000_000_000_000)ms"
        }
        return [
            "--state-dir", stateDirectory, "--run-dir", runDirectory, "--agent-user", gate.agentUser,
            "--shards", String(gate.shards), "--deadline", milliseconds(gate.deadline),
            "--agent-away-deadline", milliseconds(gate.agentAwayDeadline),
            "--read-ahead", "\(gate.readAheadBytes >> 10)KiB",
        ]
    }
}

/// How one registry is reached and logged in to: an entry of `registries` in the configuration file.
package struct RegistrySettings: Equatable, Sendable {
    /// `host` or `host:port`, as references name it.
    package var host: String
    /// Hosts asked before this one, in order; each may have an entry of its own.
    package var mirrors: [String] = []
    /// HTTP without TLS.
    package var plainHTTP = false
    /// TLS without checking the certificate.
    package var insecure = false
    /// PEM files; empty when not configured.
    package var caFile = ""
    package var clientCert = ""
    package var clientKey = ""
    /// Hosts of token servers that may be sent this registry's login, beside its own host.
    package var tokenServers: [String] = []
    package var username = ""
    /// A file with the password; a final newline is not part of it.
    package var passwordFile = ""

    package init(host: String) { self.host = host }
}
