import ChunkModel
import HTTPTransfer
import OCISpec
import TestSupport
import Testing

@testable import RegistryClient

/// `#expect(value == expected)` for values that come from mutating calls, which the macro cannot take apart.
func equal<T: Equatable>(_ value: T, _ expected: T, _ location: SourceLocation = #_sourceLocation) {
    #expect(value == expected, sourceLocation: location)
}

@Suite struct RetryPolicyTests {
    let policy = RetryPolicy(
        maxAttempts: 4, baseDelay: .milliseconds(100), maxDelay: .seconds(1), maxRetryAfter: .seconds(10))

    @Test func delaysDoubleUpToTheCapWithJitterInTheUpperHalf() {
        for (attempt, ceiling) in [(2, 100), (3, 200), (4, 400), (5, 800), (6, 1000), (60, 1000), (Int.max, 1000)] {
            let low = policy.delay(beforeAttempt: attempt, retryAfter: nil, random: 0)
            let high = policy.delay(beforeAttempt: attempt, retryAfter: nil, random: .max)
            #expect(low == .milliseconds(ceiling) / 2)
            #expect(high > .milliseconds(ceiling) * 0.99 && high <= .milliseconds(ceiling))
        }
    }

    @Test func retryAfterWinsWhenLongerAndIsCapped() {
        #expect(policy.delay(beforeAttempt: 2, retryAfter: .seconds(3), random: 0) == .seconds(3))
        #expect(policy.delay(beforeAttempt: 2, retryAfter: .seconds(3600), random: 0) == .seconds(10))
        #expect(policy.delay(beforeAttempt: 2, retryAfter: .zero, random: 0) == .milliseconds(50))
    }
}

@Suite struct HostHealthTests {
    let policy = RetryPolicy(budgetPercent: 10, budgetCap: 2, circuitThreshold: 3, circuitOpenTime: .seconds(5))

    @Test func extraRequestsStayWithinTheBudget() {
        var health = HostHealth(policy: policy)
        var first = 0
        var extra = 0
        // The host never gets it right at once, yet answers: retries are wanted every time.
        for _ in 0..<1000 {
            equal(health.admit(now: .zero), .go)
            first += 1
            while health.admitRetry() {
                equal(health.admit(now: .zero), .go)
                extra += 1
            }
        }
        #expect(extra <= first / 10 + policy.budgetCap)
        #expect(extra >= first / 10 - 1)
    }

    @Test func theCircuitOpensAfterFailuresInARowAndOneProbeClosesIt() {
        var health = HostHealth(policy: policy)
        equal(health.failed(now: .zero), false)
        equal(health.failed(now: .zero), false)
        equal(health.succeeded(), false)
        equal(health.failed(now: .zero), false)
        equal(health.failed(now: .zero), false)
        equal(health.failed(now: .seconds(1)), true)
        #expect(health.isOpen)
        equal(health.admit(now: .seconds(2)), .refuse(.seconds(4)))
        equal(health.admitRetry(), false)
        equal(health.admit(now: .seconds(6)), .go)
        // Only one probe at a time.
        equal(health.admit(now: .seconds(6)), .refuse(.seconds(5)))
        equal(health.failed(now: .seconds(7)), false)
        equal(health.admit(now: .seconds(8)), .refuse(.seconds(4)))
        equal(health.admit(now: .seconds(12)), .go)
        equal(health.succeeded(), true)
        #expect(!health.isOpen)
        equal(health.admit(now: .seconds(12)), .go)
    }

    @Test func aProbeThatNeverReportsDoesNotHoldTheCircuit() {
        var health = HostHealth(policy: policy)
        for _ in 0..<3 { _ = health.failed(now: .zero) }
        equal(health.admit(now: .seconds(5)), .go)
        equal(health.admit(now: .seconds(9)), .refuse(.seconds(1)))
        equal(health.admit(now: .seconds(10)), .go)
    }
}

@Suite struct RedirectPolicyTests {
    /// Where a chain from `start` that follows `locations` ends, or nil when it is refused.
    func end(_ start: String, _ locations: String...) throws -> RedirectPolicy? {
        let url = try HTTPURL(start)
        var policy = RedirectPolicy(start: url, endpoint: url.origin)
        for location in locations {
            do throws(RegistryError) {
                try policy.follow(location)
            } catch {
                #expect(error.code == .redirectRefused)
                return nil
            }
        }
        return policy
    }

    func allows(_ policy: RedirectPolicy?, _ address: String) -> Bool {
        guard case .only(let rule) = policy?.addressPolicy else { return true }
        return rule(address)
    }

    @Test func credentialsStayOnTheOriginAndAreLostForGood() throws {
        #expect(try end("https://r.example/a", "/b")?.keepsCredentials == true)
        for other in ["https://cdn.example/x", "https://r.example:444/x", "https://sub.r.example/x"] {
            #expect(try end("https://r.example/a", other)?.keepsCredentials == false)
            #expect(try end("https://r.example/a", other, "https://r.example/b")?.keepsCredentials == false)
        }
        // Upgrading the scheme is another origin.
        #expect(try end("http://r.example/a", "https://r.example/a")?.keepsCredentials == false)
    }

    @Test func fromHTTPSToHTTPIsRefused() throws {
        #expect(try end("https://r.example/a", "http://r.example/a") == nil)
        #expect(try end("http://r.example/a", "https://cdn.example/a", "http://cdn.example/b") == nil)
        #expect(try end("http://r.example/a", "http://cdn.example/a") != nil)
    }

    @Test func loopsAndLongChainsAreRefused() throws {
        #expect(try end("https://r.example/a", "/b", "/a") == nil)
        #expect(try end("https://r.example/a", "/a") == nil)
        #expect(try end("https://r.example/a", "/1", "/2", "/3", "/4", "/5") != nil)
        #expect(try end("https://r.example/a", "/1", "/2", "/3", "/4", "/5", "/6") == nil)
    }

    @Test(arguments: [
        "https://127.0.0.1/x", "https://127.1.2.3:8080/x", "https://[::1]/x", "https://localhost/x",
        "https://a.localhost/x",
        "https://169.254.169.254/latest/meta-data", "https://169.254.0.1/x", "https://[fe80::1]/x", "https://0.0.0.0/x",
        "https://[::ffff:127.0.0.1]/x", "https://[::]/x", "https://100.100.100.200/x", "https://[fd00:ec2::254]/x",
        "https://[64:ff9b::a9fe:a9fe]/x", "file:///etc/passwd", "https://user@cdn.example/x",
        "https://cdn.example/../x",
    ])
    func localAddressesAreRefused(location: String) throws {
        #expect(try end("https://r.example/a", location) == nil)
        #expect(try end("https://10.0.0.5:5000/a", location) == nil)
    }

    @Test func aRegistryOnLoopbackMayStayOnLoopbackOnly() throws {
        for start in ["http://127.0.0.1:5000/a", "http://localhost:5000/a", "http://[::1]:5000/a"] {
            #expect(try end(start, "http://127.0.0.1:6000/x") != nil)
            #expect(try end(start, "http://localhost:6000/x") != nil)
            #expect(try end(start, "http://169.254.169.254/x") == nil)
            #expect(try end(start, "http://169.254.0.1/x") == nil)
            #expect(try end(start, "http://0.0.0.0/x") == nil)
        }
        #expect(try end("http://169.254.10.10/a", "http://169.254.10.11/x") != nil)
        #expect(try end("http://169.254.10.10/a", "http://169.254.169.254/x") == nil)
        #expect(try end("http://169.254.10.10/a", "http://127.0.0.1/x") == nil)
    }

    @Test func theConnectedAddressIsJudgedWhateverTheNameWas() throws {
        let away = try end("https://r.example/a", "https://innocent.example/x")
        #expect(allows(away, "93.184.216.34"))
        #expect(allows(away, "10.1.2.3"))
        for address in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0", "garbage", ""]
        {
            #expect(!allows(away, address), "\(address)")
        }
        // On the registry's own origin the operator's choice of host counts, wherever it leads.
        #expect(allows(try end("https://r.example/a", "/b"), "127.0.0.1"))
        let local = try end("http://127.0.0.1:5000/a", "http://innocent.example/x")
        #expect(allows(local, "127.0.0.1"))
        #expect(!allows(local, "169.254.169.254"))
    }

    @Test func rememberedRedirectsExpireAndAreBounded() throws {
        let url = try HTTPURL("https://r.example/a")
        let endpoint = Endpoint(key: "r.example", origin: url.origin, prefix: "", isMirror: false)
        let policy = RedirectPolicy(start: url, endpoint: url.origin)
        var cache = RedirectCache()
        let start = ContinuousClock.now
        let key = RedirectCache.Key(endpoint: endpoint, target: "x")
        cache.store(policy, for: key, now: start)
        #expect(cache.find(key, now: start + .seconds(60)) != nil)
        #expect(cache.find(key, now: start + .seconds(120)) == nil)
        for number in 0..<1000 {
            cache.store(policy, for: RedirectCache.Key(endpoint: endpoint, target: "\(number)"), now: start)
        }
        #expect(cache.count <= RedirectCache.maxEntries)
    }
}

@Suite struct TokenRequestTests {
    func request(
        _ realm: String, credential: RegistryCredential? = .password(username: "u", password: "p w"),
        registry: String = "https://r.example", host: HostConfiguration = HostConfiguration(),
        hosts: [String: HostConfiguration] = [:]
    ) throws -> TokenRequest {
        let origin = try HTTPURL(registry).origin
        let endpoint = Endpoint(key: origin.authority, origin: origin, prefix: "", isMirror: false)
        return try TokenRequest(
            TokenKey(endpoint: endpoint, scopes: ["repository:a/b:pull"]), realm: realm, service: "s v",
            credential: credential, host: host, hosts: hosts)
    }

    @Test func scopesServiceAndCredentialsAreSent() throws {
        let request = try request("https://r.example:8443/token?x=1")
        #expect(
            request.chain.current.description
                == "https://r.example:8443/token?x=1&service=s%20v&scope=repository%3Aa%2Fb%3Apull&account=u")
        #expect(request.headers.first?.value == "Basic dTpwIHc=")
        let anonymous = try self.request("https://other.example/token", credential: nil)
        #expect(anonymous.headers.isEmpty)
        let refresh = try self.request("https://r.example/token", credential: .identityToken("id&t"))
        guard case .bytes(let form) = refresh.body else {
            Issue.record("no form")
            return
        }
        let text = String(decoding: form, as: UTF8.self)
        #expect(refresh.method == .post)
        #expect(text.contains("grant_type=refresh_token") && text.contains("refresh_token=id%26t"))
        #expect(!refresh.chain.current.target.contains("token="))
    }

    @Test(arguments: [
        "https://evil.example/token", "https://r.example.evil.example/token", "http://r.example/token",
        "https://u@r.example/t",
        "token", "", "file:///x",
    ])
    func credentialsGoNowhereElse(realm: String) {
        #expect { try request(realm) } throws: { ($0 as? RegistryError)?.code == .realmRefused }
    }

    @Test func configuredTokenServersAreTrusted() throws {
        let host = HostConfiguration(tokenServers: ["auth.example", "other.example:8443"])
        #expect(try request("https://auth.example/token", host: host).headers.count == 1)
        #expect(try request("https://other.example:8443/token", host: host).headers.count == 1)
        #expect(throws: RegistryError.self) { try request("https://other.example/token", host: host) }
        #expect(throws: RegistryError.self) { try request("http://auth.example/token", host: host) }
        let plain = ["auth.example": HostConfiguration(usesPlainHTTP: true)]
        #expect(try request("http://auth.example/token", host: host, hosts: plain).headers.count == 1)
    }

    @Test func aRealmIsNoWayToLocalAddresses() throws {
        for realm in ["https://127.0.0.1/t", "https://169.254.169.254/t", "https://localhost/t"] {
            #expect(throws: RegistryError.self) { try request(realm, credential: nil) }
        }
        let judged = try request("https://auth.example/t", credential: nil)
        guard case .only(let rule) = judged.chain.addressPolicy else {
            Issue.record("any address")
            return
        }
        #expect(!rule("127.0.0.1"))
    }

    @Test func tokensAreRenewedBeforeTheyExpireAndNeverMalformed() throws {
        let now = ContinuousClock.now
        let short = try #require(BearerToken(value: "t", lifetimeSeconds: 8, now: now))
        #expect(short.renewAt == now + .seconds(6) && short.expiresAt == now + .seconds(8))
        let long = try #require(BearerToken(value: "t", lifetimeSeconds: 3600, now: now))
        #expect(long.renewAt == now + .seconds(3570))
        #expect(BearerToken(value: "t", lifetimeSeconds: -5, now: now)?.expiresAt == now + .seconds(1))
        #expect(BearerToken(value: "t", lifetimeSeconds: .max, now: now)?.expiresAt == now + .seconds(86_400))
        #expect(BearerToken(value: "t", lifetimeSeconds: nil, now: now)?.expiresAt == now + .seconds(60))
        for value in ["", "a b", "a\r\nX: y", "é", String(repeating: "t", count: 16_385)] {
            #expect(BearerToken(value: value, lifetimeSeconds: 60, now: now) == nil)
        }
    }
}
