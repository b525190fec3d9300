import HTTPTransfer
import OCISpec

/// Where a registry may send us, and what goes along. Pure.
///
/// A redirect (or an upload's Location) is foreign input that makes this node open a connection, so:
/// 1. at most `maxHops`, and never to a URL that was visited;
/// 2. never from https to http;
/// 3. the endpoint's own origin (scheme, host **and** port) is always allowed; it alone keeps the credentials, and not
///    any more once the chain has left it;
/// 4. elsewhere, loopback and link-local addresses are refused unless the endpoint's own host *is written as* such an
///    address (a test or single-node registry on 127.0.0.1); instance metadata, unspecified and multicast addresses are
///    refused always. For a name the connected address is judged, by `AddressPolicy`, before anything is sent.
struct RedirectPolicy {
    static let maxHops = 5

    /// The endpoint the chain started at.
    let endpoint: HTTPURL.Origin
    private(set) var visited: [HTTPURL]
    /// True while every hop stayed on the endpoint's origin.
    private(set) var keepsCredentials: Bool

    init(start: HTTPURL, endpoint: HTTPURL.Origin) {
        self.endpoint = endpoint
        visited = [start]
        keepsCredentials = start.origin == endpoint
    }

    /// A chain that starts at the endpoint itself, not at a URL of it.
    init(endpoint: HTTPURL.Origin) {
        self.endpoint = endpoint
        visited = []
        keepsCredentials = true
    }

    /// Where the chain is now; the endpoint's root before the first hop.
    var current: HTTPURL { visited.last ?? HTTPURL(root: endpoint) }

    /// Goes on to `location`; `redirectRefused` says why not.
    mutating func follow(_ location: String) throws(RegistryError) {
        guard visited.count <= Self.maxHops else { throw refuse("more than \(Self.maxHops) redirects") }
        let next: HTTPURL
        do throws(OCISpecError) {
            next = try current.resolving(location)
        } catch {
            throw refuse(error.message)
        }
        guard !visited.contains(next) else { throw refuse("redirect loop at \(next.redacted)") }
        guard current.origin.scheme == .http || next.origin.scheme == .https else {
            throw refuse("redirect from https to \(next.redacted)")
        }
        if next.origin != endpoint {
            keepsCredentials = false
            if let scope = Self.literalScope(next.origin), !allows(scope) {
                throw refuse("redirect to \(scope.rawValue) address \(next.origin)")
            }
        }
        visited.append(next)
    }

    /// What the connection to `current` may lead to.
    var addressPolicy: AddressPolicy {
        guard current.origin != endpoint else { return .any }
        let policy = self
        return .only { address in IPAddress(address).map { policy.allows($0.scope) } ?? false }
    }

    private func allows(_ scope: IPAddress.Scope) -> Bool {
        switch scope {
        case .global: true
        case .loopback, .linkLocal: Self.literalScope(endpoint) == scope
        case .metadata, .unusable: false
        }
    }

    /// The scope of a host that is an address, or is by definition one (RFC 6761 section 6.3); nil for other names.
    private static func literalScope(_ origin: HTTPURL.Origin) -> IPAddress.Scope? {
        if let address = origin.address { return address.scope }
        return origin.host == "localhost" || origin.host.hasSuffix(".localhost") ? .loopback : nil
    }

    private func refuse(_ why: String) -> RegistryError { RegistryError(.redirectRefused, "\(endpoint): \(why)") }
}
