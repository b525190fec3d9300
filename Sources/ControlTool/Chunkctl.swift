import ArgumentParser
import ChunkModel
import ControlAPI
import Glibc
import Settings

/// The command `chunkctl`.
struct Chunkctl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chunkctl",
        abstract: "Builds images that are read while they are fetched, and mounts them through chunkd.",
        discussion: """
            EXAMPLES:
              chunkctl image build ./tree registry.example/models/llama:1
              chunkctl mount registry.example/models/llama:1 /mnt/llama
              chunkctl stat
              chunkctl doctor

            Exit status: 0 done, 1 failed, 2 wrong usage or configuration.
            """,
        version: "chunkctl \(chunkdVersion)",
        subcommands: [
            ImageCommand.self, MountCommand.self, UmountCommand.self, ImagesCommand.self, StatCommand.self,
            PeersCommand.self, FaultsCommand.self, EventsCommand.self, SpansCommand.self, TopCommand.self,
            ExplainCommand.self, DrainCommand.self, LimitsCommand.self, PKICommand.self, PrefetchCommand.self,
            VerifyCommand.self, PinCommand.self, UnpinCommand.self, GarbageCommand.self, TraceCommand.self,
            MirrorCommand.self, DoctorCommand.self, SupportBundleCommand.self, VersionCommand.self,
            GateOptionsCommand.self, CompletionsCommand.self,
        ])
}

/// Options every command has.
struct CommonOptions: ParsableArguments {
    @OptionGroup var connection: ConnectionOptions

    @Option(name: [.customShort("o"), .long], help: "How the result is printed: table or json.")
    var output = OutputFormat.table

    /// The configuration, as chunkd reads it.
    func settings() throws -> AgentSettings { try connection.settings() }
    func client() throws -> ControlClient { try connection.client() }
}

/// Where chunkd is.
struct ConnectionOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Configuration file (default: \(SettingsTable.defaultFile)).", valueName: "path"))
    var config: String?

    @Option(help: ArgumentHelp("Control socket of chunkd (default: from the configuration).", valueName: "path"))
    var socket: String?

    /// The configuration, as chunkd reads it.
    func settings() throws -> AgentSettings {
        var arguments: [String] = []
        if let config { arguments += ["--config", config] }
        if let socket { arguments += ["--control-socket", socket] }
        return try SettingsLoader(arguments: arguments, environment: Self.environment()).load()
    }

    func client() throws -> ControlClient { ControlClient(socketPath: try settings().controlSocket) }

    /// This process's environment; the first of two equal names counts, as with getenv(3).
    static func environment() -> [String: String] {
        var out: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2, out[String(parts[0])] == nil { out[String(parts[0])] = String(parts[1]) }
            entry += 1
        }
        return out
    }
}

/// Runs chunkctl: parses, performs, prints errors, and says how to exit.
package enum ChunkctlProgram {
    /// Exit status for `arguments` (without the program's name).
    package static func run(_ arguments: [String]) async -> Int32 {
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try Chunkctl.parseAsRoot(arguments)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            return ToolError.Exit.ok.rawValue
        } catch let status as ExitCode {
            return status.rawValue
        } catch {
            return report(error, arguments)
        }
    }

    private static func report(_ error: any Error, _ arguments: [String]) -> Int32 {
        let parserStatus = Chunkctl.exitCode(for: error)
        if parserStatus == .success {  // --help, --version, a completion script
            Console.write(Chunkctl.fullMessage(for: error))
            return ToolError.Exit.ok.rawValue
        }
        if parserStatus == .validationFailure {
            Console.note(Chunkctl.fullMessage(for: error))
            return ToolError.Exit.usage.rawValue
        }
        let known = ToolError(error)
        let wantsJSON = zip(arguments, arguments.dropFirst()).contains {
            ["-o", "--output"].contains($0) && $1 == "json"
        }
        if wantsJSON || arguments.contains("--output=json") {
            let body = ErrorOutput(error: .init(code: known.code, message: known.message, hint: known.hint))
            let text = (try? ControlJSON.encode(body)).map { String(decoding: $0, as: UTF8.self) }
            Console.note(text ?? known.description)
        } else {
            Console.note("chunkctl: \(known)")
        }
        return known.exit.rawValue
    }
}

/// What `-o json` prints on standard error for an error: the shape of the control API.
private struct ErrorOutput: Encodable {
    struct Body: Encodable {
        var code: String
        var message: String
        var hint: String
    }

    var apiVersion = ControlVersion.current
    var error: Body
}
