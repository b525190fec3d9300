/// Why bytes between peers cannot be read, or a value cannot be written.
package struct PeerWireError: Error, Sendable, CustomStringConvertible {
    package enum Code: String, Sendable, CaseIterable {
        /// The frame is longer than it may be.
        case tooLong = "too_long"
        /// Not the protocol buffer it should be.
        case malformed
        /// More messages or items than there may be.
        case tooMany = "too_many"
    }

    package let code: Code
    /// What, where, expected and found.
    package let message: String
    /// What the encoder or decoder said.
    package let cause: (any Error)?

    init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }

    package var description: String { cause.map { "\(message): \($0)" } ?? message }
}
