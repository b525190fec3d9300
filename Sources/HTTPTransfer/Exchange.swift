import CCurl
import Glibc

/// The earliest moment at which some exchange may have run out of time. Transfer thread only.
final class DeadlineHint {
    var next = UInt64.max
    func lower(to candidate: UInt64) { next = min(next, candidate) }
}

/// One exchange while the transfer thread has it: its state, and what libcurl's callbacks do to it.
///
/// Not Sendable: made, called back and dropped on the transfer thread only.
final class Exchange {
    let id: UInt64
    let request: TransferRequest
    let lane: ConnectionBudget.Lane
    let submission: Submission
    private let limits: TransferLimits
    private let hint: DeadlineHint
    private(set) var clock: ExchangeClock

    /// Set while libcurl has it.
    var easy: UnsafeMutableRawPointer?
    var headerList: UnsafeMutablePointer<curl_slist>?
    var connectList: UnsafeMutablePointer<curl_slist>?
    let errorBuffer = UnsafeMutablePointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))

    private var status = 0
    private var headers: [(name: String, value: String)] = []
    private var headerBytes = 0
    private(set) var head: ResponseHead?
    private var decision = HeadDecision.stop
    private(set) var collected: [UInt8] = []
    /// Body bytes taken.
    private(set) var bytesReceived: UInt64 = 0
    private var uploaded: Int64 = 0
    /// Why a callback made libcurl end the exchange.
    private(set) var ending: Ending?

    enum Ending { case stopped, failed(TransferError.Code, String) }

    init(_ submission: Submission, limits: TransferLimits, hint: DeadlineHint) {
        id = submission.id
        request = submission.request
        lane = ConnectionBudget.Lane(origin: Self.origin(submission.request), priority: submission.request.priority)
        self.submission = submission
        self.limits = limits
        self.hint = hint
        clock = ExchangeClock(timeouts: submission.request.timeouts, now: submission.submitted)
        errorBuffer.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        hint.lower(to: clock.nextCheck)
    }

    deinit { errorBuffer.deallocate() }

    /// Scheme, host and port, or the unix socket: what shares a connection budget.
    private static func origin(_ request: TransferRequest) -> String {
        if let path = request.unixSocketPath { return "unix:" + path }
        // Scheme, "//" and authority: the first two slashes belong to it.
        var slashes = 0
        return String(
            request.url.prefix { character in
                if character == "/" { slashes += 1 }
                return slashes < 3 && character != "?"
            })
    }

    // MARK: Time

    func started() {
        clock.started()
        hint.lower(to: clock.nextCheck)
    }

    func resumed() {
        clock.resumed(now: monotonicNanoseconds())
        hint.lower(to: clock.nextCheck)
    }

    /// The timeout that has run out, if one has.
    func expired(now: UInt64) -> TransferError.Code? { clock.expired(now: now) }

    /// CURLOPT_PREREQFUNCTION: the connection stands, nothing of the request has been sent.
    func connected(to address: String) -> Bool {
        clock.requestProgressed(now: monotonicNanoseconds())
        hint.lower(to: clock.nextCheck)
        guard case .only(let isAllowed) = request.addressPolicy, request.proxy == nil, request.unixSocketPath == nil,
            !isAllowed(address)
        else { return true }
        ending = .failed(.addressRefused, "address \(address) is refused")
        return false
    }

    // MARK: Response

    /// One header line with its line end. False ends the exchange.
    func header(_ line: UnsafeRawBufferPointer) -> Bool {
        var bytes = line[...]
        while let last = bytes.last, last == 10 || last == 13 { bytes.removeLast() }
        headerBytes += line.count
        if head != nil { return true }  // trailers
        if bytes.starts(with: "HTTP/".utf8) {
            // A status line starts over: what came before was an interim response (RFC 9110 section 15.2).
            status = Int(String(decoding: bytes.drop { $0 != 32 }.dropFirst().prefix(3), as: UTF8.self)) ?? 0
            headers = []
            return checkHeaderSize()
        }
        if bytes.isEmpty { return status < 200 ? true : headComplete() }
        guard checkHeaderSize() else { return false }
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")) else { return true }
        headers.append((Self.text(bytes[..<colon]), Self.text(bytes[(colon + 1)...])))
        return true
    }

    private func checkHeaderSize() -> Bool {
        guard headers.count < limits.maxHeaderCount, headerBytes <= limits.maxHeaderBytes else {
            ending = .failed(
                .headersTooLarge,
                "response headers exceed \(limits.maxHeaderCount) fields or \(limits.maxHeaderBytes) bytes")
            return false
        }
        return true
    }

    private static func text(_ bytes: Slice<UnsafeRawBufferPointer>) -> String {
        var bytes = bytes
        while let first = bytes.first, first == 32 || first == 9 { bytes.removeFirst() }
        while let last = bytes.last, last == 32 || last == 9 { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func headComplete() -> Bool {
        let complete = ResponseHead(status: status, headers: headers)
        head = complete
        clock.responseProgressed(bytes: 0, now: monotonicNanoseconds())
        hint.lower(to: clock.nextCheck)
        decision = submission.sink.head(complete)
        guard case .stop = decision else { return true }
        // Without a body nothing is left to stop, and the connection can be used again.
        let hasBody =
            request.method != .head && status != 204 && status != 304 && complete.contentLength != 0
        if hasBody { ending = .stopped }
        return !hasBody
    }

    /// One piece of body. The number of bytes taken, or `CURL_WRITEFUNC_PAUSE`; anything else ends the exchange.
    func body(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count = UInt64(bytes.count)
        clock.responseProgressed(bytes: count, now: monotonicNanoseconds())
        guard !bytes.isEmpty else { return 0 }
        switch decision {
        case .stop:
            ending = .stopped
            return 0
        case .collect(let limit, let truncating):
            let room = max(0, limit - collected.count)
            collected += bytes.prefix(room)
            bytesReceived += min(count, UInt64(room))
            guard bytes.count > room else { return bytes.count }
            ending = truncating ? .stopped : .failed(.bodyTooLarge, "body exceeds \(limit) bytes")
            return 0
        case .deliver(let limit):
            guard count <= limit - bytesReceived else {
                ending = .failed(.bodyTooLarge, "body exceeds \(limit) bytes")
                return 0
            }
            switch submission.sink.body(bytes) {
            case .continue:
                bytesReceived += count
                return bytes.count
            case .pause:
                clock.paused()
                return Int(CURL_WRITEFUNC_PAUSE)
            case .stop:
                bytesReceived += count
                ending = .stopped
                return 0
            }
        }
    }

    // MARK: Upload

    /// Fills `buffer` with the next bytes of the request body: their number, or -1 on a read error.
    func upload(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        clock.requestProgressed(now: monotonicNanoseconds())
        hint.lower(to: clock.nextCheck)
        switch request.body {
        case .none:
            return 0
        case .bytes(let bytes):
            let count = min(buffer.count, bytes.count - Int(uploaded))
            bytes.withUnsafeBytes {
                buffer.copyMemory(from: .init(rebasing: $0[Int(uploaded)..<Int(uploaded) + count]))
            }
            uploaded += Int64(count)
            return count
        case .file(let descriptor, let offset, let length):
            let wanted = Int(min(Int64(buffer.count), length - uploaded))
            guard wanted > 0 else { return 0 }
            var count: Int
            repeat {
                count = pread(descriptor, buffer.baseAddress, wanted, off_t(offset + uploaded))
            } while count < 0 && errno == EINTR
            guard count > 0 else {
                let why = count == 0 ? "file is shorter than announced" : "pread: errno \(errno)"
                ending = .failed(.uploadRead, "reading the upload at \(offset + uploaded): \(why)")
                return -1
            }
            uploaded += Int64(count)
            return count
        }
    }

    /// libcurl sends the body again from `offset` (it found a reused connection dead).
    func rewind(to offset: Int64) { uploaded = offset }

    var uploadLength: Int64 {
        switch request.body {
        case .none: 0
        case .bytes(let bytes): Int64(bytes.count)
        case .file(_, _, let length): length
        }
    }
}
