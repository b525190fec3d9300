import ArgumentParser
import ChunkModel
import Glibc
import LinuxSystem
import Logging
import RegistryClient
import ServiceLifecycle
import Settings
import Telemetry
import UnixSignals

/// `chunkd`: reads its settings, gives up root, runs.
package struct AgentCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "chunkd",
        abstract: "Fetches image chunks for chunkgate, and serves the control API and metrics.",
        discussion: """
            Started as root it becomes the user of gate.agentUser (or --user) and keeps no capability. Exit status: 0 \
            after SIGTERM or SIGINT, 1 when it cannot go on, 2 when the configuration or the command line is wrong. \
            SIGHUP reads the configuration again and takes over the log level.

            SETTINGS (also in the file and as CHUNKD_…; docs/operations.md has them all):
            \(SettingsTable.flagHelp)

            EXAMPLES:
              chunkd
              chunkd --config /etc/chunkd/config.yaml --log-level debug
            """,
        version: "chunkd \(chunkdVersion)")

    @Option(help: "The user to run as when started as root, in place of gate.agentUser.")
    var user: String?

    @Argument(parsing: .allUnrecognized, help: "Settings, as --fetch-range-max 8MiB.")
    var settings: [String] = []

    package init() {}

    /// The program: never returns.
    package static func start() -> Never {
        main()
        Glibc.exit(0)
    }

    /// Runs to the end of the process.
    package mutating func run() throws {
        let loader = SettingsLoader(arguments: settings, environment: Self.environment())
        let configuration: AgentRuntime.Configuration
        do throws(SettingsError) {
            let settings = try loader.load()
            configuration = AgentRuntime.Configuration(
                settings: settings,
                registry: try settings.registryConfiguration(userAgent: "chunkd/\(chunkdVersion)"))
        } catch {
            Self.complain("\(error)")
            throw ExitCode(SettingsError.exitCode)
        }
        try Self.becomeUser(user ?? configuration.settings.gate.agentUser, configuration.settings)
        signal(SIGPIPE, SIG_IGN)
        // The main thread waits: everything else has threads of its own, all without root from their start.
        let status = Monitor<Int32?>(nil)
        Task.detached {
            let code = await Self.serve(configuration, loader)
            status.update { $0 = code }
        }
        throw ExitCode(status.wait { $0 } ?? 1)
    }

    private static func complain(_ message: String) {
        let line = Array("chunkd: \(message)\n".utf8)
        _ = write(STDERR_FILENO, line, line.count)
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

    private static func becomeUser(_ name: String, _ settings: AgentSettings) throws {
        do {
            guard geteuid() == 0 else { return try Privileges.renounce() }
            guard let user = Privileges.User(named: name), user.uid != 0 else {
                complain("no user \"\(name)\" to run as (or it is root): make one, or name another with --user")
                throw ExitCode(SettingsError.exitCode)
            }
            try Privileges.prepareDirectories(
                state: settings.stateDirectory, run: settings.runDirectory, for: user)
            try Privileges.become(user)
        } catch let error as SystemError {
            complain("cannot become an ordinary user: \(error)")
            throw ExitCode.failure
        }
    }

    // MARK: - Serving

    private static func serve(_ configuration: AgentRuntime.Configuration, _ loader: SettingsLoader) async -> Int32 {
        do {
            let settings = configuration.settings
            let log = try Log(format: settings.logFormat.lineFormat, level: settings.logLevel.level)
            log.bootstrap()
            defer { log.flush() }
            let logger = log.logger("chunkd")
            do {
                let runtime = try AgentRuntime(configuration, logger: logger)
                let group = ServiceGroup(
                    configuration: .init(
                        services: [.init(service: runtime), .init(service: Reloader(log: log, loader: loader))],
                        gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
                try await group.run()
                return 0
            } catch {
                logger.critical("cannot go on", metadata: ["error": "\(error)"])
                return 1
            }
        } catch {
            complain("\(error)")
            return 1
        }
    }

    /// Reads the configuration again on SIGHUP. A broken one changes nothing.
    private struct Reloader: Service {
        let log: Log
        let loader: SettingsLoader

        func run() async throws {
            let logger = log.logger("chunkd")
            var current = try loader.load()
            await withGracefulShutdownHandler {
                for await _ in await UnixSignalsSequence(trapping: .sighup).cancelOnGracefulShutdown() {
                    let reload = loader.reload(keeping: current)
                    if let error = reload.error {
                        logger.error("configuration not taken over", metadata: ["error": "\(error)"])
                        continue
                    }
                    log.set(level: reload.settings.logLevel.level)
                    var rest = reload.settings
                    rest.logLevel = current.logLevel
                    logger.notice(
                        rest == current ? "configuration read again" : "configuration read again; restart for the rest",
                        metadata: ["logLevel": "\(reload.settings.logLevel)"])
                    current = reload.settings
                }
            } onGracefulShutdown: {
            }
        }
    }
}

extension AgentSettings.LogLevel {
    var level: Logger.Level {
        switch self {
        case .trace: .trace
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        case .critical: .critical
        }
    }
}

extension AgentSettings.LogFormat {
    var lineFormat: LogLineFormat? {
        switch self {
        case .auto: nil
        case .text: .text
        case .json: .json
        }
    }
}
