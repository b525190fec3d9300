import HTTPTransfer

/// Why a call to a peer brought no whole answer. Answers that say no are answers, not errors.
///
/// Value type.
package struct PeerError: Error, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is fit for a metric label.
    package enum Code: String, Sendable, CaseIterable {
        /// We have no usable identity: ask the registry.
        case noIdentity = "no_identity"
        /// The peer is on our deny list.
        case denied
        /// Somebody else, or nobody provable, answers at that address; `refusal` says which.
        case untrusted
        /// No connection within the connect timeout.
        case unreachable
        /// The handshake failed: the peer refuses our certificate, or is no peer.
        case handshake
        /// Connected, but too slow to answer or in answering.
        case timeout
        /// The connection broke in the middle, or what came is not HTTP.
        case broken
        /// An answer that the protocol does not know.
        case unexpected
        case cancelled
        /// Our own limits: too many calls wait, or the client is shut down.
        case overloaded
    }

    package let code: Code
    package let message: String
    /// What was wrong with the other side's certificate.
    package let refusal: PeerRefusalReason?
    /// Body bytes handed on before it failed.
    package let bytesDelivered: UInt64

    package init(_ code: Code, _ message: String, refusal: PeerRefusalReason? = nil, bytesDelivered: UInt64 = 0) {
        self.code = code
        self.message = printable(message, limit: IdentityError.maxMessageBytes)
        self.refusal = refusal
        self.bytesDelivered = bytesDelivered
    }

    /// A bounded label for metrics.
    package var reason: String { refusal?.rawValue ?? code.rawValue }
    package var description: String { message }

    init(_ error: TransferError, refusal: IdentityError?) {
        if let refusal {
            self.init(.untrusted, refusal.message, refusal: refusal.reason)
            return
        }
        let code: Code =
            switch error.code {
            case .cancelled: .cancelled
            case .shutDown, .tooManyRequests, .queueTimeout, .outOfMemory: .overloaded
            case .connect, .connectTimeout, .nameResolution, .addressRefused: .unreachable
            case .tls, .certificate: .handshake
            case .firstByteTimeout, .progressTimeout, .totalTimeout: .timeout
            case .connectionReset, .shortBody, .malformedResponse, .proxy, .uploadRead, .other: .broken
            case .headersTooLarge, .bodyTooLarge, .invalidRequest: .unexpected
            }
        self.init(code, error.message, bytesDelivered: error.bytesDelivered)
    }
}
