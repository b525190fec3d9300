import FoundationEssentials
import HTTPTransfer
import OCISpec
import Synchronization

/// A bearer token and how long it lasts, on the monotonic clock. Pure.
struct BearerToken: Sendable, Equatable {
    let value: String
    /// From here on a new one is fetched before use; this one still serves when that fails.
    let renewAt: ContinuousClock.Instant
    let expiresAt: ContinuousClock.Instant

    /// Seconds when the server does not say (distribution `spec/auth/token.md`: 60).
    static let defaultLifetime: Int64 = 60
    static let maxLifetime: Int64 = 86_400
    /// Bytes of a token: it must fit a request header of common servers (8 to 16 KiB).
    static let maxLength = 16_384

    /// nil when the value could not go into a header.
    init?(value: String, lifetimeSeconds: Int64?, now: ContinuousClock.Instant) {
        guard (1...Self.maxLength).contains(value.utf8.count), value.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
            return nil
        }
        let lifetime = min(max(lifetimeSeconds ?? Self.defaultLifetime, 1), Self.maxLifetime)
        self.value = value
        expiresAt = now + .seconds(lifetime)
        // A quarter of a short life, 30 s of a long one: more than a request takes, clock skew included.
        renewAt = expiresAt - min(.seconds(lifetime) / 4, .seconds(30))
    }
}

/// What credentials and tokens are kept by.
struct TokenKey: Hashable, Sendable {
    let endpoint: Endpoint
    /// Sorted.
    let scopes: [String]
}

/// Answers challenges and keeps what it learnt: the scheme of each endpoint and a token for each scope.
///
/// Safe from any thread. One token request at a time for each endpoint and scope; all who need it wait for that one.
final class Authenticator: Sendable {
    private enum Scheme {
        case basic
        case bearer(realm: String, service: String?)
    }

    private struct State {
        var schemes: [Endpoint: Scheme] = [:]
        var basic: [Endpoint: String] = [:]
        var tokens: [TokenKey: BearerToken] = [:]
        var flights: [TokenKey: Task<Result<BearerToken, RegistryError>, Never>] = [:]
    }

    /// Tokens kept; an agent with 100 images uses about as many.
    private static let maxTokens = 1024

    private let state = Mutex(State())
    private let store: CredentialStore

    init(configuration: RegistryConfiguration) { store = CredentialStore(configuration: configuration) }

    /// Performs a token request.
    typealias Fetch = @Sendable (TokenRequest) async -> Result<BearerToken, RegistryError>

    /// The Authorization value to send without having been asked: nil until the endpoint's scheme is known.
    func known(_ key: TokenKey, fetch: @escaping Fetch) async throws(RegistryError) -> String? {
        let (scheme, basic, token) = state.withLock {
            ($0.schemes[key.endpoint], $0.basic[key.endpoint], $0.tokens[key])
        }
        switch scheme {
        case nil: return nil
        case .basic: return basic
        case .bearer(let realm, let service):
            let now = ContinuousClock.now
            if let token, now < token.renewAt { return "Bearer " + token.value }
            do throws(RegistryError) {
                return "Bearer " + (try await newToken(key, realm: realm, service: service, fetch: fetch)).value
            } catch {
                // The old one is good until it expires.
                if let token, ContinuousClock.now < token.expiresAt { return "Bearer " + token.value }
                throw error
            }
        }
    }

    /// The Authorization value that answers a 401. `rejected` is what was sent and refused: it is never given back.
    func answer(
        _ challenges: [AuthChallenge], _ key: TokenKey, rejected: String?, fetch: @escaping Fetch
    ) async throws(RegistryError) -> String {
        for challenge in challenges {
            switch challenge {
            case .bearer(let realm, let service, _, _):
                let kept = state.withLock { state -> BearerToken? in
                    state.schemes[key.endpoint] = .bearer(realm: realm, service: service)
                    // Somebody else may have renewed it since.
                    guard let token = state.tokens[key], "Bearer " + token.value != rejected else {
                        state.tokens[key] = nil
                        return nil
                    }
                    return token
                }
                if let kept { return "Bearer " + kept.value }
                return "Bearer " + (try await newToken(key, realm: realm, service: service, fetch: fetch)).value
            case .basic:
                guard case .password(let username, let password) = try await credential(key.endpoint) else { continue }
                let value = "Basic " + Data((username + ":" + password).utf8).base64EncodedString()
                guard value != rejected else {
                    throw RegistryError(
                        .unauthorized, "\(key.endpoint.key) refuses the password of \(OCISpecError.quote(username))",
                        status: 401)
                }
                state.withLock { state in
                    state.schemes[key.endpoint] = .basic
                    state.basic[key.endpoint] = value
                }
                return value
            }
        }
        throw RegistryError(
            .unauthorized, "\(key.endpoint.key) asks for authentication and no credential for it is configured",
            status: 401)
    }

    /// Whether no credential is configured for an endpoint; false when that cannot be read. Blocks.
    func hasNone(_ endpoint: Endpoint) -> Bool {
        do throws(RegistryError) { return try store.credential(for: endpoint.key) == nil } catch { return false }
    }

    private func credential(_ endpoint: Endpoint) async throws(RegistryError) -> RegistryCredential? {
        let store = store
        let result = await onOwnThread { () -> Result<RegistryCredential?, RegistryError> in
            do throws(RegistryError) {
                return .success(try store.credential(for: endpoint.key))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// Joins the token request under way for the key, or makes one.
    private func newToken(
        _ key: TokenKey, realm: String, service: String?, fetch: @escaping Fetch
    ) async throws(RegistryError) -> BearerToken {
        let flight = state.withLock { state in
            if let flight = state.flights[key] { return flight }
            let flight = Task { await self.requestToken(key, realm: realm, service: service, fetch: fetch) }
            state.flights[key] = flight
            return flight
        }
        return try await flight.value.get()
    }

    private func requestToken(
        _ key: TokenKey, realm: String, service: String?, fetch: Fetch
    ) async -> Result<BearerToken, RegistryError> {
        let result: Result<BearerToken, RegistryError>
        do throws(RegistryError) {
            let credential = try await credential(key.endpoint)
            if case .bearer(let ready) = credential {
                let token = BearerToken(value: ready, lifetimeSeconds: BearerToken.maxLifetime, now: .now)
                result =
                    token.map { .success($0) }
                    ?? .failure(RegistryError(.credentials, "the bearer token of \(key.endpoint.key) is malformed"))
            } else {
                let request = try TokenRequest(
                    key, realm: realm, service: service, credential: credential,
                    host: store.configuration.host(key.endpoint.key), hosts: store.configuration.hosts)
                result = await fetch(request)
            }
        } catch {
            result = .failure(error)
        }
        state.withLock { state in
            state.flights[key] = nil
            guard case .success(let token) = result else { return }
            if state.tokens.count >= Self.maxTokens {
                state.tokens = state.tokens.filter { $0.value.expiresAt > .now }
                if state.tokens.count >= Self.maxTokens { state.tokens = [:] }
            }
            state.tokens[key] = token
        }
        return result
    }
}

/// One request to a token server, checked against the realm rule (distribution `spec/auth/token.md`, `oauth.md`).
struct TokenRequest: Sendable {
    let endpoint: Endpoint
    /// Leads from the registry to the token server: its address is judged as a redirect's would be.
    let chain: RedirectPolicy
    let method: TransferRequest.Method
    let headers: [(name: String, value: String)]
    let body: TransferRequest.Body

    /// The realm is foreign input: credentials go only to the registry's own host or to a configured token server, and
    /// over http only when the registry itself is plain http or the server is configured so.
    init(
        _ key: TokenKey, realm: String, service: String?, credential: RegistryCredential?, host: HostConfiguration,
        hosts: [String: HostConfiguration]
    ) throws(RegistryError) {
        endpoint = key.endpoint
        let url: HTTPURL
        do throws(OCISpecError) {
            url = try HTTPURL(realm)
        } catch {
            throw RegistryError(.realmRefused, "token realm of \(key.endpoint.key): \(error.message)")
        }
        let authority = url.origin.authority
        let isPlainAllowed = key.endpoint.origin.scheme == .http || hosts[authority]?.usesPlainHTTP == true
        guard url.origin.scheme == .https || isPlainAllowed else {
            throw RegistryError(.realmRefused, "token realm \(url.redacted) of \(key.endpoint.key) is not https")
        }
        let isTrusted =
            url.origin.host == key.endpoint.origin.host
            || host.tokenServers.contains { $0.lowercased() == authority || $0.lowercased() == url.origin.host }
        guard credential == nil || isTrusted else {
            throw RegistryError(
                .realmRefused,
                "\(key.endpoint.key) sends us to the token server \(authority), which is not among its configured "
                    + "token servers: credentials are not sent there")
        }
        var query: [(String, String)] = []
        if let service { query.append(("service", service)) }
        for scope in key.scopes { query.append(("scope", scope)) }
        let encode: ([(String, String)]) -> String = { pairs in
            pairs.map { $0 + "=" + HTTPURL.encodeQueryValue($1) }.joined(separator: "&")
        }
        if case .identityToken(let token) = credential {
            var form = query.filter { $0.0 != "scope" }
            form.append(("scope", key.scopes.joined(separator: " ")))
            form += [("grant_type", "refresh_token"), ("client_id", "chunkd"), ("refresh_token", token)]
            chain = try Self.chain(key.endpoint, to: url, isTrusted: isTrusted)
            method = .post
            headers = [("Content-Type", "application/x-www-form-urlencoded")]
            body = .bytes(Array(encode(form).utf8))
            return
        }
        var headers: [(name: String, value: String)] = []
        if case .password(let username, let password) = credential {
            query.append(("account", username))
            headers.append(("Authorization", "Basic " + Data((username + ":" + password).utf8).base64EncodedString()))
        }
        let separator = url.target.contains("?") ? "&" : "?"
        let target = url.target + (query.isEmpty ? "" : separator + encode(query))
        guard let full = HTTPURL(origin: url.origin, target: target) else {
            throw RegistryError(.realmRefused, "token realm \(url.redacted) cannot take a query")
        }
        chain = try Self.chain(key.endpoint, to: full, isTrusted: isTrusted)
        method = .get
        self.headers = headers
        body = .none
    }

    private static func chain(
        _ endpoint: Endpoint, to url: HTTPURL, isTrusted: Bool
    ) throws(RegistryError) -> RedirectPolicy {
        // A configured server, or the registry's own host, may have any address.
        if isTrusted { return RedirectPolicy(start: url, endpoint: url.origin) }
        var chain = RedirectPolicy(endpoint: endpoint.origin)
        do throws(RegistryError) {
            try chain.follow(url.description)
        } catch {
            throw RegistryError(.realmRefused, "token realm of \(endpoint.key): \(error.message)")
        }
        return chain
    }
}
