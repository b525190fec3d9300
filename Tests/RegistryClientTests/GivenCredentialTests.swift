import OCISpec
import TestSupport
import Testing

@testable import RegistryClient

@Suite("Credentials that somebody else shows") struct GivenCredentialTests {
    static let own = RegistryCredential.password(username: "own", password: "secret")
    static let given = RegistryCredential.password(username: "u", password: "p")

    func configuration(_ credentials: RegistryConfiguration.Credentials) -> RegistryConfiguration {
        var configuration = RegistryConfiguration(hosts: [
            "r.example": HostConfiguration(
                credential: Self.own, caFile: "/ca.crt", clientCertificateFile: "/c.crt", clientKeyFile: "/c.key"),
            "m.example": HostConfiguration(credential: Self.own),
        ])
        configuration.credentials = credentials
        return configuration
    }

    @Test("they are shown to their registry alone, and none of this node's to anybody")
    func onlyThese() throws {
        for credential in [Self.given, nil] {
            let configuration = configuration(.given(credential, registry: "r.example"))
            let store = CredentialStore(configuration: configuration)
            #expect(try store.credential(for: "r.example") == credential)
            #expect(try store.credential(for: "m.example") == nil)
            let host = configuration.host("r.example")
            #expect(host.clientCertificateFile == nil && host.clientKeyFile == nil && host.caFile == "/ca.crt")
        }
        let store = CredentialStore(configuration: configuration(.configured))
        #expect(try store.credential(for: "r.example") == Self.own)
    }

    @Test("a Basic header is read; others, halves and control characters are not")
    func basic() {
        #expect(RegistryCredential(basicAuthorization: "Basic dTpw") == Self.given)
        #expect(RegistryCredential(basicAuthorization: "basic  dTpw") == Self.given)
        #expect(
            RegistryCredential(basicAuthorization: "Basic dTpwOnE=") == .password(username: "u", password: "p:q"))
        for odd in [
            "", "Basic", "Basic ", "Bearer dTpw", "Basic dQ==", "Basic OnA=", "Basic dTo=", "Basic !!",
            "Basic dTpwCg==", "Basic /////w==", "Basic " + String(repeating: "dTpw", count: 2000),
        ] {
            #expect(RegistryCredential(basicAuthorization: odd) == nil, "\(odd.prefix(20))")
        }
    }

    @Test("the one registry that is served elsewhere is asked there")
    func elsewhere() throws {
        let configuration = RegistryConfiguration()
        #expect(try configuration.url(of: "docker.io") == "https://registry-1.docker.io")
        #expect(configuration.host("docker.io").tokenServers == ["auth.docker.io"])
        #expect(try configuration.url(of: "r.example:5000") == "https://r.example:5000")
        #expect(configuration.host("r.example:5000").tokenServers == [])
        #expect(throws: RegistryError.self) { try configuration.url(of: "a/b") }
    }
}
