import HTTPTransfer
import OCISpec
import Synchronization

/// Client of the OCI distribution protocol over libcurl: manifests and blobs in Manifests.swift and BlobReads.swift,
/// pushing in Pushes.swift.
///
/// Safe from any thread. It keeps, in memory only: the authentication scheme of each endpoint and its tokens, where
/// blobs were redirected to, and the health of each host. Nothing that a registry says is trusted beyond a limit:
/// manifests and whole blobs are hashed, ranges are checked for place and length but **not** hashed.
package final class RegistryClient: Sendable {
    let configuration: RegistryConfiguration
    let observer: @Sendable (RegistryEvent) -> Void
    let transfers: TransferClient
    let authenticator: Authenticator
    let redirects = Mutex(RedirectCache())
    let health = Mutex<[HTTPURL.Origin: HostHealth]>([:])
    /// Repositories whose endpoint was found to have no referrers API, and when.
    let withoutReferrers = Mutex<[RedirectCache.Key: ContinuousClock.Instant]>([:])
    let started = ContinuousClock.now

    /// Starts the client's transfer thread. The observer is called on whatever thread something happens and must not
    /// block.
    package init(
        configuration: RegistryConfiguration, observer: @escaping @Sendable (RegistryEvent) -> Void = { _ in }
    ) {
        self.configuration = configuration
        self.observer = observer
        transfers = TransferClient(limits: configuration.limits)
        authenticator = Authenticator(configuration: configuration)
    }

    /// A client that shows other credentials, on the transfer thread and connections of `other`. It has no state in common
    /// with it: no token, scheme or redirect of one is ever used by the other.
    package init(_ other: RegistryClient, showing credentials: RegistryConfiguration.Credentials) {
        var configuration = other.configuration
        configuration.credentials = credentials
        self.configuration = configuration
        observer = other.observer
        transfers = other.transfers
        authenticator = Authenticator(configuration: configuration)
    }

    /// Makes a control that resumes or cancels a `blobRange`.
    package func makeControl() -> TransferControl { transfers.makeControl() }

    /// Whether pulls from a registry show no credential of any kind: no password, token or client certificate is
    /// configured for it or for a mirror of it. False when that cannot be told.
    package func isAnonymous(_ reference: Reference) async -> Bool {
        let (configuration, authenticator) = (configuration, authenticator)
        return await onOwnThread {
            guard let endpoints = try? configuration.pullEndpoints(of: reference.registry) else { return false }
            return endpoints.allSatisfy { endpoint in
                configuration.host(endpoint.key).clientCertificateFile == nil && authenticator.hasNone(endpoint)
            }
        }
    }

    /// Ends the transfer thread; operations under way fail.
    package func shutDown() async { await transfers.shutDown() }

    private struct TokenAnswer: Decodable {
        let token: String?
        let accessToken: String?
        let expiresIn: Int64?

        private enum CodingKeys: String, CodingKey {
            case token
            case accessToken = "access_token"
            case expiresIn = "expires_in"
        }
    }

    /// Bytes of a token server's answer.
    private static let maxTokenAnswer = 65_536

    /// Performs a token request: no redirects, no authentication of its own, two attempts.
    @Sendable func fetchToken(_ request: TokenRequest) async -> Result<BearerToken, RegistryError> {
        let call = RegistryCall(
            method: request.method, endpoint: request.endpoint, chain: request.chain, headers: request.headers,
            body: request.body, scopes: [], operation: .token, isAuthenticated: false)
        do throws(RegistryError) {
            let sent = ContinuousClock.now
            let result = try await document(call, attempts: 2, limit: Self.maxTokenAnswer)
            let answer = try OCIJSON.decode(TokenAnswer.self, from: result.result.body)
            guard let value = answer.token ?? answer.accessToken,
                let token = BearerToken(value: value, lifetimeSeconds: answer.expiresIn, now: sent)
            else {
                throw RegistryError(
                    .malformedResponse, "\(request.chain.current.redacted) answered without a usable token")
            }
            return .success(token)
        } catch {
            return .failure(error)
        }
    }
}
