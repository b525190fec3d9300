import FoundationEssentials
import HTTPTransfer
import OCISpec

extension RegistryClient {
    /// Repeats `body` while its failures are retriable, the host's budget allows it and attempts are left.
    func retrying<T: Sendable>(
        attempts: Int, _ body: () async throws(CallFailure) -> T
    ) async throws(RegistryError) -> T {
        var attempt = 1
        while true {
            do throws(CallFailure) {
                return try await body()
            } catch {
                attempt += 1
                guard attempt <= attempts, try await waits(for: error, attempt: attempt) else { throw error.error }
            }
        }
    }

    /// Waits before attempt `attempt`; false when there is to be none.
    func waits(for failure: CallFailure, attempt: Int) async throws(RegistryError) -> Bool {
        guard failure.isRetriable, withHealth(failure.origin, { $0.admitRetry() }) else { return false }
        let delay = configuration.retry.delay(
            beforeAttempt: attempt, retryAfter: failure.retryAfter, random: UInt64.random(in: 0...UInt64.max))
        observer(.retry(host: failure.origin.authority, reason: failure.error.reason, delay: delay))
        do {
            try await Task.sleep(for: delay)
        } catch {
            throw RegistryError(.cancelled, "cancelled", transfer: .cancelled)
        }
        return true
    }

    /// Asks the endpoints of a registry in order until one answers. All but the last get one attempt; what the last
    /// says is thrown. `bypassingCaches` leaves the mirrors out.
    func overEndpoints<T: Sendable>(
        _ registry: String, bypassingCaches: Bool = false,
        _ body: (Endpoint, _ attempts: Int) async throws(RegistryError) -> T
    ) async throws(RegistryError) -> T {
        let endpoints =
            bypassingCaches
            ? [try configuration.origin(of: registry)] : try configuration.pullEndpoints(of: registry)
        for endpoint in endpoints.dropLast() {
            do throws(RegistryError) {
                return try await body(endpoint, 1)
            } catch {
                if error.code == .cancelled || error.code == .localFile { throw error }
            }
        }
        return try await body(endpoints[endpoints.count - 1], max(1, configuration.retry.maxAttempts))
    }

    /// A call with its retries whose response is collected; a status other than `expected` is an error.
    func document(
        _ call: RegistryCall, attempts: Int, limit: Int, expected: Set<Int> = [200]
    ) async throws(RegistryError) -> CallResult {
        let result = try await retrying(attempts: attempts) { () throws(CallFailure) in
            try await perform(
                call,
                sink: TransferSink(
                    head: { head in
                        expected.contains(head.status)
                            ? .collect(limit: limit, truncating: false) : .collect(limit: 16_384, truncating: true)
                    }, body: { _ in .stop }))
        }
        guard expected.contains(result.status) else { throw statusError(call, result) }
        return result
    }

    private struct ErrorBody: Decodable {
        struct Item: Decodable {
            let code: String?
            let message: String?
        }
        let errors: [Item]
    }

    /// The error for a status that ends a call, with the registry's own words (distribution spec "Error codes").
    func statusError(_ call: RegistryCall, _ result: CallResult) -> RegistryError {
        let status = result.status
        let code: RegistryError.Code =
            switch status {
            case 401, 403: .unauthorized
            case 404: .notFound
            case 429: .rateLimited
            case 500...: .serverError
            default: .unexpectedStatus
            }
        var words = ""
        if let body = try? JSONDecoder().decode(ErrorBody.self, from: Data(result.result.body)),
            let first = body.errors.first
        {
            let text = [first.code, first.message].compactMap { $0 }.joined(separator: ": ")
            words = ": " + OCISpecError.quote(text, limit: 200)
        }
        return RegistryError(
            code, "\(call.method.rawValue) \(result.url.redacted): status \(status)\(words)", status: status)
    }
}

/// Seconds since 1970.
func wallClockSeconds() -> Int64 { Int64(Date().timeIntervalSince1970) }
