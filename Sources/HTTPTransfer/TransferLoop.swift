import CCurl
import Glibc

/// The transfer thread: takes commands, drives libcurl's multi handle, answers.
///
/// Not Sendable: made and used on its own thread only.
final class TransferLoop {
    private let mailbox: Mailbox
    private let limits: TransferLimits
    private let hint = DeadlineHint()
    private var budget: ConnectionBudget
    /// Waiting and running exchanges.
    private var exchanges: [UInt64: Exchange] = [:]
    /// Easy handles to be used again: each keeps its TLS sessions.
    private var idleHandles: [UnsafeMutableRawPointer] = []
    private static let maxIdleHandles = 32
    /// The longest sleep without any exchange: libcurl closes idle connections then.
    private static let idlePoll = Duration.seconds(60)

    init(mailbox: Mailbox, limits: TransferLimits) {
        self.mailbox = mailbox
        self.limits = limits
        budget = ConnectionBudget(limits: limits)
        ccurl_multi_set_long(mailbox.multi, CURLMOPT_MAXCONNECTS, limits.maxIdleConnections)
        // HTTP/1.1 only; without this libcurl would wait for a connection to turn out to be multiplexed.
        ccurl_multi_set_long(mailbox.multi, CURLMOPT_PIPELINING, 0)
    }

    /// Runs until the mailbox says stop; then every exchange has been answered and libcurl's handles are freed.
    func run() {
        while true {
            let (commands, isStopping) = mailbox.take()
            for command in commands { handle(command) }
            if isStopping { break }
            var running: Int32 = 0
            curl_multi_perform(mailbox.multi, &running)
            let hasEnded = reap()
            expire()
            if hasEnded { continue }
            curl_multi_poll(mailbox.multi, nil, 0, pollMilliseconds(), nil)
        }
        // Ids in order, so that the answers come in order of submission.
        for id in exchanges.keys.sorted() { fail(id, .shutDown, "HTTP client is shut down") }
        for easy in idleHandles { curl_easy_cleanup(easy) }
        mailbox.close()
        for case .submit(let submission) in mailbox.take().commands {
            submission.complete(.failure(TransferError(.shutDown, "HTTP client is shut down")))
        }
        curl_multi_cleanup(mailbox.multi)
    }

    private func pollMilliseconds() -> Int32 {
        let now = monotonicNanoseconds()
        guard hint.next != .max else { return Int32(Self.idlePoll.clampedMilliseconds) }
        let wait = hint.next > now ? hint.next - now : 0
        return Int32(min((wait + 999_999) / 1_000_000, UInt64(Self.idlePoll.clampedMilliseconds)))
    }

    // MARK: Commands

    private func handle(_ command: TransferCommand) {
        switch command {
        case .submit(let submission):
            guard exchanges[submission.id] == nil else {
                submission.complete(.failure(TransferError(.invalidRequest, "this control already has an exchange")))
                return
            }
            let exchange = Exchange(submission, limits: limits, hint: hint)
            guard budget.enqueue(exchange.id, exchange.lane) else {
                submission.complete(
                    .failure(TransferError(.tooManyRequests, "\(limits.maxQueued) exchanges wait already")))
                return
            }
            exchanges[exchange.id] = exchange
            startWaiting(in: exchange.lane)
        case .resume(let id):
            guard let exchange = exchanges[id], let easy = exchange.easy else { return }
            exchange.resumed()
            // May call the body callback right here, which may pause again.
            curl_easy_pause(easy, CURLPAUSE_CONT)
        case .cancel(let id):
            fail(id, .cancelled, "cancelled")
        }
    }

    private func startWaiting(in lane: ConnectionBudget.Lane) {
        while let id = budget.start(lane) {
            guard let exchange = exchanges[id] else {
                budget.finish(lane)
                continue
            }
            exchange.started()
            do throws(TransferError) {
                try begin(exchange)
            } catch {
                // Not counted as started any more by `end`.
                end(exchange, .failure(error))
            }
        }
    }

    private func begin(_ exchange: Exchange) throws(TransferError) {
        guard let easy = idleHandles.popLast() ?? curl_easy_init() else {
            throw TransferError(.outOfMemory, "libcurl has no memory for a handle")
        }
        exchange.easy = easy
        try CurlSetup.apply(exchange, to: easy)
        let code = curl_multi_add_handle(mailbox.multi, easy)
        guard code == CURLM_OK else {
            throw TransferError(.other, "curl_multi_add_handle: \(String(cString: curl_multi_strerror(code)))")
        }
    }

    // MARK: Ends

    /// Answers what libcurl has finished; true when there was any, since others may start now.
    private func reap() -> Bool {
        var hasEnded = false
        var left: Int32 = 0
        while let message = curl_multi_info_read(mailbox.multi, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle,
                let exchange = exchange(of: easy)
            else { continue }
            hasEnded = true
            end(exchange, outcome(exchange, easy, ccurl_message_result(message)))
        }
        return hasEnded
    }

    private func exchange(of easy: UnsafeMutableRawPointer) -> Exchange? {
        var user: UnsafePointer<CChar>?
        guard ccurl_get_string(easy, CURLINFO_PRIVATE, &user) == CURLE_OK, let user else { return nil }
        return Unmanaged<Exchange>.fromOpaque(UnsafeRawPointer(user)).takeUnretainedValue()
    }

    private func expire() {
        let now = monotonicNanoseconds()
        guard now >= hint.next else { return }
        hint.next = .max
        var overdue: [(UInt64, TransferError.Code)] = []
        for (id, exchange) in exchanges {
            if let code = exchange.expired(now: now) { overdue.append((id, code)) }
            hint.lower(to: exchange.clock.nextCheck)
        }
        for (id, code) in overdue.sorted(by: { $0.0 < $1.0 }) {
            fail(id, code, code.rawValue.replacing("_", with: " "))
        }
    }

    private func fail(_ id: UInt64, _ code: TransferError.Code, _ why: String) {
        guard let exchange = exchanges[id] else { return }
        end(exchange, .failure(error(exchange, code, why)))
    }

    private func error(_ exchange: Exchange, _ code: TransferError.Code, _ why: String) -> TransferError {
        TransferError(
            code, "\(exchange.request.method.rawValue) \(exchange.lane.origin): \(why)",
            bytesDelivered: exchange.bytesReceived)
    }

    /// Frees the exchange's handle and place, answers it, and lets the next of its lane start.
    private func end(_ exchange: Exchange, _ result: Result<TransferResult, TransferError>) {
        exchanges[exchange.id] = nil
        if let easy = exchange.easy {
            // No effect, and no harm, on a handle that was never added.
            curl_multi_remove_handle(mailbox.multi, easy)
            exchange.easy = nil
            // A handle that failed early may still hold its receive buffer, and then refuses another size.
            if case .success = result, idleHandles.count < Self.maxIdleHandles {
                curl_easy_reset(easy)
                idleHandles.append(easy)
            } else {
                curl_easy_cleanup(easy)
            }
        }
        curl_slist_free_all(exchange.headerList)
        curl_slist_free_all(exchange.connectList)
        exchange.headerList = nil
        exchange.connectList = nil
        let wasWaiting = budget.remove(exchange.id, exchange.lane)
        if !wasWaiting { budget.finish(exchange.lane) }
        exchange.submission.complete(result)
        if !wasWaiting { startWaiting(in: exchange.lane) }
    }

    private func outcome(
        _ exchange: Exchange, _ easy: UnsafeMutableRawPointer, _ code: CURLcode
    ) -> Result<TransferResult, TransferError> {
        if case .failed(let code, let why) = exchange.ending { return .failure(error(exchange, code, why)) }
        var isStopped = false
        if case .stopped = exchange.ending { isStopped = true }
        guard let head = exchange.head, code == CURLE_OK || isStopped else {
            let text = String(cString: exchange.errorBuffer)
            let mapped = code == CURLE_OK ? .malformedResponse : TransferError.Code(code, exchange.clock.phase)
            return .failure(error(exchange, mapped, text.isEmpty ? CurlSetup.describe(code) : text))
        }
        var address: UnsafePointer<CChar>?
        ccurl_get_string(easy, CURLINFO_PRIMARY_IP, &address)
        var connects = 0
        ccurl_get_long(easy, CURLINFO_NUM_CONNECTS, &connects)
        // For a unix socket libcurl gives its path here.
        let remote = exchange.request.unixSocketPath == nil ? address.map { String(cString: $0) } : nil
        return .success(
            TransferResult(
                head: head, body: exchange.collected, isStopped: isStopped, bytesReceived: exchange.bytesReceived,
                remoteAddress: remote?.isEmpty == false ? remote : nil, isConnectionReused: connects == 0,
                elapsed: .nanoseconds(Int64(clamping: monotonicNanoseconds() &- exchange.submission.submitted))))
    }
}

extension TransferError.Code {
    /// libcurl's code in our words; a time-out of libcurl itself is the connection's, the others are ours.
    init(_ code: CURLcode, _ phase: ExchangeClock.Phase) {
        switch code {
        case CURLE_COULDNT_RESOLVE_HOST: self = .nameResolution
        case CURLE_COULDNT_RESOLVE_PROXY, CURLE_PROXY: self = .proxy
        case CURLE_COULDNT_CONNECT: self = .connect
        case CURLE_OPERATION_TIMEDOUT: self = phase == .connecting ? .connectTimeout : .progressTimeout
        case CURLE_SSL_CONNECT_ERROR, CURLE_SSL_CIPHER, CURLE_USE_SSL_FAILED: self = .tls
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_CERTPROBLEM, CURLE_SSL_ISSUER_ERROR:
            self = .certificate
        case CURLE_PARTIAL_FILE: self = .shortBody
        case CURLE_RECV_ERROR, CURLE_SEND_ERROR, CURLE_GOT_NOTHING: self = .connectionReset
        case CURLE_WEIRD_SERVER_REPLY, CURLE_UNSUPPORTED_PROTOCOL, CURLE_BAD_CONTENT_ENCODING,
            CURLE_HTTP_RETURNED_ERROR, CURLE_FILESIZE_EXCEEDED:
            self = .malformedResponse
        case CURLE_READ_ERROR: self = .uploadRead
        case CURLE_URL_MALFORMAT: self = .invalidRequest
        case CURLE_OUT_OF_MEMORY: self = .outOfMemory
        default: self = .other
        }
    }
}

/// What the new thread takes over from the one that made it.
private final class ThreadStart: Sendable {
    let mailbox: Mailbox
    let limits: TransferLimits
    init(mailbox: Mailbox, limits: TransferLimits) {
        self.mailbox = mailbox
        self.limits = limits
    }
}

/// The thread's entry: a top-level function, see CurlCallbacks.swift.
private func transferThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    let start = Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue()
    TransferLoop(mailbox: start.mailbox, limits: start.limits).run()
    return nil
}

/// Starts the transfer thread, detached, with every signal blocked: a SIGPIPE raised by OpenSSL's write(2) then stays
/// pending there and the write says EPIPE.
func startTransferThread(mailbox: Mailbox, limits: TransferLimits) {
    var all = sigset_t()
    var before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    // 512 KiB: libcurl and OpenSSL need less than 100 KiB of stack; the default reserves 8 MiB.
    pthread_attr_setstacksize(&attributes, 512 << 10)
    let start = Unmanaged.passRetained(ThreadStart(mailbox: mailbox, limits: limits))
    var thread = pthread_t()
    guard pthread_create(&thread, &attributes, transferThread, start.toOpaque()) == 0 else {
        fatalError("no thread for HTTP transfers: errno \(errno)")
    }
}
