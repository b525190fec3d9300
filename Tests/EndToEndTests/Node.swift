import ControlAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// One node on this machine: chunkgate, chunkd as its own user, and chunkctl against them, with state, sockets and
/// ports of its own. Everything is ended by pid and unmounted when the node goes, also after a failure.
final class Node {
    /// What a node is made with.
    struct Options {
        /// Where the state directory is made: ext4, xfs or btrfs.
        var stateParent = "/var/tmp"
        /// Lines of the configuration file beside those the fixture writes.
        var settings: [String] = []
        var gateArguments: [String] = []
        /// Fetch the rest in the background. Off, so that counters say what a test did.
        var hydrates = false
        /// Look for access traces. Off for the same reason.
        var replaysTraces = false
    }

    let scratch: ScratchDirectory
    let stateDirectory: String
    let runDirectory: String
    let configFile: String
    let metricsPort: UInt16
    private let state: ScratchDirectory
    private let options: Options
    private var gateProcess: ProcessFixture?
    private var agentProcess: ProcessFixture?
    private var targets: [String] = []
    private var mountCount = 0

    /// Makes a node that knows these registries, and starts it.
    init(_ registries: [RegistryFixture], _ options: Options = Options()) throws {
        self.options = options
        scratch = try ScratchDirectory("node")
        state = try ScratchDirectory("state", in: options.stateParent)
        stateDirectory = state.path
        runDirectory = scratch.appending("run")
        configFile = scratch.appending("config.yaml")
        metricsPort = try Ports.free()
        try writeConfiguration(registries)
        try startGate()
        try startAgent()
    }

    deinit {
        for target in targets { try? Mount.unmount(target, lazily: true) }
        agentProcess?.stop()
        endGate()
    }

    // MARK: Processes

    var gatePid: pid_t { gateProcess?.pid ?? 0 }
    var agentPid: pid_t { agentProcess?.pid ?? 0 }
    var gateLog: String { gateProcess?.log ?? "" }
    var agentLog: String { agentProcess?.log ?? "" }

    /// The gate's working process: the only child of the keeper.
    var gateChildPid: pid_t? { ProcessStatus(gatePid)?.children.first }

    func startGate() throws {
        let arguments = ["--state-dir", stateDirectory, "--run-dir", runDirectory, "--agent-user", "chunkd"]
        let process = try ProcessFixture(
            [Programs.path("chunkgate")] + arguments + options.gateArguments, logFile: scratch.appending("gate.log"))
        gateProcess = process
        let socket = runDirectory + "/gate.sock"
        try #require(
            Wait.until(.seconds(20)) { access(socket, F_OK) == 0 || process.poll() != nil } && process.poll() == nil,
            "chunkgate did not start: \(process.log.suffix(3000))")
    }

    func startAgent() throws {
        // As root: it becomes its own user by itself, which ConfinementTests look at.
        let process = try ProcessFixture(
            [Programs.path("chunkd"), "--config", configFile], logFile: scratch.appending("agent.log"))
        agentProcess = process
        try #require(
            Wait.until(.seconds(20)) { (try? stat().gateConnected) == true || process.poll() != nil }
                && process.poll() == nil,
            "chunkd did not start: \(process.log.suffix(3000))")
    }

    /// SIGKILL, and gone.
    func killAgent() throws {
        agentProcess?.signal(SIGKILL)
        try #require(agentProcess?.wait(atMost: .seconds(5)) != nil, "chunkd outlives SIGKILL")
        agentProcess = nil
    }

    /// SIGTERM; its exit status.
    @discardableResult
    func stopAgent() throws -> Int32 {
        agentProcess?.signal(SIGTERM)
        let status = try #require(agentProcess?.wait(atMost: .seconds(20)), "chunkd does not end")
        agentProcess = nil
        return status
    }

    /// Stops or goes on with chunkd, as a debugger would.
    func signalAgent(_ number: Int32) { agentProcess?.signal(number) }

    private func endGate() {
        guard let process = gateProcess else { return }
        process.signal(SIGTERM)
        if process.wait(atMost: .seconds(3)) == nil {
            // It stays while an image is in use; whoever still reads is of a failed test.
            ScratchDirectory.unmountAll(beneath: stateDirectory)
            if process.wait(atMost: .seconds(3)) == nil {
                let child = gateChildPid
                process.signal(SIGKILL)
                if let child { kill(child, SIGKILL) }
                _ = process.wait(atMost: .seconds(5))
            }
        }
        ScratchDirectory.unmountAll(beneath: stateDirectory)
        gateProcess = nil
    }

    // MARK: Commands

    /// Runs chunkctl with the node's configuration.
    func control(_ arguments: [String], limit: Duration = .seconds(120)) throws -> Command.Output {
        var command = Command(Programs.path("chunkctl"), arguments + ["--config", configFile])
        command.limit = limit
        return try command.run()
    }

    /// Runs chunkctl with a command of its own after `--`.
    func control(_ arguments: [String], running command: [String]) throws -> Command.Output {
        try Command(Programs.path("chunkctl"), arguments + ["--config", configFile, "--"] + command).run()
    }

    /// Runs chunkctl with `-o json`, requires success, decodes what it printed.
    func control<Reply: Decodable>(_ reply: Reply.Type, _ arguments: String...) throws -> Reply {
        let output = try control(arguments + ["-o", "json"])
        try #require(
            output.status == 0, "chunkctl \(arguments): status \(output.status): \(output.errors) \(output.text)")
        return try JSONDecoder().decode(reply, from: Data(output.text.utf8))
    }

    func stat() throws -> StatReply {
        // Not `control(_:)`: status 1 says that something is wrong, and the counters are wanted then.
        let output = try control(["stat", "-o", "json"])
        guard !output.text.isEmpty else { throw FixtureError("chunkctl stat: \(output.errors)") }
        return try JSONDecoder().decode(StatReply.self, from: Data(output.text.utf8))
    }

    /// Builds an image from a directory and pushes it.
    func build(_ tree: String, to reference: String, _ arguments: [String] = []) throws {
        let output = try control(["image", "build", tree, reference] + arguments)
        try #require(output.status == 0, "chunkctl image build: \(output.errors) \(output.text)")
    }

    /// Mounts an image on a new directory; its path.
    func mount(_ reference: String) throws -> String {
        mountCount += 1
        let target = try scratch.makeDirectory("mount-\(mountCount)")
        let output = try control(["mount", reference, target])
        try #require(output.status == 0, "chunkctl mount: \(output.errors) \(agentLog.suffix(3000))")
        targets.append(target)
        return target
    }

    func unmount(_ target: String) throws {
        let output = try control(["umount", target])
        try #require(output.status == 0, "chunkctl umount: \(output.errors)")
        targets.removeAll { $0 == target }
    }

    // MARK: Expectations

    /// What must hold at the end of every test: no self-events, no gap, and nothing of ours in the way of a reader.
    func expectHealthy(location: SourceLocation = #_sourceLocation) throws {
        let stat = try stat()
        #expect(stat.integrity.selfEvents == 0, "chunkgate raised events itself", sourceLocation: location)
        #expect(!stat.integrity.integrityGap, sourceLocation: location)
        #expect(stat.reads.blockedReaders == 0, sourceLocation: location)
    }

    /// Chunks fetched from registries since chunkd started.
    func registryChunks() throws -> UInt64 {
        try stat().sources.filter { $0.source.hasPrefix("registry") }.reduce(0) { $0 + $1.chunks }
    }

    /// Chunks recorded as resident in the maps on disk, over all blobs (docs/formats/map.md): what a restart finds.
    func durableChunks() throws -> Int {
        let blobs = BytePath(stateDirectory + "/gate/blobs")
        return try blobs.entries().reduce(0) { sum, name in
            let bytes = try blobs.appending(name).appending("map").open(O_RDONLY).contents(limit: 1 << 20)
            let bankSize = bytes.count / 2
            // A bank's header of 104 bytes holds at 12 the length of header and bits.
            let counts = [0, bankSize].map { bank -> Int in
                guard bankSize >= 4096 else { return 0 }
                let length = (0..<4).reduce(0) { $0 | Int(bytes[bank + 12 + $1]) << (8 * $1) }
                return bytes[bank..<bank + bankSize].prefix(length).dropFirst(104).reduce(0) { $0 + $1.nonzeroBitCount }
            }
            // Chunks are only added here, so the fuller bank is the newer.
            return sum + (counts.max() ?? 0)
        }
    }

    private func writeConfiguration(_ registries: [RegistryFixture]) throws {
        var lines = [
            "stateDir: \(stateDirectory)", "runDir: \(runDirectory)",
            "metrics: {address: \"127.0.0.1:\(metricsPort)\"}",
            "hydrate: {enabled: \(options.hydrates), delay: 0s}", "trace: {replay: \(options.replaysTraces)}",
        ]
        lines += options.settings
        lines.append("registries:")
        for registry in registries {
            lines.append("  \"\(registry.host)\":")
            if let caFile = registry.caFile {
                lines.append("    caFile: \(try publish(caFile, as: "ca-\(registry.port).crt"))")
            } else {
                lines.append("    plainHTTP: true")
            }
            let password = try writeFile("password-\(registry.port)", registry.password)
            lines += ["    username: \(registry.username)", "    passwordFile: \(password)"]
        }
        try writeFile("config.yaml", lines.joined(separator: "\n") + "\n")
    }

    /// A copy that chunkd's user may read.
    private func publish(_ file: String, as name: String) throws -> String {
        try writeFile(name, TemporaryDirectory.text(of: file))
    }

    @discardableResult
    private func writeFile(_ name: String, _ text: String) throws -> String {
        let path = scratch.appending(name)
        let file = try File(path: path, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        try Array(text.utf8).withUnsafeBytes { try file.writeAll($0, at: 0) }
        return path
    }
}
