import ChunkModel
import ControlAPI
import FoundationEssentials
import Glibc
import HTTPTransfer
import LinuxSystem
import Settings

/// What goes into a support bundle, file by file.
struct SupportSources: Sendable {
    let settings: AgentSettings
    let journalLines: Int

    /// Processes of one name that are looked at; a keeper and its worker are two.
    static let maxProcesses = 8
    /// Threads of a process of which the kernel's stack is taken.
    static let maxThreads = 128

    func collect(into collector: SupportCollector) async -> Bool {
        let isReached = await agent(collector)
        await collector.add(asynchronous: "doctor.json") { [settings] in
            let checks = try await OwnThread.run { NodeChecks.all(settings: settings) }
            let all = checks + (await DoctorCommand.agentChecks(ControlClient(socketPath: settings.controlSocket)))
            return try ControlJSON.encode(DoctorReply(checks: all), pretty: true)
        }
        await metrics(collector)
        await collector.add("configuration.json") { [settings] in
            .init(bytes: try ControlJSON.encode(ShownSettings(settings), pretty: true))
        }
        for name in ["chunkd", "chunkgate"] { await processes(name, collector) }
        await system(collector)
        await disk(collector)
        await collector.add("journal.txt", time: .seconds(30)) { [journalLines] in
            guard journalLines > 0 else { throw ToolError("skipped", "left out: --journal-lines 0") }
            return try SupportCapture.program(
                "journalctl",
                [
                    "-u", "chunkd", "-u", "chunkgate", "-n", "\(journalLines)", "--no-pager", "--utc", "-o",
                    "short-iso-precise",
                ], keeping: .tail)
        }
        return isReached
    }

    // MARK: - chunkd's own words

    /// - Returns: whether chunkd answers.
    private func agent(_ collector: SupportCollector) async -> Bool {
        let client = ControlClient(socketPath: settings.controlSocket)
        func add(_ name: String, _ ask: @escaping @Sendable (ControlClient) async throws -> some Encodable & Sendable)
            async
        {
            await collector.add(asynchronous: "agent/\(name).json") {
                try ControlJSON.encode(try await ask(client), pretty: true)
            }
        }
        await add("version") { try await $0.version() }
        let isReached = collector.items.last?.error == nil
        await add("stat") { try await $0.stat() }
        await add("images") { try await $0.images() }
        await add("peers") { try await $0.peers() }
        await add("limits") { try await $0.limits() }
        await add("faults") { try await $0.faults() }
        await add("events") { try await $0.events(EventsRequest()) }
        await add("spans") { try await $0.spans(SpansRequest()) }
        return isReached
    }

    private func metrics(_ collector: SupportCollector) async {
        await collector.add(asynchronous: "metrics.txt") { [settings] in
            guard let address = settings.metricsAddress else { throw ToolError("off", "metrics.address is empty") }
            var reached = address
            if reached.host == "0.0.0.0" { reached.host = "127.0.0.1" }
            if reached.host == "::" { reached.host = "::1" }
            let client = TransferClient()
            let result = try await client.perform(
                TransferRequest(.get, url: "http://\(reached)/metrics"), control: client.makeControl(),
                sink: .collecting(limit: SupportCollector.maxBytes))
            await client.shutDown()
            guard result.head.status == 200 else {
                throw ToolError("failed", "\(reached) answered with \(result.head.status)")
            }
            return result.body
        }
    }

    // MARK: - Processes

    private func processes(_ name: String, _ collector: SupportCollector) async {
        let pids = (try? await OwnThread.run { try Self.pids(named: name) }) ?? []
        if pids.isEmpty {
            await collector.add("processes/\(name)") { throw ToolError("notFound", "no process \(name) is seen here") }
        }
        for pid in pids.prefix(Self.maxProcesses) {
            for file in ["status", "limits", "wchan", "io", "cgroup"] {
                await collector.add("processes/\(name)-\(pid)/\(file)") {
                    try SupportCapture.file("/proc/\(pid)/\(file)")
                }
            }
            await collector.add("processes/\(name)-\(pid)/cmdline") {
                .init(bytes: try SupportCapture.file("/proc/\(pid)/cmdline").bytes.map { $0 == 0 ? 32 : $0 })
            }
            let state = settings.stateDirectory
            await collector.add("processes/\(name)-\(pid)/mountinfo") {
                try Self.mounts(try SupportCapture.file("/proc/\(pid)/mountinfo"), beneath: state)
            }
            await collector.add("processes/\(name)-\(pid)/threads") {
                let threads = try Directory.names("/proc/\(pid)/task").prefix(Self.maxThreads)
                return SupportCapture.files(
                    threads.flatMap { thread in
                        ["comm", "wchan", "stack"].map { "/proc/\(pid)/task/\(thread)/\($0)" }
                    }, limit: 8 << 10)
            }
        }
    }

    static func pids(named name: String) throws -> [Int] {
        try Directory.names("/proc").compactMap { Int($0) }.filter { pid in
            // One that has ended meanwhile is none of them.
            (try? readProcFile("/proc/\(pid)/comm", limit: 64)) == Array((name + "\n").utf8)
        }.sorted()
    }

    /// Of mountinfo the lines that are about us: EROFS, what lies in our directories, overlays on it.
    static func mounts(_ piece: SupportCollector.Piece, beneath state: String) throws -> SupportCollector.Piece {
        let lines = String(decoding: piece.bytes, as: UTF8.self).split(separator: "\n").filter { line in
            guard let entry = MountEntry(line: line) else { return false }
            return entry.type == "erofs" || line.contains(state)
        }
        return .init(bytes: Array(lines.map { $0 + "\n" }.joined().utf8), isCut: piece.isCut)
    }

    // MARK: - The node

    private func system(_ collector: SupportCollector) async {
        await collector.add("system/kernel") {
            SupportCapture.files([
                "/proc/version", "/etc/os-release", "/proc/loadavg", "/proc/uptime", "/proc/meminfo",
                "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory", "/proc/sys/kernel/tainted",
                "/proc/sys/kernel/pid_max", "/proc/sys/kernel/hung_task_timeout_secs", "/proc/sys/fs/file-max",
                "/proc/sys/fs/file-nr", "/proc/sys/fs/nr_open", "/proc/sys/fs/fanotify/max_queued_events",
                "/proc/sys/fs/fanotify/max_user_groups", "/proc/sys/fs/fanotify/max_user_marks",
                "/proc/sys/fs/fanotify/watchdog_timeout", "/proc/sys/fs/mount-max", "/proc/sys/vm/dirty_ratio",
                "/proc/sys/vm/dirty_background_ratio", "/proc/sys/vm/overcommit_memory", "/proc/sys/net/core/somaxconn",
            ])
        }
        await collector.add("system/kernel-config") {
            var name = utsname()
            uname(&name)
            let release = withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            let path = "/boot/config-" + release
            let whole =
                Directory.exists(path)
                ? try SupportCapture.file(path) : try SupportCapture.program("gzip", ["-dc", "/proc/config.gz"])
            let wanted = ["EROFS", "FANOTIFY", "OVERLAY_FS", "CONFIG_PSI", "FS_VERITY", "CGROUP", "IKCONFIG"]
            let lines = String(decoding: whole.bytes, as: UTF8.self).split(separator: "\n").filter { line in
                wanted.contains { line.contains($0) }
            }
            return .init(bytes: Array(lines.map { $0 + "\n" }.joined().utf8), error: whole.error)
        }
    }

    private func disk(_ collector: SupportCollector) async {
        let state = settings.stateDirectory
        await collector.add("disk/space") { try SupportCapture.program("df", ["-PT", "-B1", state]) }
        await collector.add("disk/inodes") { try SupportCapture.program("df", ["-Pi", state]) }
        await collector.add("disk/usage") {
            try SupportCapture.program("du", ["-x", "-B1", "--max-depth=3", state], limit: 1 << 20)
        }
    }
}

/// The settings in force, without secrets: passwords are in files that are not read, a login in a proxy's URL is taken
/// out, users' names too.
struct ShownSettings: Encodable {
    private let values: [(key: String, value: String)]

    init(_ settings: AgentSettings) {
        var values: [(key: String, value: String)] = []
        Self.walk(settings, "", into: &values)
        self.values = values
    }

    /// Fields of values, by their names; a setting that is added shows up by itself.
    private static func walk(_ value: Any, _ path: String, into out: inout [(key: String, value: String)]) {
        let mirror = Mirror(reflecting: value)
        switch mirror.displayStyle {
        case .struct where !(value is Duration) && !(value is AgentSettings.ListenAddress):
            for child in mirror.children {
                walk(child.value, (path.isEmpty ? "" : path + ".") + (child.label ?? "?"), into: &out)
            }
        case .collection:
            for (number, child) in mirror.children.enumerated() { walk(child.value, "\(path)[\(number)]", into: &out) }
        case .optional:
            guard let child = mirror.children.first else { return out.append((path, "none")) }
            walk(child.value, path, into: &out)
        default:
            let isName = path.hasSuffix(".username")
            let text = "\(value)"
            out.append((path, isName && !text.isEmpty ? Redaction.mark : Redaction.text(text)))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(Dictionary(values.map { ($0.key, $0.value) }, uniquingKeysWith: { first, _ in first }))
    }
}
