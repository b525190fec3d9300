/// Why an exchange did not end with a whole response. Statuses of 400 and above are responses, not errors.
///
/// Value type, safe on any thread.
package struct TransferError: Error, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is fit for a metric label.
    package enum Code: String, Sendable, CaseIterable {
        case cancelled
        case shutDown = "shut_down"
        case tooManyRequests = "too_many_requests"
        case invalidRequest = "invalid_request"
        case nameResolution = "name_resolution"
        case connect = "connect"
        case tls = "tls"
        case certificate = "certificate"
        case proxy = "proxy"
        case queueTimeout = "queue_timeout"
        case connectTimeout = "connect_timeout"
        case firstByteTimeout = "first_byte_timeout"
        case progressTimeout = "progress_timeout"
        case totalTimeout = "total_timeout"
        case addressRefused = "address_refused"
        case connectionReset = "connection_reset"
        case shortBody = "short_body"
        case malformedResponse = "malformed_response"
        case headersTooLarge = "headers_too_large"
        case bodyTooLarge = "body_too_large"
        case uploadRead = "upload_read"
        case outOfMemory = "out_of_memory"
        case other = "other"
    }

    package let code: Code
    /// What and where: method, origin, libcurl's words.
    package let message: String
    /// Body bytes handed to the sink before it failed.
    package let bytesDelivered: UInt64

    package init(_ code: Code, _ message: String, bytesDelivered: UInt64 = 0) {
        self.code = code
        self.message = message
        self.bytesDelivered = bytesDelivered
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }
    package var description: String { message }

    /// Whether the same request may succeed when sent again: the network or the other side failed, not the request.
    package var isTransient: Bool {
        switch code {
        case .nameResolution, .connect, .tls, .proxy, .connectTimeout, .firstByteTimeout, .progressTimeout,
            .totalTimeout, .connectionReset, .shortBody, .malformedResponse, .other:
            true
        case .cancelled, .shutDown, .tooManyRequests, .invalidRequest, .certificate, .queueTimeout, .addressRefused,
            .headersTooLarge, .bodyTooLarge, .uploadRead, .outOfMemory:
            false
        }
    }
}

/// Limits of one transfer client.
package struct TransferLimits: Sendable, Equatable {
    /// Exchanges at once to one origin, by priority: each is one HTTP/1.1 connection.
    package var onDemandPerOrigin: Int
    package var prefetchPerOrigin: Int
    /// Exchanges waiting for a connection, all origins together; more is `tooManyRequests`.
    package var maxQueued: Int
    /// Idle connections kept open, all origins together.
    package var maxIdleConnections: Int
    /// Header fields, and bytes of all header lines, in one response.
    package var maxHeaderCount: Int
    package var maxHeaderBytes: Int

    package init(
        onDemandPerOrigin: Int = 8, prefetchPerOrigin: Int = 4, maxQueued: Int = 4096, maxIdleConnections: Int = 32,
        maxHeaderCount: Int = 128, maxHeaderBytes: Int = 65_536
    ) {
        self.onDemandPerOrigin = onDemandPerOrigin
        self.prefetchPerOrigin = prefetchPerOrigin
        self.maxQueued = maxQueued
        self.maxIdleConnections = maxIdleConnections
        self.maxHeaderCount = maxHeaderCount
        self.maxHeaderBytes = maxHeaderBytes
    }

    func budget(_ priority: TransferPriority) -> Int {
        max(1, priority == .onDemand ? onDemandPerOrigin : prefetchPerOrigin)
    }
}
