import HTTPTransfer
import OCISpec

/// Why a registry operation did not succeed. Value type, safe on any thread.
package struct RegistryError: Error, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is fit for a metric label.
    package enum Code: String, Sendable, CaseIterable {
        case cancelled
        /// No answer: the transfer failed, see `transfer`.
        case unreachable
        /// 401 or 403 after authentication was tried.
        case unauthorized
        case notFound = "not_found"
        /// 429 beyond the retry budget.
        case rateLimited = "rate_limited"
        /// 5xx beyond the retry budget.
        case serverError = "server_error"
        /// Another status that the protocol does not allow here.
        case unexpectedStatus = "unexpected_status"
        /// A response that breaks the protocol: wrong Content-Range, multipart, missing Location.
        case malformedResponse = "malformed_response"
        case digestMismatch = "digest_mismatch"
        case sizeMismatch = "size_mismatch"
        case tooLarge = "too_large"
        case invalidDocument = "invalid_document"
        case noMatchingPlatform = "no_matching_platform"
        case redirectRefused = "redirect_refused"
        case realmRefused = "realm_refused"
        case credentials = "credentials"
        case circuitOpen = "circuit_open"
        case configuration = "configuration"
        case localFile = "local_file"
    }

    package let code: Code
    /// What, where, expected and found; never a credential, a token or a signed query.
    package let message: String
    /// HTTP status when one was received.
    package let status: Int?
    /// The transfer's failure when there was one.
    package let transfer: TransferError.Code?

    package init(_ code: Code, _ message: String, status: Int? = nil, transfer: TransferError.Code? = nil) {
        self.code = code
        self.message = message
        self.status = status
        self.transfer = transfer
    }

    /// A bounded label for metrics: the transfer's reason when that is the cause.
    package var reason: String { transfer?.rawValue ?? code.rawValue }
    package var description: String { message }
}

/// What the client reports as it works, for metrics. Delivered on whatever thread it happens, must not block.
package enum RegistryEvent: Sendable {
    /// One HTTP exchange has ended. `result` is `ok`, `status_4xx`, `status_5xx`, `unauthorized`, `rate_limited`, or a
    /// `TransferError` reason: bounded. `bytes` are body bytes received.
    case exchange(host: String, operation: Operation, result: String, bytes: UInt64, elapsed: Duration)
    /// The same request is sent again after `delay`.
    case retry(host: String, reason: String, delay: Duration)
    /// A host's circuit opened (failing fast) or closed again.
    case circuit(host: String, isOpen: Bool)
    /// A host answered a range request with the whole body.
    case rangeIgnored(host: String)

    package enum Operation: String, Sendable, CaseIterable {
        case ping, manifest, blob, range, upload, token, tags, referrers
    }
}
