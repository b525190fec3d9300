import ChunkModel
import DevelopmentPKI
import Glibc
import HTTPTransfer
import NIOCore
import PeerTestSupport
import PeerTransport
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(3))) struct ServerTests {
    let pki: TestAuthority
    let log = EventLog()

    init() async throws { pki = try await TestAuthority.make() }

    func server(
        denied: [String]? = nil, limits: PeerServerLimits = PeerServerLimits()
    ) async throws -> TestServer {
        try await TestServer(try await pki.store("server", denied: denied), limits: limits, observer: log.observer)
    }

    @Test func curlCanTalkToTheServer() async throws {
        let server = try await server()
        let output = try await Curl.run(server.endpoint, "/v1/x?y=1", files: try await pki.files("operator"))
        #expect(output.status == 0, "\(output.errors)")
        #expect(output.text == "operator GET /v1/x?y=1 0\n")
        let posted = try await Curl.run(
            server.endpoint, "/p", files: try await pki.files("second"), more: ["--data", "12345"])
        #expect(posted.text == "second POST /p 5\n")
        #expect(log.refusals.isEmpty)
        #expect(log.connected.map(\.text) == ["operator", "second"])
        await server.stop()
    }

    @Test func everyWrongClientIsRefusedForItsOwnReason() async throws {
        let server = try await server(denied: ["denied"])
        let id = "spiffe://test.chunkd/chunkd/node/a"
        let now = Int64(time(nil))
        let elsewhere = try await TestAuthority.make()
        var foreign = try await elsewhere.files("a")
        foreign.bundle = pki.authority.bundle
        let wrong: [(PeerRefusalReason, IdentityFiles)] = [
            (.expired, try await pki.odd("past", uris: [id], validity: .init(from: now - 9000, to: now - 120))),
            (.notYetValid, try await pki.odd("future", uris: [id], validity: .init(from: now + 120, to: now + 9000))),
            (.unknownAuthority, foreign),
            (.otherTrustDomain, try await pki.odd("foreign", uris: ["spiffe://other/chunkd/node/a"])),
            (.notANode, try await pki.odd("service", uris: ["spiffe://test.chunkd/ns/default/sa/x"])),
            (.noURIName, try await pki.odd("cn", uris: [])),
            (.severalURINames, try await pki.odd("two", uris: [id, "spiffe://test.chunkd/chunkd/node/b"])),
            (.wrongUsage, try await pki.odd("usage", uris: [id], usages: ["clientAuth"])),
            (.denied, try await pki.files("denied")),
        ]
        for (reason, files) in wrong {
            let output = try await Curl.run(server.endpoint, "/", files: files)
            #expect(output.status != 0, "\(reason)")
            #expect(output.text.isEmpty)
            #expect(await log.sees(reason), "\(reason): \(log.refusals)")
        }
        // One refusal each, nothing beside, and nobody ever counted as connected.
        #expect(log.refusals == wrong.map(\.0))
        #expect(log.connected.isEmpty)
        await server.stop()
    }

    @Test func withoutACertificateOrTLS13OrTLSAtAllNothingIsServed() async throws {
        let server = try await server()
        let files = try await pki.files("a")
        let ca = ["--cacert", files.bundle]
        var output = try await Curl.run(server.endpoint, "/", files: nil, more: ca)
        #expect(output.status != 0)
        #expect(await log.sees(.noCertificate), "\(log.events)")
        output = try await Curl.run(server.endpoint, "/", files: files, more: ["--tls-max", "1.2"])
        #expect(output.status != 0)
        #expect(await log.sees(.oldProtocol), "\(log.events)")
        output = try await Curl.run(server.endpoint, "/", files: files, more: ["--no-alpn"])
        #expect(output.status != 0)
        #expect(await log.sees(.noALPN), "\(log.events)")
        let command = Command(
            "curl", ["-sS", "--max-time", "10", "--noproxy", "*", "http://\(server.endpoint.address)/"])
        let plain = try await blocking { try command.run() }
        #expect(plain.status != 0)
        #expect(plain.text.isEmpty)
        #expect(await log.sees(.plaintext), "\(log.events)")
        #expect(log.refusals.count == 4, "\(log.refusals)")
        await server.stop()
    }

    @Test func aResumedSessionKeepsItsName() async throws {
        let server = try await server()
        let files = try await pki.files("again")
        let output = try await RawClient.run(
            port: server.port, files: files,
            """
            def ask(session):
                c = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20), session=session)
                c.sendall(b"GET /x HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
                answer = b""
                while not answer.endswith(b" 0\\n"): answer += c.recv(4096)
                print(c.session_reused, answer.split(b"\\r\\n")[-1].decode().strip())
                return c.session
            session = ask(None)
            ask(session)
            """)
        #expect(output.text == "False again GET /x 0\nTrue again GET /x 0\n", "\(output.errors)")
        #expect(log.connected.map(\.text) == ["again", "again"])
        await server.stop()
    }

    @Test func aDenyListCutsOffOpenConnectionsToo() async throws {
        let files = try await pki.files("server", denied: [])
        let store = try pki.store(files)
        let server = try await TestServer(store, observer: log.observer)
        let client = PeerHTTP(store: try await pki.store("bad"))
        let good = PeerHTTP(store: try await pki.store("good"))
        _ = try await get(client, server)
        _ = try await get(good, server)
        try pki.directory.write("server-denied", "bad\n")
        store.tick()
        #expect(await Wait.eventually(.seconds(5)) { log.disconnected.map(\.text) == ["bad"] })
        await #expect(throws: PeerError.self) { _ = try await get(client, server) }
        #expect(await log.sees(.denied))
        let again = try await get(good, server)
        #expect(again.isConnectionReused)
        await client.shutDown()
        await good.shutDown()
        await server.stop()
    }

    @Test func slowAndEndlessRequestsAreCutOff() async throws {
        var limits = PeerServerLimits()
        limits.handshakeTimeout = .milliseconds(500)
        limits.requestTimeout = .milliseconds(700)
        let server = try await server(limits: limits)
        let files = try await pki.files("slow")
        let cases: [(PeerRefusalReason, String)] = [
            (.requestTimeout, "c.sendall(b'GET / HTTP/1.1\\r\\n')\nprint(closed(c))"),
            (
                .requestTimeout,
                """
                try:
                    for n in range(100): c.sendall(b'GET / HTTP/1.1\\r\\nHost: h\\r\\n'[n:n+1]); time.sleep(0.05)
                except OSError: pass
                print(closed(c))
                """
            ),
            (
                .requestTimeout,
                "c.sendall(b'POST / HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: 9\\r\\n\\r\\nab')\nprint(closed(c))"
            ),
            (.headersTooLarge, "flood(b'GET /' + b'a' * 20000)"),
            (.headersTooLarge, "flood(b'GET / HTTP/1.1\\r\\n' + b'X: ' + b'a' * 20000)"),
            (.headersTooLarge, "flood(b'GET / HTTP/1.1\\r\\n' + b'X: y\\r\\n' * 4000)"),
            (
                .bodyTooLarge,
                "flood(b'POST / HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: 99999999\\r\\n\\r\\n' + b'a' * 100000)"
            ),
            (
                .bodyTooLarge,
                "flood(b'POST / HTTP/1.1\\r\\nHost: h\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n' + b'1000\\r\\n' + b'a' * 4096 + b'\\r\\n' + b'1000\\r\\n' + b'a' * 4096)"
            ),
            (.malformedRequest, "flood(b'SSH-2.0-OpenSSH\\r\\n\\r\\n')"),
            (
                .malformedRequest,
                "flood(b'POST / HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: 1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n')"
            ),
        ]
        for (reason, script) in cases {
            let before = log.refusals.count
            let output = try await RawClient.run(
                port: server.port, files: files,
                """
                def flood(data):
                    try:
                        c.sendall(data)
                    except OSError: pass
                    print(closed(c))
                c = connect()

                """ + script)
            #expect(output.text == "True\n", "\(script): \(output.text) \(output.errors)")
            #expect(await Wait.eventually(.seconds(5)) { log.refusals.count == before + 1 }, "\(script)")
            #expect(log.refusals.last == reason, "\(script)")
        }
        // TCP only, and then nothing.
        let output = try await RawClient.run(
            port: server.port, files: files,
            "c = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\nprint(closed(c))")
        #expect(output.text == "True\n")
        #expect(await log.sees(.handshakeTimeout))
        await server.stop()
    }

    @Test func whoClosesInTheMiddleOfSomethingIsNotRefused() async throws {
        let server = try await server()
        let output = try await RawClient.run(
            port: server.port, files: try await pki.files("leaving"),
            """
            for part in [b'GET / HTTP/1.1\\r\\n', b'POST / HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: 9\\r\\n\\r\\nab']:
                c = connect()
                c.sendall(b'GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n')
                assert c.recv(4096)
                c.sendall(part)
                c.settimeout(15)
                try: c.unwrap()
                except OSError: pass
                print(closed(c))
            c = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
            c.shutdown(socket.SHUT_WR)
            print(closed(c))
            """)
        #expect(output.text == "True\nTrue\nTrue\n", "\(output.errors)")
        #expect(await Wait.eventually(.seconds(5)) { log.disconnected.count == 2 }, "\(log.events)")
        #expect(log.refusals.isEmpty, "\(log.events)")
        await server.stop()
    }

    @Test func aNameHasOnlySoManyConnections() async throws {
        var limits = PeerServerLimits()
        limits.connectionsPerName = 3
        let server = try await server(limits: limits)
        let output = try await RawClient.run(
            port: server.port, files: try await pki.files("greedy"),
            """
            held = []
            for n in range(4):
                c = connect()
                c.sendall(b'GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n')
                try: print(len(c.recv(4096)) > 0)
                except OSError: print(False)
                held.append(c)
            """)
        #expect(output.text == "True\nTrue\nTrue\nFalse\n", "\(output.errors)")
        #expect(await log.sees(.tooManyForName))
        // Another name is none the worse for it.
        let other = try await Curl.run(server.endpoint, "/", files: try await pki.files("modest"))
        #expect(other.status == 0)
        await server.stop()
    }

    @Test func drainLetsNobodyInAndEndsIdleConnections() async throws {
        let server = try await server()
        let client = PeerHTTP(store: try await pki.store("a"))
        _ = try await get(client, server)
        await server.server.drain(grace: .seconds(5))
        #expect(server.server.load.connections == 0)
        await #expect(throws: PeerError.self) { _ = try await get(client, server) }
        await client.shutDown()
    }
}

func get(_ client: PeerHTTP, _ server: TestServer) async throws(PeerError) -> TransferResult {
    try await client.perform(
        PeerHTTP.Call(.get, "/v1/x"), to: server.endpoint, try client.begin(), sink: .collecting(limit: 4096))
}
