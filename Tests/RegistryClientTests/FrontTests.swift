import ChunkModel
import HTTPTransfer
import Integrity
import OCISpec
import TestSupport
import Testing

@testable import RegistryClient

/// A real registry behind nginx with faults, behind mutual TLS, and behind proxies.
@Suite(.timeLimit(.minutes(2))) struct FrontTests {
    let registry: RegistryFixture
    let image: SampleImage
    let events = Events()

    init() throws {
        registry = try RegistryFixture.start()
        image = try SampleImage(size: 400_000, seed: 3)
    }

    func client(
        _ host: String, _ configuration: HostConfiguration,
        retry: RetryPolicy = RetryPolicy(baseDelay: .milliseconds(5)),
        proxy: ProxySettings = ProxySettings()
    ) -> RegistryClient {
        let events = events
        return RegistryClient(
            configuration: RegistryConfiguration(hosts: [host: configuration], proxy: proxy, retry: retry)
        ) { events.add($0) }
    }

    /// Starts nginx with one server that has `location` text, and pushes the image past it.
    func front(_ location: String, listen: String = "", more: String = "") async throws -> (NginxFixture, host: String)
    {
        let port = try Ports.free()
        let nginx = try NginxFixture(
            port: port,
            servers: """
                upstream registry { server \(registry.host); keepalive 8; }
                \(more)
                server { listen 127.0.0.1:\(port) \(listen); \(location) }
                """)
        let direct = client(registry.host, HostConfiguration(usesPlainHTTP: true))
        try await image.push(direct, to: Reference("\(registry.host)/app:1"))
        return (nginx, "127.0.0.1:\(port)")
    }

    /// Reads `count` ranges of the image and compares; the result of the last.
    @discardableResult
    func read(_ client: RegistryClient, _ host: String, count: Int = 1) async throws -> RangeResult {
        var result = RangeResult(host: "", exchanges: 0, isRangeIgnored: false)
        for number in 0..<count {
            let start = number * 1000
            let part = Bytes()
            result = try await client.blobRange(
                image.descriptor.digest, of: Reference("\(host)/app:1"), range: UInt64(start)..<UInt64(start + 200_000),
                totalSize: image.descriptor.size, sink: part.take)
            #expect(part.all == Array(image.blob[start..<start + 200_000]))
        }
        return result
    }

    @Test func aFrontThatIgnoresRange() async throws {
        let (nginx, host) = try await front(
            #"location / { proxy_set_header Range ""; max_ranges 0; proxy_pass http://registry; }"#)
        defer { nginx.stop() }
        let result = try await read(client(host, HostConfiguration(usesPlainHTTP: true)), host, count: 3)
        #expect(result.isRangeIgnored)
    }

    @Test func blobsOnASecondOriginThatRejectsAuthorization() async throws {
        let cdn = try Ports.free()
        let (nginx, host) = try await front(
            """
            location / {
                if ($http_authorization = "") { add_header WWW-Authenticate 'Basic realm="x"' always; return 401; }
                proxy_set_header Authorization ""; proxy_pass http://registry; }
            location ~ ^/v2/.*/blobs/sha256: {
                if ($http_authorization = "") { add_header WWW-Authenticate 'Basic realm="x"' always; return 401; }
                return 307 http://127.0.0.1:\(cdn)$request_uri?X-Signature=abc; }
            """,
            more: """
                server { listen 127.0.0.1:\(cdn); location / { if ($http_authorization) { return 400; }
                    proxy_pass http://registry; } }
                """)
        defer { nginx.stop() }
        let configuration = HostConfiguration(
            usesPlainHTTP: true, credential: .password(username: "u", password: "p"))
        let client = client(host, configuration)
        let result = try await read(client, host, count: 5)
        #expect(result.host == "127.0.0.1:\(cdn)")
        _ = try await client.imageManifest(Reference("\(host)/app:1"), platform: .current)
        // One redirect for five ranges, and never a credential at the second origin.
        // nginx writes a line when it has answered.
        #expect(await Wait.eventually(.seconds(10)) { nginx.accessLog.contains(" 307 ") })
        #expect(nginx.accessLog.split(separator: "\n").filter { $0.contains(" 307 ") }.count == 1)
        #expect(!nginx.accessLog.contains(" 400 "))
    }

    @Test func randomServerErrors() async throws {
        let (nginx, host) = try await front(
            "location / { if ($p503) { return 503; } proxy_pass http://registry; }",
            more: #"split_clients "$connection$connection_requests$msec" $p503 { 20% 1; * 0; }"#)
        defer { nginx.stop() }
        let policy = RetryPolicy(maxAttempts: 8, baseDelay: .milliseconds(1), budgetPercent: 100, budgetCap: 50)
        try await read(client(host, HostConfiguration(usesPlainHTTP: true), retry: policy), host, count: 40)
        #expect(events.results().contains("status_5xx"))
    }

    @Test func rateLimitsWithRetryAfter() async throws {
        let (nginx, host) = try await front(
            """
            location / { limit_req zone=rate burst=3 nodelay; limit_req_status 429; add_header Retry-After 1 always;
                proxy_pass http://registry; }
            """, more: "limit_req_zone $server_port zone=rate:1m rate=4r/s;")
        defer { nginx.stop() }
        let policy = RetryPolicy(maxAttempts: 8, budgetCap: 50)
        let client = client(host, HostConfiguration(usesPlainHTTP: true), retry: policy)
        // More at once than the limit lets through.
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<12 { group.addTask { try await self.read(client, host) } }
            try await group.waitForAll()
        }
        #expect(events.results().contains("rate_limited"))
    }

    @Test func mutualTLS() async throws {
        let directory = try TemporaryDirectory()
        let pki = try TestPKI(in: directory)
        let (nginx, host) = try await front(
            """
            ssl_certificate \(pki.certificateFile); ssl_certificate_key \(pki.keyFile);
            ssl_client_certificate \(pki.caFile); ssl_verify_client on;
            location / { proxy_pass http://registry; }
            """, listen: "ssl")
        defer { nginx.stop() }
        let configuration = HostConfiguration(
            caFile: pki.caFile, clientCertificateFile: pki.clientCertificateFile, clientKeyFile: pki.clientKeyFile)
        try await read(client(host, configuration), host, count: 2)
        do throws(RegistryError) {
            try await client(host, HostConfiguration(caFile: pki.caFile)).ping(registry: host)
            Issue.record("no client certificate, and yet let in")
        } catch {
            // nginx answers such a client with a 400.
            #expect(error.status == 400)
        }
        do throws(RegistryError) {
            try await client(host, HostConfiguration(caFile: pki.clientCertificateFile)).ping(registry: host)
            Issue.record("trusted by another CA")
        } catch {
            #expect(error.transfer == .certificate)
        }
    }

    @Test func plainHTTPGoesThroughAProxyUnlessExcluded() async throws {
        let (nginx, host) = try await front("location / { proxy_pass http://registry; }")
        defer { nginx.stop() }
        let name = "registry.test:5000"
        let proxy = ProxySettings(http: "http://\(host)", noProxy: ["other.test"])
        let through = client(name, HostConfiguration(usesPlainHTTP: true), proxy: proxy)
        try await read(through, name)
        #expect(
            await Wait.eventually(.seconds(10)) {
                nginx.accessLog.contains("http://registry.test:5000/v2/app/blobs/")
            })
        let excluded = client(
            name, HostConfiguration(usesPlainHTTP: true), retry: RetryPolicy(maxAttempts: 1),
            proxy: ProxySettings(http: "http://\(host)", noProxy: [".test"]))
        do {
            try await read(excluded, name)
            Issue.record("the proxy was used")
        } catch {
            #expect((error as? RegistryError)?.transfer == .nameResolution)
        }
    }

    @Test func httpsGoesThroughATunnelAndIsVerifiedEndToEnd() async throws {
        let secure = try RegistryFixture.start(tls: true, auth: .password)
        let proxy = try PythonServer.start(connectProxyScript, arguments: ["\(secure.port)"])
        let name = "registry.test"
        let settings = ProxySettings(https: "http://\(proxy.host)")
        let configuration = HostConfiguration(
            credential: .password(username: "u", password: "p"), caFile: secure.caFile)
        let client = client(name, configuration, proxy: settings)
        try await image.push(client, to: Reference("\(name)/app:1"))
        try await read(client, name)
        #expect(proxy.log.contains("CONNECT registry.test:443"))
        #expect(!proxy.log.contains("Authorization"))
        let stranger = self.client("other.test", HostConfiguration(caFile: secure.caFile), proxy: settings)
        do throws(RegistryError) {
            try await stranger.ping(registry: "other.test")
            Issue.record("a certificate for another name was accepted")
        } catch {
            #expect(error.transfer == .certificate)
        }
    }
}

/// Tunnels every CONNECT to one local port and prints the request.
private let connectProxyScript = """
    import socket, sys, threading
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    def pump(a, b):
        try:
            while True:
                data = a.recv(65536)
                if not data: break
                b.sendall(data)
        except OSError: pass
        finally:
            try: b.shutdown(socket.SHUT_WR)
            except OSError: pass
    def serve(c):
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            data = c.recv(4096)
            if not data: return
            head += data
        print(head.decode("latin1"), flush=True)
        upstream = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
        c.sendall(b"HTTP/1.1 200 Connection established\\r\\nX-Proxy: 1\\r\\n\\r\\n")
        threading.Thread(target=pump, args=(upstream, c), daemon=True).start()
        pump(c, upstream)
    while True:
        c, _ = listener.accept()
        threading.Thread(target=serve, args=(c,), daemon=True).start()
    """
