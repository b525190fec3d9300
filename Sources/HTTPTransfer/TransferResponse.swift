/// Status line and header fields of one response, trailers and interim (1xx) responses apart.
///
/// Value type, safe on any thread.
package struct ResponseHead: Sendable {
    package let status: Int
    /// In the order received, names as sent.
    package let headers: [(name: String, value: String)]

    package init(status: Int, headers: [(name: String, value: String)]) {
        self.status = status
        self.headers = headers
    }

    /// The values of a field, by its name without regard to case, in order.
    package func values(_ name: String) -> [String] {
        let wanted = name.lowercased()
        return headers.filter { $0.name.lowercased() == wanted }.map(\.value)
    }

    /// The first value of a field.
    package func first(_ name: String) -> String? { values(name).first }

    /// The body's size as announced: nil when absent, malformed or contradictory (RFC 9110 section 8.6).
    package var contentLength: UInt64? {
        let lengths = values("Content-Length")
        guard let first = lengths.first, lengths.allSatisfy({ $0 == first }), (1...19).contains(first.utf8.count),
            first.utf8.allSatisfy({ (48...57).contains($0) })
        else { return nil }
        return UInt64(first)
    }
}

/// What to do with the body, decided once the head is known.
package enum HeadDecision: Sendable {
    /// Hand the body to the sink; more than `limit` bytes is `bodyTooLarge`.
    case deliver(limit: UInt64)
    /// Keep the body in `TransferResult.body`. Beyond `limit` bytes: `bodyTooLarge`, or with `truncating` the exchange
    /// ends well with the first `limit` bytes (for the text of an error response).
    case collect(limit: Int, truncating: Bool)
    /// End the exchange here; the connection is given up when a body was on its way.
    case stop
}

/// What to do after a piece of body.
package enum SinkDecision: Sendable, Equatable {
    case `continue`
    /// The piece was **not** taken: it is offered again after `TransferControl.resume()`. Timeouts rest meanwhile.
    case pause
    /// The piece was taken or is not wanted; end the exchange here, which is not an error.
    case stop
}

/// Where a response goes. Both are called one after the other on the transfer thread: they must not block and must
/// not keep the buffer.
package struct TransferSink: Sendable {
    package let head: @Sendable (ResponseHead) -> HeadDecision
    package let body: @Sendable (UnsafeRawBufferPointer) -> SinkDecision

    package init(
        head: @escaping @Sendable (ResponseHead) -> HeadDecision,
        body: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    ) {
        self.head = head
        self.body = body
    }

    /// Collects bodies of up to `limit` bytes.
    package static func collecting(limit: Int) -> TransferSink {
        TransferSink(head: { _ in .collect(limit: limit, truncating: false) }, body: { _ in .stop })
    }
}

/// How an exchange ended.
package struct TransferResult: Sendable {
    package let head: ResponseHead
    /// Body bytes of a `.collect` decision.
    package let body: [UInt8]
    /// True when the sink ended it before the end of the body.
    package let isStopped: Bool
    /// Body bytes received.
    package let bytesReceived: UInt64
    /// Numeric address that was connected to; nil for a unix socket.
    package let remoteAddress: String?
    /// True when an idle connection was used again.
    package let isConnectionReused: Bool
    /// From submission to the end, waiting for a connection included.
    package let elapsed: Duration
}
