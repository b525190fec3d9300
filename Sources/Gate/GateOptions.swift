import Glibc
import LinuxSystem

/// chunkgate's settings: a few flags, each also a `CHUNKD_…` variable. It reads no file, so that the trusted process
/// parses as little as can be.
package struct GateOptions: Equatable, Sendable {
    /// Directory of all state; the gate's own is `<stateDirectory>/gate`.
    package var stateDirectory = "/var/lib/chunkd"
    /// Directory of the sockets.
    package var runDirectory = "/run/chunkd"
    /// The user chunkd runs as: may connect, owns `<stateDirectory>/agent`. Empty: only root may connect.
    package var agentUser = "chunkd"
    /// Groups: every answer wakes all waiters of its group (kernel-facts: 1,000 waiters clear in 0.27 s, 4,000 in 7.4 s).
    package var shards = 4
    /// A blocked reader is denied after this while chunkd is connected, in milliseconds.
    package var deadlineMilliseconds = 30_000
    /// …and after this while it is not.
    package var agentAwayDeadlineMilliseconds = 120_000
    /// Read-ahead of the mounts, in KiB (/sys/class/bdi/erofs-N/read_ahead_kb).
    package var readAheadKiB = 512
    /// `text` or `json`; nil decides by whether standard error is a terminal.
    package var logFormat: LogFormat?

    /// How log lines look.
    package enum LogFormat: String, Sendable { case text, json }

    package init() {}

    /// What the command line asks for.
    package enum Command: Equatable, Sendable {
        case run(GateOptions)
        case help
        case version
        /// Not understood: the message says what and where.
        case usage(String)
    }

    private struct Option {
        let flag: String
        let help: String
        let set: @Sendable (inout GateOptions, String) -> Bool
    }

    private static let options: [Option] = [
        Option(flag: "--state-dir", help: "PATH    state on ext4, xfs or btrfs (default /var/lib/chunkd)") {
            $0.stateDirectory = $1
            return $1.hasPrefix("/")
        },
        Option(flag: "--run-dir", help: "PATH      sockets (default /run/chunkd)") {
            $0.runDirectory = $1
            return $1.hasPrefix("/")
        },
        Option(flag: "--agent-user", help: "NAME   user chunkd runs as, or UID:GID (default chunkd)") {
            $0.agentUser = $1
            return true
        },
        Option(flag: "--shards", help: "N          fanotify groups, 1-32 (default 4)") {
            assign(&$0.shards, Int($1).flatMap { (1...32).contains($0) ? $0 : nil })
        },
        Option(flag: "--deadline", help: "TIME     deny a blocked read after this, e.g. 30s, 500ms (default 30s)") {
            assign(&$0.deadlineMilliseconds, milliseconds($1))
        },
        Option(flag: "--agent-away-deadline", help: "TIME  the same while chunkd is away (default 120s)") {
            assign(&$0.agentAwayDeadlineMilliseconds, milliseconds($1))
        },
        Option(flag: "--read-ahead", help: "SIZE   read-ahead of the mounts, e.g. 512KiB (default 512KiB)") {
            guard $1.hasSuffix("KiB"), let value = Int($1.dropLast(3)), (4...16384).contains(value) else {
                return false
            }
            $0.readAheadKiB = value
            return true
        },
        Option(flag: "--log-format", help: "FORMAT  text or json (default: text on a terminal)") {
            guard let format = LogFormat(rawValue: $1) else { return false }
            $0.logFormat = format
            return true
        },
    ]

    private static func assign<Value>(_ target: inout Value, _ value: Value?) -> Bool {
        guard let value else { return false }
        target = value
        return true
    }

    /// `30s`, `500ms`, `2m`; at most an hour.
    private static func milliseconds(_ text: String) -> Int? {
        for (suffix, factor) in [("ms", 1), ("s", 1000), ("m", 60_000)] where text.hasSuffix(suffix) {
            guard let value = Int(text.dropLast(suffix.count)), value > 0, value <= 3_600_000 / factor else {
                return nil
            }
            return value * factor
        }
        return nil
    }

    /// Reads `--flag value`, `--flag=value` and, below them, `CHUNKD_FLAG` variables.
    package static func parse(_ arguments: [String], environment: [String: String]) -> Command {
        var result = GateOptions()
        for option in options {
            let name = "CHUNKD_" + option.flag.dropFirst(2).uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
            guard let value = environment[name] else { continue }
            guard option.set(&result, value) else { return .usage("\(name)=\(value): not understood") }
        }
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--help" || argument == "-h" { return .help }
            if argument == "--version" { return .version }
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            guard let option = options.first(where: { $0.flag == parts[0] }) else {
                return .usage("unknown argument \(argument)")
            }
            guard let value = parts.count == 2 ? parts[1] : rest.popFirst() else {
                return .usage("\(option.flag) needs a value")
            }
            guard option.set(&result, value) else { return .usage("\(option.flag) \(value): not understood") }
        }
        return .run(result)
    }

    /// The text of `--help`.
    package static var help: String {
        """
        OVERVIEW: Mounts images as EROFS and lets a read go on when its bytes are verified and on disk.

        USAGE: chunkgate [options]

        Runs as root, opens no network socket. chunkd connects to <run-dir>/gate.sock and brings the bytes.

        OPTIONS:
        \(options.map { "  \($0.flag) \($0.help)" }.joined(separator: "\n"))
          --version        print the version
          --help           print this

        Every option is also a variable: --state-dir is CHUNKD_STATE_DIR. Flags win.

        EXAMPLES:
          chunkgate
          chunkgate --state-dir /data/chunkd --agent-user nobody --deadline 10s

        SIGTERM stops it when no partly fetched image is in use, and says which one is otherwise.
        SIGHUP replaces the working process with the binary now on disk; blocked reads stay blocked and are served.
        """
    }
}
