import CCurl

/// Sets every option of an easy handle for one exchange; the first that fails ends it with `invalidRequest`.
struct CurlSetup {
    let easy: UnsafeMutableRawPointer
    private var failure: CURLcode = CURLE_OK

    init(_ easy: UnsafeMutableRawPointer) { self.easy = easy }

    /// Applies the exchange's request. On success the exchange owns a header list that outlives the handle's use.
    static func apply(_ exchange: Exchange, to easy: UnsafeMutableRawPointer) throws(TransferError) {
        let request = exchange.request
        try validate(request)
        var setup = CurlSetup(easy)
        setup.fixed(exchange)
        try setup.destination(exchange)
        if request.tls == nil { setup.security(request.security) } else { setup.ownTLS(exchange) }
        try setup.message(exchange)
        guard setup.failure == CURLE_OK else {
            throw TransferError(.invalidRequest, "libcurl refuses the request: \(describe(setup.failure))")
        }
    }

    static func describe(_ code: CURLcode) -> String { curl_easy_strerror(code).map { String(cString: $0) } ?? "" }

    private static func validate(_ request: TransferRequest) throws(TransferError) {
        for (name, value) in request.headers {
            guard !name.isEmpty, name.utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != 58 }),
                value.utf8.allSatisfy({ $0 >= 32 && $0 != 127 || $0 == 9 })
            else {
                throw TransferError(.invalidRequest, "header \(name.prefix(40)) holds characters that are not allowed")
            }
        }
        guard request.url.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
            throw TransferError(.invalidRequest, "URL holds characters that are not allowed")
        }
    }

    private mutating func keep(_ code: CURLcode) {
        if failure == CURLE_OK { failure = code }
    }
    private mutating func long(_ option: CURLoption, _ value: Int) { keep(ccurl_set_long(easy, option, value)) }
    private mutating func string(_ option: CURLoption, _ value: String) { keep(ccurl_set_string(easy, option, value)) }
    private mutating func pointer(_ option: CURLoption, _ value: UnsafeMutableRawPointer?) {
        keep(ccurl_set_pointer(easy, option, value))
    }

    /// What is the same for every exchange: callbacks, and everything switched off that nobody asked for.
    private mutating func fixed(_ exchange: Exchange) {
        let user = Unmanaged.passUnretained(exchange).toOpaque()
        pointer(CURLOPT_PRIVATE, user)
        pointer(CURLOPT_ERRORBUFFER, UnsafeMutableRawPointer(exchange.errorBuffer))
        keep(ccurl_set_data_callback(easy, CURLOPT_WRITEFUNCTION, curlBody))
        pointer(CURLOPT_WRITEDATA, user)
        keep(ccurl_set_data_callback(easy, CURLOPT_HEADERFUNCTION, curlHeader))
        pointer(CURLOPT_HEADERDATA, user)
        keep(ccurl_set_data_callback(easy, CURLOPT_READFUNCTION, curlUpload))
        pointer(CURLOPT_READDATA, user)
        keep(ccurl_set_seek_callback(easy, curlSeek))
        pointer(CURLOPT_SEEKDATA, user)
        keep(ccurl_set_prereq_callback(easy, curlConnected))
        pointer(CURLOPT_PREREQDATA, user)
        long(CURLOPT_NOSIGNAL, 1)
        long(CURLOPT_FOLLOWLOCATION, 0)
        long(CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
        long(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1)
        long(CURLOPT_PATH_AS_IS, 1)
        long(CURLOPT_DISALLOW_USERNAME_IN_URL, 1)
        string(CURLOPT_PROTOCOLS_STR, "http,https")
        long(CURLOPT_TCP_KEEPALIVE, 1)
        long(CURLOPT_BUFFERSIZE, exchange.request.bufferSize.rawValue)
        long(CURLOPT_CONNECTTIMEOUT_MS, max(1, exchange.request.timeouts.connect.clampedMilliseconds))
    }

    private mutating func destination(_ exchange: Exchange) throws(TransferError) {
        let request = exchange.request
        string(CURLOPT_URL, request.url)
        // An empty string also switches off http_proxy and friends in the environment.
        string(CURLOPT_PROXY, request.proxy ?? "")
        string(CURLOPT_NOPROXY, "")
        if let path = request.unixSocketPath { string(CURLOPT_UNIX_SOCKET_PATH, path) }
        if let target = request.connectTo {
            // Two empty parts: whatever the URL's host and port are (CURLOPT_CONNECT_TO(3)).
            guard let list = curl_slist_append(nil, "::" + target) else {
                throw TransferError(.outOfMemory, "no memory for an address")
            }
            exchange.connectList = list
            keep(ccurl_set_list(easy, CURLOPT_CONNECT_TO, list))
        }
    }

    /// TLS 1.3, set up and verified by the request's `tls`.
    private mutating func ownTLS(_ exchange: Exchange) {
        string(CURLOPT_PROTOCOLS_STR, "https")
        long(CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_3))
        // No authorities of the system: `tls` decides, and the host is a key, not a name to compare.
        pointer(CURLOPT_CAINFO, nil)
        pointer(CURLOPT_CAPATH, nil)
        long(CURLOPT_SSL_VERIFYPEER, 1)
        long(CURLOPT_SSL_VERIFYHOST, 0)
        keep(ccurl_set_tls_callback(easy, curlTLS))
        pointer(CURLOPT_SSL_CTX_DATA, Unmanaged.passUnretained(exchange).toOpaque())
    }

    private mutating func security(_ security: TransferSecurity) {
        long(CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_2))
        long(CURLOPT_SSL_VERIFYPEER, security.isVerified ? 1 : 0)
        long(CURLOPT_SSL_VERIFYHOST, security.isVerified ? 2 : 0)
        if let file = security.caFile { string(CURLOPT_CAINFO, file) }
        if let file = security.clientCertificateFile { string(CURLOPT_SSLCERT, file) }
        if let file = security.clientKeyFile { string(CURLOPT_SSLKEY, file) }
    }

    private mutating func message(_ exchange: Exchange) throws(TransferError) {
        let request = exchange.request
        var lines = request.headers.map { $0.value.isEmpty ? $0.name + ";" : $0.name + ": " + $0.value }
        if let range = request.range {
            precondition(!range.isEmpty, "an empty range cannot be asked for")
            lines.append("Range: bytes=\(range.lowerBound)-\(range.upperBound - 1)")
        }
        // libcurl waits up to a second for "100 Continue" otherwise.
        lines.append("Expect:")
        switch request.method {
        case .get: long(CURLOPT_HTTPGET, 1)
        case .head: long(CURLOPT_NOBODY, 1)
        case .put, .post, .patch, .delete:
            if case .none = request.body, request.method == .delete {
                long(CURLOPT_HTTPGET, 1)
            } else {
                long(CURLOPT_UPLOAD, 1)
                keep(ccurl_set_offset(easy, CURLOPT_INFILESIZE_LARGE, curl_off_t(exchange.uploadLength)))
            }
            string(CURLOPT_CUSTOMREQUEST, request.method.rawValue)
        }
        for line in lines {
            guard let longer = curl_slist_append(exchange.headerList, line) else {
                throw TransferError(.outOfMemory, "no memory for request headers")
            }
            exchange.headerList = longer
        }
        keep(ccurl_set_list(easy, CURLOPT_HTTPHEADER, exchange.headerList))
    }
}
