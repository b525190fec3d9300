import ArgumentParser
import ControlAPI
import OCISpec
import RegistryClient
import Settings

struct MirrorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror", abstract: "Have containerd pull ordinary images through chunkd, from peers first.",
        discussion: """
            EXAMPLES:
              chunkctl mirror install
              chunkctl mirror status
              chunkctl mirror remove

            containerd must be told where its directory of registries is: config_path = "/etc/containerd/certs.d" in the \
            registry section of its CRI plugin. It reads changes by itself.
            """,
        subcommands: [InstallMirrorCommand.self, RemoveMirrorCommand.self, MirrorStatusCommand.self])
}

/// What the commands have in common.
struct MirrorOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Registry, HOST[:PORT]; may be given several times (default: mirror.registries).", valueName: "host"))
    var registry: [String] = []

    @Option(help: ArgumentHelp("containerd's directory of registries.", valueName: "path"))
    var certsDir = "/etc/containerd/certs.d"

    func validate() throws {
        guard certsDir.hasPrefix("/") else { throw ValidationError("--certs-dir: expected an absolute path") }
    }

    var directory: HostsDirectory { HostsDirectory(certsDir) }

    /// The registries named, in the form references have.
    func names() throws -> [String] {
        try registry.map { name in
            do { return try Reference(registry: name, repository: "a").registry } catch {
                throw ValidationError("--registry: expected HOST[:PORT], found \(OCISpecError.quote(name))")
            }
        }
    }

    /// What the file of a registry has to say.
    static func file(_ registry: String, _ settings: AgentSettings) throws -> HostsFile {
        let configuration = try settings.registryConfiguration(userAgent: "chunkctl")
        return HostsFile(
            registry: registry, server: try configuration.url(of: registry),
            caFile: settings.registry(registry).caFile, endpoint: "http://\(settings.mirror.listen)",
            madeDirectories: 0)
    }
}

/// One registry in an answer.
struct MirrorHost: Encodable, Equatable {
    enum State: String, Encodable {
        /// containerd asks chunkd first.
        case installed
        /// A file of ours, for another address or registry URL than is configured now.
        case outdated
        /// There is none.
        case absent
        /// Somebody else's file is there, or one of ours that was changed.
        case foreign
        /// Other files hold for the registry now, and would not any more.
        case hidden
        case removed
    }

    var registry: String
    var state: State
    var file: String
}

struct MirrorReply: Encodable {
    var apiVersion = ControlVersion.current
    var hosts: [MirrorHost]

    var table: String {
        hosts.isEmpty
            ? "nothing is installed"
            : Table.render(
                header: ["REGISTRY", "STATE", "FILE"], rows: hosts.map { [$0.registry, $0.state.rawValue, $0.file] })
    }
}

struct InstallMirrorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "install", abstract: "Write a hosts.toml for each registry.",
        discussion: """
            EXAMPLES:
              chunkctl mirror install
              chunkctl mirror install --registry docker.io --registry registry.example:5000

            A file of somebody else's is never changed: what to add to it is printed, and the exit status is 1. Tags are \
            resolved by the registry itself, and whatever chunkd has not got comes from there.
            """)

    @OptionGroup var mirror: MirrorOptions
    @OptionGroup var common: CommonOptions

    func run() async throws {
        let settings = try common.settings()
        let names = try mirror.names()
        guard settings.mirror.enabled || !names.isEmpty else {
            throw ToolError(
                "configuration", "mirror.enabled is false: chunkd would not answer",
                hint: "set mirror.enabled and mirror.registries, and restart chunkd", exit: .usage)
        }
        let unknown = names.first { !settings.mirror.registries.contains($0) }
        if let unknown {
            throw ToolError(
                "configuration", "mirror.registries does not name \(unknown): chunkd would not answer for it",
                hint: "add it there, and restart chunkd", exit: .usage)
        }
        var hosts: [MirrorHost] = []
        for registry in names.isEmpty ? settings.mirror.registries : names {
            hosts.append(try install(try MirrorOptions.file(registry, settings)))
        }
        try Console.show(MirrorReply(hosts: hosts), as: common.output) { MirrorReply(hosts: hosts).table }
        if hosts.contains(where: { $0.state != .installed }) { throw ExitCode(ToolError.Exit.failed.rawValue) }
    }

    private func install(_ file: HostsFile) throws -> MirrorHost {
        let directory = mirror.directory
        var host = MirrorHost(registry: file.registry, state: .installed, file: directory.file(file.registry))
        switch try directory.find(file) {
        case .nothing, .ours(isCurrent: false): try directory.write(file)
        case .ours(isCurrent: true): break
        case .foreign(let path):
            host.state = .foreign
            Console.note(
                "chunkctl: \(path) is not ours and stays as it is; before its other hosts, add:\n\(file.lines)")
        case .hidden(let path):
            host.state = .hidden
            Console.note(
                """
                chunkctl: containerd would no longer look at \(path) if \(host.file) were there; write that file yourself, \
                with what holds now and:
                \(file.lines)
                """)
        }
        return host
    }
}

struct RemoveMirrorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Take away the hosts.toml files that install wrote.",
        discussion: """
            EXAMPLES:
              chunkctl mirror remove
              chunkctl mirror remove --registry docker.io

            Without --registry all of them. A file that was changed since is somebody's own and stays.
            """)

    @OptionGroup var mirror: MirrorOptions
    @OptionGroup var common: CommonOptions

    func run() async throws {
        let directory = mirror.directory
        let names = try mirror.names()
        let hosts = try (names.isEmpty ? try directory.registries() : names).map { registry in
            let isRemoved = try directory.remove(registry)
            let isThere = !isRemoved && directory.isThere(registry)
            return MirrorHost(
                registry: registry, state: isRemoved ? .removed : isThere ? .foreign : .absent,
                file: directory.file(registry))
        }
        try Console.show(MirrorReply(hosts: hosts), as: common.output) { MirrorReply(hosts: hosts).table }
        if hosts.contains(where: { $0.state == .foreign }) { throw ExitCode(ToolError.Exit.failed.rawValue) }
    }
}

struct MirrorStatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show for which registries containerd asks chunkd first.",
        discussion: """
            EXAMPLES:
              chunkctl mirror status
              chunkctl mirror status -o json

            Exits 1 when a registry of mirror.registries is not installed.
            """)

    @OptionGroup var mirror: MirrorOptions
    @OptionGroup var common: CommonOptions

    func run() async throws {
        let settings = try common.settings()
        let names = try mirror.names()
        let directory = mirror.directory
        let left = try directory.registries().filter { !settings.mirror.registries.contains($0) }
        let wanted = names.isEmpty ? settings.mirror.registries + left.sorted() : names
        let hosts = try wanted.map { registry in
            let state: MirrorHost.State =
                switch try directory.find(try MirrorOptions.file(registry, settings)) {
                case .nothing: .absent
                // For a registry that chunkd does not stand for any more: it answers 404, and containerd goes on.
                case .ours(let isCurrent): isCurrent && !left.contains(registry) ? .installed : .outdated
                case .foreign: .foreign
                case .hidden: .hidden
                }
            return MirrorHost(registry: registry, state: state, file: directory.file(registry))
        }
        try Console.show(MirrorReply(hosts: hosts), as: common.output) { MirrorReply(hosts: hosts).table }
        if hosts.contains(where: { $0.state != .installed }) { throw ExitCode(ToolError.Exit.failed.rawValue) }
    }
}
