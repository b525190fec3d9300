/// Why a development CA or a certificate could not be made.
package struct PKIError: Error, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is stable, for `-o json`.
    package enum Code: String, Sendable {
        case invalidArgument = "invalid_argument"
        /// A file is there already, and `force` was not given.
        case exists
        /// No CA in that directory.
        case noAuthority = "no_authority"
        /// The openssl tool is missing or has failed.
        case tool
        case inputOutput = "input_output"
    }

    package let code: Code
    package let message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// A bounded label.
    package var reason: String { code.rawValue }
    package var description: String { message }
}
