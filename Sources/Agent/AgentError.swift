import ControlAPI
import LinuxSystem
import OCISpec
import RegistryClient

/// Why the agent could not do something.
package struct AgentError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Closed set; the raw value is a metric label.
    package enum Code: String, Sendable, CaseIterable {
        /// No connection to chunkgate.
        case gateAway = "gate_away"
        /// chunkgate did not answer in time.
        case gateTimeout = "gate_timeout"
        /// chunkgate refused; `errno` says why.
        case gateRefused = "gate_refused"
        /// chunkgate answered something else.
        case gateProtocol = "gate_protocol"
        /// Another agent holds the connection, or the gate will not have this one.
        case gateTaken = "gate_taken"
        /// The image or one of its parts is not what it should be.
        case image
        /// An image that chunkd did not build: a runtime unpacks it.
        case ordinaryImage = "ordinary_image"
        case notFound = "not_found"
        case conflict
        /// Containers run on the image.
        case inUse = "in_use"
        /// Chunks could not be had.
        case incomplete
        case state
        /// This node cannot take part in the cluster.
        case cluster
        case stopping
    }

    package let code: Code
    /// What, where, expected and found.
    package let message: String
    /// The gate's errno; 0 when there is none.
    package let errno: Int32

    package init(_ code: Code, _ message: String, errno: Int32 = 0) {
        self.code = code
        self.message = message
        self.errno = errno
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }
    package var description: String { message }
}

extension ControlError {
    /// What a client of the control API is told of any error of ours.
    static func from(_ error: any Error) -> ControlError {
        switch error {
        case let error as ControlError: error
        case let error as AgentError: from(error)
        case let error as RegistryError: from(error)
        case let error as OCISpecError: ControlError(code(of: error), error.message)
        case let error as SystemError: ControlError(error.errno == 28 ? .noSpace : .internal, error.description)
        case is CancellationError: ControlError(.deadline, "cancelled")
        default: ControlError(.internal, "\(error)")
        }
    }

    private static func from(_ error: AgentError) -> ControlError {
        switch error.code {
        case .gateAway, .gateTaken:
            ControlError(.gateAway, error.message, hint: "see that chunkgate runs; chunkd connects again by itself")
        case .gateTimeout: ControlError(.deadline, error.message)
        case .gateRefused: ControlError(code(ofErrno: error.errno), error.message)
        case .gateProtocol, .state, .cluster: ControlError(.internal, error.message)
        case .image: ControlError(.integrity, error.message, hint: "build and push the image again")
        case .ordinaryImage: ControlError(.unsupported, error.message)
        case .notFound: ControlError(.notFound, error.message)
        case .conflict: ControlError(.conflict, error.message)
        case .inUse:
            ControlError(
                .conflict, error.message,
                hint: "stop and remove these containers first (the last part of a name is containerd's id); "
                    + "umount(8) of a directory takes only that away and leaves them the image")
        case .incomplete: ControlError(.unreachable, error.message, hint: "see chunkctl stat for the sources' errors")
        case .stopping: ControlError(.busy, error.message)
        }
    }

    private static func code(ofErrno errno: Int32) -> Code {
        switch errno {
        case 2: .notFound  // ENOENT
        case 16: .conflict  // EBUSY
        case 28, 122: .noSpace  // ENOSPC, EDQUOT
        case 22, 95: .unsupported  // EINVAL, EOPNOTSUPP
        case 5: .integrity  // EIO
        default: .internal
        }
    }

    private static func code(of error: OCISpecError) -> Code {
        switch error.code {
        case .invalidReference, .missingRegistry: .invalidRequest
        default: .unsupported
        }
    }

    private static func from(_ error: RegistryError) -> ControlError {
        switch error.code {
        case .unauthorized, .credentials, .realmRefused:
            ControlError(.unauthorized, error.message, hint: "check the login of this registry in the configuration")
        case .notFound: ControlError(.notFound, error.message)
        case .digestMismatch, .sizeMismatch: ControlError(.integrity, error.message)
        case .invalidDocument, .noMatchingPlatform, .tooLarge: ControlError(.unsupported, error.message)
        case .configuration: ControlError(.invalidRequest, error.message)
        default: ControlError(.unreachable, error.message)
        }
    }
}
