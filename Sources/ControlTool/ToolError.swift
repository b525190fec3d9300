import ControlAPI
import ImageBuild
import LinuxSystem
import OCISpec
import RegistryClient
import Settings

/// Why a command of chunkctl failed: what, where, what to do, and the exit status.
package struct ToolError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The exit statuses of chunkctl; docs/operations.md.
    package enum Exit: Int32, Sendable {
        case ok = 0
        case failed = 1
        case usage = 2
    }

    /// Stable word for `-o json`.
    package var code: String
    package var message: String
    /// What to do; may be empty.
    package var hint: String
    package var exit: Exit

    package init(_ code: String, _ message: String, hint: String = "", exit: Exit = .failed) {
        self.code = code
        self.message = message
        self.hint = hint
        self.exit = exit
    }

    package var description: String { hint.isEmpty ? message : "\(message)\n  \(hint)" }

    /// Any error as one of ours.
    package init(_ error: any Error) {
        switch error {
        case let error as ToolError: self = error
        case let error as ControlError:
            let exit: Exit = error.code == .invalidRequest ? .usage : .failed
            self.init(error.code.rawValue, error.message, hint: error.hint, exit: exit)
        case let error as SettingsError:
            self.init("configuration", error.description, hint: "see docs/operations.md", exit: .usage)
        case let error as SystemError:
            self.init("system", error.description, hint: error.name == "EPERM" ? "run it as root" : "")
        case let error as ImageBuildError:
            self.init(error.reason, error.description, exit: error.code == .invalidArgument ? .usage : .failed)
        case let error as RegistryError: self.init(error.reason, error.message)
        case let error as OCISpecError: self.init("invalid_argument", error.description, exit: .usage)
        default: self.init("failed", "\(error)")
        }
    }
}
