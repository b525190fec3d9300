import HTTPTransfer
import OCISpec
import TestSupport
import Testing

@testable import RegistryClient

/// Servers whose TLS is not what it must be. Each is refused before a request is sent, with an error that says why and
/// what to do, and nothing weaker is tried instead.
@Suite(.timeLimit(.minutes(2))) struct TLSRefusalTests {
    private let directory: TemporaryDirectory
    private let pki: TestPKI

    init() throws {
        directory = try TemporaryDirectory()
        pki = try TestPKI(in: directory)
    }

    /// A front on 127.0.0.1 that answers every request with 200, as a registry answers a ping.
    private func front(
        _ certificate: (certificate: String, key: String), more: String = ""
    ) throws -> (nginx: NginxFixture, host: String) {
        let port = try Ports.free()
        let nginx = try NginxFixture(
            port: port,
            servers: """
                server { listen 127.0.0.1:\(port) ssl; \(more)
                    ssl_certificate \(certificate.certificate); ssl_certificate_key \(certificate.key);
                    location / { return 200 "{}"; } }
                """)
        return (nginx, "127.0.0.1:\(port)")
    }

    private func good() throws -> (certificate: String, key: String) {
        try pki.issue("good", names: ["IP:127.0.0.1"])
    }

    private func client(_ host: String, caFile: String?, _ events: Events) -> RegistryClient {
        let configuration = HostConfiguration(
            credential: .password(username: "u", password: "secret"), caFile: caFile)
        return RegistryClient(
            configuration: RegistryConfiguration(
                hosts: [host: configuration], retry: RetryPolicy(maxAttempts: 3, baseDelay: .milliseconds(1)))
        ) { events.add($0) }
    }

    /// Asks in every way there is, and requires a refusal for `reason` whose words have all of `words`.
    private func expectRefusal(
        _ front: (nginx: NginxFixture, host: String), caFile: String?, _ reason: TransferError.Code, words: [String]
    ) async throws {
        let events = Events()
        let client = client(front.host, caFile: caFile, events)
        let reference = try Reference("\(front.host)/app:1")
        let image = try SampleImage(size: 1000)
        let calls: [@Sendable () async throws -> Void] = [
            { try await client.ping(registry: front.host) },
            { _ = try await client.manifest(reference) },
            { _ = try await client.push(.bytes(image.blob), digest: image.descriptor.digest, to: reference) },
            {
                _ = try await client.blobRange(
                    image.descriptor.digest, of: reference, range: 0..<100, totalSize: image.descriptor.size
                ) { _ in .stop }
            },
        ]
        for call in calls {
            let error = await #expect(throws: RegistryError.self) { try await call() }
            #expect(error?.transfer == reason)
            let said = error?.message ?? ""
            for word in words + [front.host] { #expect(said.contains(word), "\(said)") }
            #expect(!said.contains("secret"))
        }
        // Not one request, with TLS or without, and so no password.
        #expect(!events.results().contains("ok"))
        #expect(front.nginx.accessLog.isEmpty, "\(front.nginx.accessLog)")
    }

    @Test func aServerAsItShouldBeIsAccepted() async throws {
        let front = try front(try good())
        try await client(front.host, caFile: pki.caFile, Events()).ping(registry: front.host)
        // nginx writes the line when it has answered.
        #expect(await Wait.eventually(.seconds(10)) { front.nginx.accessLog.contains(" 200 ") })
    }

    @Test func anExpiredCertificate() async throws {
        let front = try front(try pki.issue("expired", names: ["IP:127.0.0.1"], days: -1))
        try await expectRefusal(front, caFile: pki.caFile, .certificate, words: ["expired", "clock"])
    }

    @Test func aCertificateForAnotherHost() async throws {
        let front = try front(try pki.issue("other", names: ["DNS:other.test", "IP:127.0.0.2"]))
        try await expectRefusal(front, caFile: pki.caFile, .certificate, words: ["name", "127.0.0.1", "caFile"])
    }

    @Test func aCAThatNobodyTrusts() async throws {
        let front = try front(try good())
        try await expectRefusal(front, caFile: nil, .certificate, words: ["issuer", "caFile"])
        let stranger = try TestPKI(in: try TemporaryDirectory())
        try await expectRefusal(front, caFile: stranger.caFile, .certificate, words: ["caFile"])
    }

    @Test func aServerThatSpeaksNothingNewerThanTLS11() async throws {
        // Debian's OpenSSL allows TLS 1.1 at security level 0 only.
        let front = try front(try good(), more: "ssl_protocols TLSv1.1; ssl_ciphers DEFAULT:@SECLEVEL=0;")
        let old = try Command.run(
            "sh", "-c", "openssl s_client -connect \(front.host) -tls1_1 -cipher DEFAULT:@SECLEVEL=0 </dev/null 2>&1")
        #expect(old.contains("TLSv1.1"), "the server does not even speak TLS 1.1: \(old)")
        try await expectRefusal(front, caFile: pki.caFile, .tls, words: ["protocol version", "TLS 1.2"])
    }
}
