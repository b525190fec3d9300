import HTTPTransfer
import OCISpec
import Synchronization

/// One request to an endpoint, before authentication, redirects and retries.
struct RegistryCall: Sendable {
    var method = TransferRequest.Method.get
    let endpoint: Endpoint
    /// Where to send it first.
    var chain: RedirectPolicy
    var headers: [(name: String, value: String)] = []
    var body = TransferRequest.Body.none
    var range: Range<UInt64>?
    /// What a token for it must allow, sorted.
    var scopes: [String]
    let operation: RegistryEvent.Operation
    var priority = TransferPriority.onDemand
    var bufferSize = TransferRequest.BufferSize.document
    var total: Duration? = RegistryCall.documentTime
    /// Remembers and reuses where the endpoint redirected this blob to.
    var redirectKey: RedirectCache.Key?
    var control: TransferControl?
    /// False for token requests: no Authorization of ours is added, 401 and redirects are results.
    var isAuthenticated = true

    var url: HTTPURL { chain.current }

    /// How long a request for a document may take in all.
    static let documentTime = Duration.seconds(60)
}

/// Why a call failed, and what the retry loop needs to know.
struct CallFailure: Error {
    let error: RegistryError
    /// Who failed: a registry, or what it redirected to.
    let origin: HTTPURL.Origin
    let isRetriable: Bool
    var retryAfter: Duration?
}

/// How a call ended.
struct CallResult: Sendable {
    let result: TransferResult
    /// The URL that answered.
    let url: HTTPURL
    let exchanges: Int

    var status: Int { result.head.status }
}

/// Where blobs were redirected to a short while ago, so that not every range asks the registry again.
/// Pure; `now` is an argument.
struct RedirectCache {
    struct Key: Hashable, Sendable {
        let endpoint: Endpoint
        let target: String
    }

    private struct Entry {
        let policy: RedirectPolicy
        let stored: ContinuousClock.Instant
    }

    /// Blobs remembered: 64 images of a few blobs each.
    static let maxEntries = 256
    /// Presigned URLs live for minutes at least; one that has expired before is noticed by its 403.
    static let lifetime = Duration.seconds(120)
    private var entries: [Key: Entry] = [:]

    mutating func store(_ policy: RedirectPolicy, for key: Key, now: ContinuousClock.Instant) {
        if entries.count >= Self.maxEntries {
            entries = entries.filter { now < $0.value.stored + Self.lifetime }
            if entries.count >= Self.maxEntries { entries = [:] }
        }
        entries[key] = Entry(policy: policy, stored: now)
    }

    mutating func find(_ key: Key, now: ContinuousClock.Instant) -> RedirectPolicy? {
        guard let entry = entries[key] else { return nil }
        guard now < entry.stored + Self.lifetime else {
            entries[key] = nil
            return nil
        }
        return entry.policy
    }

    mutating func remove(_ key: Key) { entries[key] = nil }
    var count: Int { entries.count }
}

extension RegistryClient {
    /// Bytes of an error response that are read for its message.
    private static var maxErrorBody: Int { 16_384 }
    /// Exchanges of one call: 5 redirects, twice for an expired one, and one answer to a challenge.
    private static var maxExchanges: Int { 2 * (RedirectPolicy.maxHops + 1) + 1 }

    /// Performs a call: authenticates, follows redirects, starts again at the registry when a remembered redirect has
    /// expired. `sink` sees only the response that counts. Statuses of 429 and 5xx, and failures of the transfer, are
    /// retriable failures; other statuses are results.
    func perform(_ call: RegistryCall, sink: TransferSink) async throws(CallFailure) -> CallResult {
        var chain = call.chain
        var isRemembered = false
        if let key = call.redirectKey, let known = redirects.withLock({ $0.find(key, now: .now) }) {
            (chain, isRemembered) = (known, true)
        }
        let tokenKey = TokenKey(endpoint: call.endpoint, scopes: call.scopes)
        var authorization = try await authorization(call, chain, tokenKey)
        var hasAnswered = false
        for exchange in 1...Self.maxExchanges {
            let result = try await send(call, chain, chain.keepsCredentials ? authorization : nil, sink)
            let done = CallResult(result: result, url: chain.current, exchanges: exchange)
            switch result.head.status {
            case 401 where chain.keepsCredentials && call.isAuthenticated:
                guard !hasAnswered else { return done }
                let challenges = AuthChallenge.parse(result.head.values("WWW-Authenticate"))
                let rejected = authorization
                authorization = try await asFailure(call) { () throws(RegistryError) in
                    try await authenticator.answer(challenges, tokenKey, rejected: rejected, fetch: fetchToken)
                }
                hasAnswered = true
            case 400..<500 where isRemembered && result.head.status != 416 && result.head.status != 429:
                // A presigned URL that has expired: start at the registry again.
                if let key = call.redirectKey { redirects.withLock { $0.remove(key) } }
                chain = call.chain
                isRemembered = false
                authorization = try await self.authorization(call, chain, tokenKey)
            case 301, 302, 303, 307, 308:
                guard call.isAuthenticated, call.method == .get || call.method == .head else { return done }
                guard let location = result.head.first("Location") else {
                    throw failure(
                        call, RegistryError(.malformedResponse, "\(chain.current.origin): redirect without Location"))
                }
                do throws(RegistryError) {
                    try chain.follow(location)
                } catch {
                    throw failure(call, error)
                }
            default:
                // Only what leaves the endpoint is worth remembering: a hop on the same origin costs a request of ours.
                if let key = call.redirectKey, !isRemembered, !chain.keepsCredentials, (200..<300).contains(done.status)
                {
                    redirects.withLock { $0.store(chain, for: key, now: .now) }
                }
                return done
            }
        }
        throw failure(
            call, RegistryError(.redirectRefused, "\(call.endpoint.origin): too many exchanges for one request"))
    }

    /// What to send before being asked, if anything.
    private func authorization(
        _ call: RegistryCall, _ chain: RedirectPolicy, _ key: TokenKey
    ) async throws(CallFailure) -> String? {
        guard call.isAuthenticated, chain.keepsCredentials else { return nil }
        return try await asFailure(call) { () throws(RegistryError) in
            try await authenticator.known(key, fetch: fetchToken)
        }
    }

    /// One exchange, counted in the host's health and told to the observer.
    private func send(
        _ call: RegistryCall, _ chain: RedirectPolicy, _ authorization: String?, _ sink: TransferSink
    ) async throws(CallFailure) -> TransferResult {
        let origin = chain.current.origin
        if case .refuse(let wait) = withHealth(origin, { $0.admit(now: self.now) }) {
            throw CallFailure(
                error: RegistryError(.circuitOpen, "\(origin) has failed too often; next attempt in \(wait)"),
                origin: origin, isRetriable: false)
        }
        var headers = call.headers + [("User-Agent", configuration.userAgent), ("Accept-Encoding", "identity")]
        if let authorization { headers.append(("Authorization", authorization)) }
        var timeouts = configuration.timeouts
        timeouts.total = call.total
        // What a registry sends us to has its own TLS settings; on the registry's host, and with none, it shares its.
        let isConfigured = configuration.hosts[origin.authority] != nil
        let sharesHost = origin.host == call.endpoint.origin.host && !isConfigured
        let request = TransferRequest(
            call.method, url: chain.current.description, headers: headers, body: call.body, range: call.range,
            priority: call.priority,
            security: configuration.security(sharesHost ? call.endpoint.key : origin.authority),
            proxy: configuration.proxy.proxy(forHTTPS: origin.scheme == .https, host: origin.host, port: origin.port),
            timeouts: timeouts, addressPolicy: chain.addressPolicy, bufferSize: call.bufferSize)
        let filtered = TransferSink(
            head: { head in
                switch head.status {
                case 300..<400, 401, 429, 500...: .collect(limit: Self.maxErrorBody, truncating: true)
                default: sink.head(head)
                }
            }, body: sink.body)
        let started = ContinuousClock.now
        let result: TransferResult
        do throws(TransferError) {
            result = try await transfers.perform(request, control: call.control, sink: filtered)
        } catch {
            note(call, origin, error.reason, error.bytesDelivered, ContinuousClock.now - started)
            // The sink's or our own doing says nothing about the host.
            if error.isTransient { fail(origin) }
            let code: RegistryError.Code =
                switch error.code {
                case .cancelled: .cancelled
                case .bodyTooLarge: .tooLarge
                default: .unreachable
                }
            throw CallFailure(
                error: RegistryError(code, error.message + Self.advice(on: error.code), transfer: error.code),
                origin: origin,
                isRetriable: error.isTransient)
        }
        return try judge(call, origin, result, ContinuousClock.now - started)
    }

    /// What to do about a failure whose own words do not say it.
    private static func advice(on code: TransferError.Code) -> String {
        switch code {
        case .certificate:
            ": check the server's certificate, this node's clock, and the registry's caFile (what it trusts instead of the system's)"
        case .tls: ": TLS 1.2 or later is needed, and a certificate of ours if the server asks for one"
        default: ""
        }
    }

    /// Statuses that say "again, later" become failures.
    private func judge(
        _ call: RegistryCall, _ origin: HTTPURL.Origin, _ result: TransferResult, _ elapsed: Duration
    ) throws(CallFailure) -> TransferResult {
        let status = result.head.status
        let label =
            switch status {
            case ..<400: "ok"
            case 401, 403: "unauthorized"
            case 404: "not_found"
            case 429: "rate_limited"
            case ..<500: "status_4xx"
            default: "status_5xx"
            }
        note(call, origin, label, result.bytesReceived, elapsed)
        guard status == 429 || status >= 500 else {
            if withHealth(origin, { $0.succeeded() }) { observer(.circuit(host: origin.authority, isOpen: false)) }
            return result
        }
        if status >= 500 { fail(origin) }
        let retryAfter = result.head.first("Retry-After").flatMap {
            RetryAfter.delay($0, now: wallClockSeconds(), limit: configuration.retry.maxRetryAfter)
        }
        throw CallFailure(
            error: statusError(call, CallResult(result: result, url: call.url, exchanges: 1)), origin: origin,
            isRetriable: status != 501 && status != 505, retryAfter: retryAfter)
    }

    private func note(
        _ call: RegistryCall, _ origin: HTTPURL.Origin, _ result: String, _ bytes: UInt64, _ elapsed: Duration
    ) {
        observer(
            .exchange(
                host: origin.authority, operation: call.operation, result: result, bytes: bytes, elapsed: elapsed))
    }

    private func fail(_ origin: HTTPURL.Origin) {
        if withHealth(origin, { $0.failed(now: self.now) }) { observer(.circuit(host: origin.authority, isOpen: true)) }
    }

    func failure(_ call: RegistryCall, _ error: RegistryError) -> CallFailure {
        CallFailure(error: error, origin: call.endpoint.origin, isRetriable: false)
    }

    private func asFailure<T>(
        _ call: RegistryCall, _ body: () async throws(RegistryError) -> T
    ) async throws(CallFailure) -> T {
        do throws(RegistryError) {
            return try await body()
        } catch {
            throw failure(call, error)
        }
    }

    // MARK: Health

    /// Origins whose health is remembered.
    private static var maxOrigins: Int { 1024 }

    func withHealth<T: Sendable>(_ origin: HTTPURL.Origin, _ body: (inout HostHealth) -> T) -> T {
        health.withLock { health in
            if health.count >= Self.maxOrigins, health[origin] == nil { health = [:] }
            return body(&health[origin, default: HostHealth(policy: configuration.retry)])
        }
    }

    /// Monotonic time since the client was made.
    var now: Duration { ContinuousClock.now - started }
}
