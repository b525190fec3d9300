/// Why zstd could not compress or decompress.
package struct ZstandardError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is fit for a metric label.
    package enum Code: String, Sendable, CaseIterable {
        /// The bytes are not exactly one intact frame.
        case badFrame = "bad_frame"
        /// The frame holds more or less than expected.
        case wrongSize = "wrong_size"
        /// The frame needs more memory than the limit, or a dictionary.
        case unsupported
        /// Output would pass the limit given.
        case limitExceeded = "limit_exceeded"
        /// libzstd refused for a reason of its own.
        case library
    }

    package let code: Code
    /// What was expected and found.
    package let message: String

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }
    package var description: String { "zstd: \(message)" }
}
