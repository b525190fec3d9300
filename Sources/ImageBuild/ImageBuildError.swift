/// Why an image could not be built or inspected.
package struct ImageBuildError: Error, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is fit for a metric label.
    package enum Code: String, Sendable, CaseIterable {
        /// SRC, DEST or an option makes no sense.
        case invalidArgument = "invalid_argument"
        /// The source is not there, or not what it must be.
        case badSource = "bad_source"
        /// The source's bytes are not those of its digest.
        case corruptSource = "corrupt_source"
        /// A layer or config that this builder cannot apply.
        case unsupported
        /// mkfs.erofs or umoci is missing or failed.
        case tool
        /// A file could not be read or written.
        case inputOutput = "io"
        /// A named limit was passed.
        case limitExceeded = "limit_exceeded"
        /// The registry refused or failed.
        case registry
        /// What was built does not pass chunkd's own checks: a defect, or a tree no mount can hold.
        case invalidImage = "invalid_image"
        case cancelled
    }

    package let code: Code
    /// What, where, expected and found, and what to do about it where that is known.
    package let message: String
    /// What led to this, if anything did.
    package let cause: (any Error)?

    package init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }
    package var description: String { cause.map { "\(message): \($0)" } ?? message }
}
