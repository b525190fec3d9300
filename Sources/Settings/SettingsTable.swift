/// Every setting there is. File keys, environment names, flags, defaults, checks and the documentation come from here.
package enum SettingsTable {
    /// In the order of the documentation.
    package static let all: [Setting] = [
        .path("stateDir", \.stateDirectory, "/var/lib/chunkd", "Cache and catalogue. ext4, xfs or btrfs."),
        .path("runDir", \.runDirectory, "/run/chunkd", "Directory of the sockets."),
        .path("gateSocket", \.gateSocket, "", "Socket of chunkgate; empty: `gate.sock` in `runDir`."),
        .path("controlSocket", \.controlSocket, "", "Socket of the control API; empty: `control.sock` in `runDir`."),
        .address(
            "metrics.address", \.metricsAddress, "127.0.0.1:4711", "Where /metrics, /livez and /readyz are served."),
        .choice("log.level", \.logLevel, .info, "Least level that is logged."),
        .choice("log.format", \.logFormat, .auto, "`auto`: text on a terminal, JSON lines otherwise."),
        .path(
            "dockerConfig", \.dockerConfig, "",
            "A docker `config.json` with logins and credential helpers; empty: none for chunkd, the user's own for chunkctl."
        ),
        .path(
            "registriesDir", \.registriesDirectory, "/etc/chunkd/registries",
            "A directory for each registry, `HOST[:PORT]`, with `auth.json`, `username`, `password`, `ca.crt`, `client.crt`, `client.key`; may be missing."
        ),
        .proxy("proxy.http", \.proxy.http, "Proxy for plain HTTP; else the variable HTTP_PROXY."),
        .proxy("proxy.https", \.proxy.https, "Proxy for HTTPS; else the variable HTTPS_PROXY."),
        .text("proxy.noProxy", \.proxy.noProxy, "Hosts reached directly, with commas; else the variable NO_PROXY."),
        .number("fetch.parallel", \.fetch.parallel, 16, 1...256, "Registry requests in flight at once."),
        .size(
            "fetch.rangeMax", \.fetch.rangeMaxBytes, "32MiB", mebibytes(4)...mebibytes(64),
            "Longest range of one registry request; adjacent misses are joined up to this."),
        .duration(
            "fetch.deadline", \.fetch.deadline, "0", .zero...(.seconds(3600)),
            "A chunk not had by then fails its readers; below `gate.deadline`. 0: five sixths of that."),
        .rate(
            "limits.download", \.limits.downloadBytesPerSecond, "unlimited",
            "From the registry and peers together at most; at least 1MiB/s.",
            atLeast: AgentSettings.Limits.leastBytesPerSecond),
        .rate(
            "limits.registry", \.limits.registryBytesPerSecond, "unlimited",
            "From registries at most; at least 1MiB/s.", atLeast: AgentSettings.Limits.leastBytesPerSecond),
        .rate(
            "limits.prefetch", \.limits.prefetchBytesPerSecond, "unlimited",
            "What nobody waits for (access traces, prefetch, hydration, repair), from wherever, at most."),
        .size(
            "readAhead.windowMax", \.readAheadWindowMaxBytes, "128MiB", 0...mebibytes(1024),
            "How far a sequential reader is fetched ahead at most; 0 turns reading ahead off."),
        .bool("hydrate.enabled", \.hydrate.enabled, true, "Fetch the rest of mounted images in the background."),
        .rate("hydrate.rate", \.hydrate.rateBytesPerSecond, "100MiB/s", "At most this fast, over all images."),
        .duration(
            "hydrate.delay", \.hydrate.delay, "10s", .zero...(.seconds(86400)),
            "Not before an image has been mounted this long."),
        .bool(
            "trace.replay", \.trace.replay, true,
            "Fetch what an image's access trace names, in its order, once the image is mounted."),
        .size(
            "quota.highWater", \.quota.highWaterBytes, "0", 0...(1 << 50),
            "Resident bytes at which unmounted images are evicted, least recently used first; 0: no quota."),
        .size(
            "quota.lowWater", \.quota.lowWaterBytes, "0", 0...(1 << 50),
            "Resident bytes at which eviction stops; 0: nine tenths of `quota.highWater`."),
        .path(
            "cluster.certFile", \.cluster.certFile, "",
            "PEM certificate of this node, `spiffe://TRUST-DOMAIN/chunkd/node/NAME`; empty: no peers."),
        .path("cluster.keyFile", \.cluster.keyFile, "", "PEM key of `cluster.certFile`."),
        .path("cluster.caFile", \.cluster.caFile, "", "PEM certificates of the authorities nodes are signed by."),
        .path("cluster.denyFile", \.cluster.denyFile, "", "Names of nodes to have nothing to do with, one a line."),
        .trustDomain("cluster.trustDomain", \.cluster.trustDomain, "chunkd.local", "The trust domain in certificates."),
        .listen("cluster.listen", \.cluster.listen, "0.0.0.0:4710", "Where peers are served."),
        .text(
            "cluster.advertise", \.cluster.advertise,
            "`ip:port` peers reach this node at; empty: the address the default route goes out from."),
        .text("cluster.zone", \.cluster.zone, "Zone of this node: peers of the same one are asked first."),
        .text("cluster.seeds", \.cluster.seeds, "Nodes or DNS names to join through, `host[:port]`, with commas."),
        .path("cluster.seedsFile", \.cluster.seedsFile, "", "The same, one a line, read again every ten seconds."),
        .text(
            "cluster.public", \.cluster.publicImages,
            "Repositories, with `*` at the end, with commas, whose images any node of the cluster may have. Without a list: those whose registry is given no credentials."
        ),
        .text(
            "cluster.keyed", \.cluster.keyedImages,
            "Repositories whose images only nodes may have that could pull them. Without a list: those whose registry is given credentials."
        ),
        .text("cluster.unshared", \.cluster.unsharedImages, "Repositories whose images no peer is asked for or given."),
        .rate("cluster.uploadRate", \.cluster.uploadBytesPerSecond, "unlimited", "To all peers together at most."),
        .rate(
            "cluster.uploadRatePerPeer", \.cluster.uploadBytesPerSecondPerPeer, "unlimited", "To one peer at most."),
        .bool(
            "snapshotter.enabled", \.snapshotter.enabled, false, "Serve containerd's snapshots (proxy plugin `chunkd`)."
        ),
        .path(
            "snapshotter.socket", \.snapshotter.socket, "",
            "Socket of the snapshots service; empty: `snapshotter.sock` in `runDir`."),
        .bool("mirror.enabled", \.mirror.enabled, false, "Serve ordinary images to containerd, from peers first."),
        .loopback("mirror.listen", \.mirror.listen, "127.0.0.1:4712", "Where: a loopback address."),
        .registries(
            "mirror.registries", \.mirror.registries,
            "Registries it stands for, `HOST[:PORT]`, with commas: no other is asked."),
        .size(
            "mirror.quota", \.mirror.quotaBytes, "10GiB", mebibytes(64)...(1 << 50),
            "Whole blobs kept on disk at most; the longest unused are removed."),
        .bool(
            "mirror.useNodeCredentials", \.mirror.usesNodeCredentials, false,
            "Whether a request without credentials uses chunkd's own: any process on the node may make one."),
        .name("gate.agentUser", \.gate.agentUser, "chunkd", "The user chunkd runs as.").inEnvironment(as: "agentUser"),
        .number("gate.shards", \.gate.shards, 4, 1...32, "fanotify groups chunkgate opens.")
            .inEnvironment(as: "shards"),
        .duration(
            "gate.deadline", \.gate.deadline, "30s", .seconds(1)...(.seconds(3600)),
            "A blocked reader gets EIO after this."
        ).inEnvironment(as: "deadline"),
        .duration(
            "gate.agentAwayDeadline", \.gate.agentAwayDeadline, "120s", .seconds(1)...(.seconds(3600)),
            "The same while chunkd is away."
        ).inEnvironment(as: "agentAwayDeadline"),
        .size(
            "gate.readAhead", \.gate.readAheadBytes, "512KiB", (4 << 10)...(16 << 20), "Kernel read-ahead of a mount."
        ).inEnvironment(as: "readAhead"),
    ]

    /// Keys of one entry of `registries`, in the order of the documentation: key, form, meaning.
    package static let registryKeys: [(key: String, form: String, doc: String)] = [
        ("mirrors", "list of hosts", "Asked before the host itself, in order; each may have its own entry."),
        ("plainHTTP", "true, false", "HTTP without TLS."),
        ("insecure", "true, false", "TLS without checking the certificate."),
        ("caFile", "path", "PEM certificates trusted for this host, instead of the system's."),
        ("clientCert", "path", "PEM client certificate; needs `clientKey`."),
        ("clientKey", "path", "PEM key of `clientCert`."),
        ("tokenServers", "list of hosts", "May be sent this registry's login, beside its own host."),
        ("username", "text", "Login; needs `passwordFile`."),
        ("passwordFile", "path", "File with the password; a final newline is not part of it."),
    ]

    /// The configuration file read when neither `--config` nor `CHUNKD_CONFIG` names one. It may be missing.
    package static let defaultFile = "/etc/chunkd/config.yaml"
    package static let fileFlag = "--config"
    package static let fileEnvironmentName = "CHUNKD_CONFIG"

    /// The help text of all flags, two lines a flag.
    package static var flagHelp: String {
        let file = "  \(fileFlag) <path>\n      Configuration file (default: \(defaultFile))"
        let rows = all.map { setting in
            let fallback = setting.defaultText.isEmpty ? "" : " (default: \(setting.defaultText))"
            return "  \(setting.flag) <\(setting.form)>\n      \(setting.doc)\(fallback)"
        }
        return ([file] + rows).joined(separator: "\n")
    }

    /// The table of docs/operations.md; a test compares them.
    package static var markdown: String {
        let rows = all.map { setting in
            let fallback = setting.defaultText.isEmpty ? "" : "`\(setting.defaultText)`"
            return
                "| `\(setting.key)` | \(setting.form) | \(fallback) | `\(setting.environmentName)` | `\(setting.flag)` "
                + "| \(setting.doc) |"
        }
        let head = ["| key | form | default | environment | flag | meaning |", "|---|---|---|---|---|---|"]
        return (head + rows).joined(separator: "\n")
    }

    /// The table of registry keys in docs/operations.md.
    package static var registryMarkdown: String {
        let rows = registryKeys.map { "| `\($0.key)` | \($0.form) | \($0.doc) |" }
        return (["| key | form | meaning |", "|---|---|---|"] + rows).joined(separator: "\n")
    }

    private static func mebibytes(_ count: UInt64) -> UInt64 { count << 20 }
}
