import ChunkModel
import Glibc
import LinuxSystem
import PreContent

/// chunkgate's two programs in one binary: the keeper (parent) and the working process (child).
package enum GateProgram {
    private enum ExitStatus {
        static let failed: Int32 = 1
        static let usage: Int32 = 2
    }

    /// Runs to the end and returns the exit status.
    package static func main(_ arguments: [String]) -> Int32 {
        switch GateOptions.parse(Array(arguments.dropFirst()), environment: environment()) {
        case .help:
            print(GateOptions.help)
            return 0
        case .version:
            print("chunkgate \(chunkdVersion)")
            return 0
        case .usage(let message):
            complain("\(message). See chunkgate --help")
            return ExitStatus.usage
        case .run(let options):
            do {
                if getenv(Keeper.childVariable) != nil { return try work(options) }
                return try keep(Array(arguments.dropFirst()))
            } catch {
                complain("\(error)")
                return ExitStatus.failed
            }
        }
    }

    private static func complain(_ message: String) {
        let line = "chunkgate: \(message)\n"
        _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    }

    private static func environment() -> [String: String] {
        var out: [String: String] = [:]
        var at = environ
        while let entry = at.pointee {
            let pair = String(cString: entry).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if pair.count == 2 { out[String(pair[0])] = String(pair[1]) }
            at += 1
        }
        return out
    }

    // MARK: Keeper

    private static func keep(_ arguments: [String]) throws(SystemError) -> Int32 {
        guard geteuid() == 0 else {
            throw SystemError(EPERM, "start", "chunkgate needs root: it marks files and mounts")
        }
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = try retrying("readlink", "/proc/self/exe") { readlink("/proc/self/exe", &buffer, buffer.count) }
        let program = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        raiseDescriptorLimit()
        var keeper = Keeper(program: program, arguments: arguments)
        return try keeper.run()
    }

    /// Every blocked reader holds a descriptor; EMFILE would deny it (kernel-facts, law 11).
    private static func raiseDescriptorLimit() {
        let hard = descriptorLimit().rlim_max
        var raised = rlimit(rlim_cur: max(hard, 65_536), rlim_max: max(hard, 65_536))
        if setrlimit(descriptors, &raised) == 0 { return }
        // Without CAP_SYS_RESOURCE the hard limit is the most there is.
        raised = rlimit(rlim_cur: hard, rlim_max: hard)
        setrlimit(descriptors, &raised)
    }

    private static let descriptors = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)

    private static func descriptorLimit() -> rlimit {
        var limit = rlimit()
        getrlimit(descriptors, &limit)
        return limit
    }

    // MARK: Working process

    /// The journal's descriptor number in every incarnation: numbers below are never an event's, so what a
    /// predecessor left can be told from what this process opened.
    private static let journalDescriptor: Int32 = 4

    private static func work(_ options: GateOptions) throws -> Int32 {
        // Nothing may be opened before the journal is at its number.
        let keeper = KeeperClient(socket: PacketSocket(owning: File(owning: Keeper.childDescriptor)))
        let (journal, fresh) = try openJournal(keeper)
        let pending = try journal.pending()
        // Reserve what was read and not answered, before this process opens anything that could take the number.
        for record in pending {
            try retrying("dup2") { dup2(Self.journalDescriptor, record.descriptor) }
        }
        let signals = try Signals(blocking: [SIGTERM, SIGINT, SIGHUP])
        signal(SIGPIPE, SIG_IGN)
        let kept = try keeper.all()
        let log = try GateLog(options.logFormat)
        log.log(
            .info, fresh ? "starting" : "taking over",
            ["version": chunkdVersion, "kept": "\(kept.count)", "pending": "\(pending.count)"])
        let agent = try prepareDirectories(options)
        let groups = try openGroups(options, kept: kept, keeper: keeper)
        let core = try GateCore(
            options: options, log: log, groups: groups, journal: journal, kept: kept, keeper: keeper, fresh: fresh)
        if !fresh { core.counters.add(.restarts) }
        try core.recover(fresh: fresh)
        if !fresh { core.settleStale(journal, pending) }
        let listener = try listen(options, agent: agent, kept: kept, keeper: keeper)
        try core.start(listener: listener, allowed: Set([0] + (agent.map { [$0.uid] } ?? [])))
        log.log(.info, "ready", ["socket": options.runDirectory + "/gate.sock", "shards": "\(groups.count)"])
        return try waitForEnd(core, signals)
    }

    private static func waitForEnd(_ core: GateCore, _ signals: borrowing Signals) throws(SystemError) -> Int32 {
        while true {
            for number in try signals.wait().signals {
                if number == SIGHUP {
                    core.log.log(.info, "replacing this process; blocked reads stay blocked")
                    // The successor knows of what is durable only: the rest would be fetched again.
                    core.sync()
                    core.log.flush()
                    return Keeper.replaceStatus
                }
                guard let reason = core.prepareToStop() else {
                    core.log.log(.info, "stopped")
                    core.log.flush()
                    return 0
                }
                core.log.log(.error, "not stopping: its readers would get zeros", ["reason": reason])
            }
        }
    }

    private static func openJournal(_ keeper: KeeperClient) throws(SystemError) -> (AccessJournal, fresh: Bool) {
        if let kept = try keeper.get("journal") { return (try AccessJournal(file: try pin(kept)), false) }
        let created = try AccessJournal.create(capacity: Int(min(descriptorLimit().rlim_cur, 1 << 20)))
        let journal = try AccessJournal(file: try pin(created.file))
        try keeper.store("journal", journal.file)
        return (journal, true)
    }

    /// Moves a file to the journal's fixed number.
    private static func pin(_ file: File) throws(SystemError) -> File {
        if file.descriptor == journalDescriptor { return file }
        return File(owning: try retrying("dup2") { dup2(file.descriptor, journalDescriptor) })
    }

    private static func openGroups(
        _ options: GateOptions, kept: [String: File], keeper: KeeperClient
    ) throws(SystemError) -> [Group] {
        var groups: [Group] = []
        while let file = kept["group.\(groups.count)"] { groups.append(Group(adopting: file)) }
        // The number of groups of a running node does not change: marks live in them.
        if !groups.isEmpty { return groups }
        for number in 0..<options.shards {
            let group = try Group()
            try keeper.store("group.\(number)", group.file)
            groups.append(group)
        }
        return groups
    }

    /// Makes the directories: the run directory is sticky and the agent's group may write, so chunkd can make its own
    /// socket there and cannot replace the gate's.
    private static func prepareDirectories(_ options: GateOptions) throws(SystemError) -> AgentUser? {
        try Directory.create(options.stateDirectory, mode: 0o755)
        try Directory.create(options.runDirectory, mode: 0o755)
        guard let agent = try AgentUser.find(options.agentUser) else { return nil }
        let agentDirectory = options.stateDirectory + "/agent"
        try Directory.create(agentDirectory, mode: 0o700)
        try retrying("lchown", agentDirectory) { lchown(agentDirectory, agent.uid, agent.gid) }
        let run = try Directory.open(options.runDirectory)
        try retrying("fchown", options.runDirectory) { fchown(run.descriptor, 0, agent.gid) }
        try retrying("fchmod", options.runDirectory) { fchmod(run.descriptor, 0o1770) }
        return agent
    }

    private static func listen(
        _ options: GateOptions, agent: AgentUser?, kept: [String: File], keeper: KeeperClient
    ) throws(SystemError) -> PacketSocket {
        if let file = kept["listener"] { return PacketSocket(owning: file) }
        let path = options.runDirectory + "/gate.sock"
        // Made for nobody but root, then given to the agent's group: nothing connects in between.
        let socket = try PacketSocket.listen(path: path, mode: 0o600)
        if let agent {
            try retrying("lchown", path) { lchown(path, 0, agent.gid) }
            try retrying("chmod", path) { chmod(path, 0o660) }
        }
        try keeper.store("listener", socket.file)
        return socket
    }
}
