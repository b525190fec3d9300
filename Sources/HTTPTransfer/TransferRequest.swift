/// One HTTP exchange: exactly one request, one response, no redirect followed.
///
/// Value type, safe on any thread.
package struct TransferRequest: Sendable {
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case put = "PUT"
        case post = "POST"
        case patch = "PATCH"
        case delete = "DELETE"
    }

    /// What is sent behind the headers.
    package enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// `length` bytes from `offset` of an open file. The descriptor stays the caller's and must stay open until the
        /// exchange has ended. It is read on the transfer thread with pread(2), in pieces of libcurl's buffer: for
        /// uploads by the command line, not for a process that serves readers meanwhile.
        case file(descriptor: Int32, offset: Int64, length: Int64)
    }

    package var method: Method
    /// Absolute `http://` or `https://` URL.
    package var url: String
    /// Names and values; a value must not hold CR, LF or NUL (checked).
    package var headers: [(name: String, value: String)]
    package var body: Body
    /// Sent as `Range: bytes=FIRST-LAST`; an empty range is a programmer error and traps.
    package var range: Range<UInt64>?
    package var priority: TransferPriority
    package var security: TransferSecurity
    /// The proxy's URL; nil connects directly. `ProxySettings.proxy(for:…)` applies NO_PROXY.
    package var proxy: String?
    /// Connects to this unix socket in place of the URL's host.
    package var unixSocketPath: String?
    /// Connects to this `ADDRESS:PORT` (an IPv6 address in brackets) in place of the URL's host and port. The URL's host
    /// stays what connections are kept under: one made for a host is never used for another at the same address.
    package var connectTo: String?
    /// Sets up and checks TLS in place of libcurl: `https` and TLS 1.3 only, `security` is not looked at. Connections are
    /// used again by host alone: one client, one identity.
    package var tls: (any TransferTLS)?
    package var timeouts: TransferTimeouts
    package var addressPolicy: AddressPolicy
    /// Receive buffer: small for documents, large for blobs.
    package var bufferSize: BufferSize

    package init(
        _ method: Method = .get, url: String, headers: [(name: String, value: String)] = [], body: Body = .none,
        range: Range<UInt64>? = nil, priority: TransferPriority = .onDemand,
        security: TransferSecurity = TransferSecurity(), proxy: String? = nil, unixSocketPath: String? = nil,
        connectTo: String? = nil, tls: (any TransferTLS)? = nil, timeouts: TransferTimeouts = TransferTimeouts(),
        addressPolicy: AddressPolicy = .any,
        bufferSize: BufferSize = .document
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.range = range
        self.priority = priority
        self.security = security
        self.proxy = proxy
        self.unixSocketPath = unixSocketPath
        self.connectTo = connectTo
        self.tls = tls
        self.timeouts = timeouts
        self.addressPolicy = addressPolicy
        self.bufferSize = bufferSize
    }

    /// libcurl's receive buffer in bytes (CURLOPT_BUFFERSIZE), allocated while the exchange runs.
    package enum BufferSize: Int, Sendable {
        case document = 16_384
        /// 512 KiB: a chunk in one to two reads. 24 exchanges × 512 KiB = 12 MiB.
        case blob = 524_288
    }
}

/// Who waits for whom: an on-demand exchange never waits for a prefetch one, each has its own connection budget.
package enum TransferPriority: Int, Sendable, CaseIterable {
    case onDemand, prefetch
}

/// Limits in time, each on the monotonic clock.
package struct TransferTimeouts: Sendable, Equatable {
    /// Waiting for a free connection of the host's budget.
    package var queue: Duration
    /// Name look-up, TCP and TLS handshakes together.
    package var connect: Duration
    /// From the request being sent (or the last byte uploaded) to the first byte of the response.
    package var firstByte: Duration
    /// In each `progressWindow` a running, not paused body must move `progressBytes`.
    package var progressWindow: Duration
    package var progressBytes: UInt64
    /// The whole exchange; nil is unbounded (the others still hold).
    package var total: Duration?

    package init(
        queue: Duration = .seconds(30), connect: Duration = .seconds(5), firstByte: Duration = .seconds(10),
        progressWindow: Duration = .seconds(10), progressBytes: UInt64 = 10_240, total: Duration? = nil
    ) {
        self.queue = queue
        self.connect = connect
        self.firstByte = firstByte
        self.progressWindow = progressWindow
        self.progressBytes = progressBytes
        self.total = total
    }
}

/// TLS of one host. Certificates are verified unless `isVerified` is false, which only a host's configuration may say.
package struct TransferSecurity: Sendable, Hashable {
    package var isVerified: Bool
    /// PEM bundle that replaces the system's roots for this host.
    package var caFile: String?
    /// PEM client certificate and key for mutual TLS.
    package var clientCertificateFile: String?
    package var clientKeyFile: String?

    package init(
        isVerified: Bool = true, caFile: String? = nil, clientCertificateFile: String? = nil,
        clientKeyFile: String? = nil
    ) {
        self.isVerified = isVerified
        self.caFile = caFile
        self.clientCertificateFile = clientCertificateFile
        self.clientKeyFile = clientKeyFile
    }
}

/// Prepares the TLS of new connections: our certificate, and who decides about the other side's.
package protocol TransferTLS: Sendable {
    /// Sets up OpenSSL's `SSL_CTX` of one new connection, verification included; false refuses the connection. On the
    /// transfer thread: must not block.
    func prepare(_ context: UnsafeMutableRawPointer) -> Bool
}

/// Which addresses a request may be sent to, checked against the address that was really connected, after name
/// resolution and before the first byte of the request. Not applied through a proxy, which resolves by itself.
package enum AddressPolicy: Sendable {
    case any
    /// Called on the transfer thread with the numeric address; false refuses (`addressRefused`).
    case only(@Sendable (_ address: String) -> Bool)
}
