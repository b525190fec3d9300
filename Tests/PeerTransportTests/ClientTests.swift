import ChunkModel
import DevelopmentPKI
import Glibc
import HTTPTransfer
import PeerTestSupport
import PeerTransport
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(3))) struct ClientTests {
    let pki: TestAuthority

    init() async throws { pki = try await TestAuthority.make() }

    func call(
        _ client: PeerHTTP, _ endpoint: PeerEndpoint, timeouts: TransferTimeouts = PeerHTTP.timeouts()
    ) async -> Result<TransferResult, PeerError> {
        do throws(PeerError) {
            var call = PeerHTTP.Call(.get, "/v1/x")
            call.timeouts = timeouts
            return .success(
                try await client.perform(call, to: endpoint, try client.begin(), sink: .collecting(limit: 4096)))
        } catch {
            return .failure(error)
        }
    }

    func refusal(_ result: Result<TransferResult, PeerError>) -> PeerRefusalReason? {
        if case .failure(let error) = result { error.refusal } else { nil }
    }

    @Test func aConnectionMadeForOneNameIsNeverUsedForAnother() async throws {
        let log = EventLog()
        let server = try await TestServer(try await pki.store("b"))
        let client = PeerHTTP(store: try await pki.store("a"), observer: log.observer)
        for _ in 0..<3 { #expect(try await call(client, server.endpoint).get().head.status == 200) }
        #expect(try await call(client, server.endpoint).get().isConnectionReused)
        // The same address, where an idle connection waits, for another name: names that curl might rewrite included.
        for name in ["c", "10.1", "1", "b.node", "bb"] {
            let other = PeerEndpoint(name: try TestAuthority.name(name), address: server.endpoint.address)
            #expect(refusal(await call(client, other)) == .wrongName, "\(name)")
        }
        #expect(log.refusals.filter { $0 == .wrongName }.count == 5)
        #expect(try await call(client, server.endpoint).get().isConnectionReused)
        await client.shutDown()
        await server.stop()
    }

    @Test func namesThatLookLikeAddressesWork() async throws {
        let server = try await TestServer(try await pki.store("10.1"))
        let client = PeerHTTP(store: try await pki.store("a"))
        #expect(try await call(client, server.endpoint).get().head.status == 200)
        await client.shutDown()
        await server.stop()
    }

    @Test func aServerOfAnotherClusterIsNotBelieved() async throws {
        let other = try await TestAuthority.make()
        let server = try await TestServer(try await other.store("b"))
        let client = PeerHTTP(store: try await pki.store("a"))
        #expect(refusal(await call(client, server.endpoint)) == .unknownAuthority)
        await client.shutDown()
        await server.stop()
    }

    @Test func aDeniedPeerIsNotCalled() async throws {
        let server = try await TestServer(try await pki.store("b"))
        let files = try await pki.files("a", denied: [])
        let store = try pki.store(files)
        let client = PeerHTTP(store: store)
        #expect(try await call(client, server.endpoint).get().head.status == 200)
        try pki.directory.write("a-denied", "b\n")
        store.tick()
        #expect(refusal(await call(client, server.endpoint)) == .denied)
        await client.shutDown()
        await server.stop()
    }

    @Test func anAddressWhereNobodyShakesHandsIsGivenUpSoon() async throws {
        // Accepts and says nothing: a node that hangs.
        let silent = try PythonServer.start(
            "import socket,sys,time\ns=socket.create_server(('127.0.0.1',int(sys.argv[1])),backlog=64)\nk=[]\nwhile True: k.append(s.accept())"
        )
        let address = try #require(PeerAddress("127.0.0.1:\(silent.port)"))
        let client = PeerHTTP(store: try await pki.store("a"))
        let clock = ContinuousClock()
        let began = clock.now
        let result = await call(client, PeerEndpoint(name: try TestAuthority.name("b"), address: address))
        guard case .failure(let error) = result else {
            Issue.record("a silent server answered")
            return
        }
        #expect(error.code == .unreachable)
        #expect(clock.now - began < .seconds(4), "the connect timeout is a second")
        let closed = try #require(PeerAddress("127.0.0.1:\(try Ports.free())"))
        guard
            case .failure(let refused) = await call(
                client, PeerEndpoint(name: try TestAuthority.name("b"), address: closed))
        else {
            Issue.record("a closed port answered")
            return
        }
        #expect(refused.code == .unreachable)
        await client.shutDown()
    }

    @Test func withoutAnIdentityNothingIsCalled() async throws {
        let store = IdentityStore(
            files: IdentityFiles(bundle: "/nonexistent", certificate: "/nonexistent", key: "/nonexistent"),
            trustDomain: pki.trustDomain)
        let client = PeerHTTP(store: store)
        #expect(throws: PeerError.self) { _ = try client.begin() }
    }

    @Test func certificatesChangeUnderLoadWithoutAFailedCall() async throws {
        let serverFiles = try await pki.files("server", into: "s")
        let clientFiles = try await pki.files("client", into: "c")
        let serverStore = try pki.store(serverFiles)
        let clientStore = try pki.store(clientFiles)
        let log = EventLog()
        let server = try await TestServer(serverStore, observer: log.observer)
        let client = PeerHTTP(store: clientStore)
        let isDone = Flag()
        let load = (0..<4).map { _ in
            Task<(calls: Int, failures: [String]), Never> {
                var calls = 0
                var failures: [String] = []
                while !isDone.isSet {
                    calls += 1
                    if case .failure(let error) = await self.call(client, server.endpoint) {
                        failures.append(error.description)
                    }
                }
                return (calls, failures)
            }
        }
        for round in 0..<6 {
            for (node, directory, store) in [("server", "s", serverStore), ("client", "c", clientStore)] {
                let next = try await pki.files(node, into: "\(directory)\(round)")
                let certificate = TestAuthority.read(next.certificate)
                for part in [certificate.count / 3, certificate.count] {
                    try pki.directory.write("\(directory)/\(node).crt", certificate.prefix(part))
                    store.tick()
                }
                try pki.directory.write("\(directory)/\(node).key", TestAuthority.read(next.key))
                store.tick()
            }
            let before = log.connected.count
            // The client's old connections are closed: new ones come.
            #expect(await Wait.eventually(.seconds(10)) { log.connected.count > before })
        }
        isDone.set()
        var calls = 0
        for task in load {
            let outcome = await task.value
            calls += outcome.calls
            #expect(outcome.failures.isEmpty, "\(outcome.failures.prefix(3))")
        }
        #expect(calls > 100)
        #expect(clientStore.current?.generation == 7)
        #expect(serverStore.current?.generation == 7)
        await client.shutDown()
        await server.stop()
    }

    @Test func anAuthorityChangesWithoutAnOutage() async throws {
        let old = pki
        let new = try await TestAuthority.make()
        let both = TestAuthority.read(old.authority.bundle) + TestAuthority.read(new.authority.bundle)
        // Every node first trusts both, then gets a certificate of the new one, then trusts the new one alone.
        var serverFiles = try await old.files("server")
        serverFiles.bundle = try old.directory.write("server-bundle", TestAuthority.read(old.authority.bundle))
        var clientFiles = try await old.files("client")
        clientFiles.bundle = try old.directory.write("client-bundle", TestAuthority.read(old.authority.bundle))
        let serverStore = try old.store(serverFiles)
        let clientStore = try old.store(clientFiles)
        let log = EventLog()
        let server = try await TestServer(serverStore, observer: log.observer)
        let client = PeerHTTP(store: clientStore)
        func step(_ change: () throws -> Void) async throws {
            try change()
            serverStore.tick()
            clientStore.tick()
            #expect(serverStore.failure == nil)
            #expect(clientStore.failure == nil)
            #expect(try await call(client, server.endpoint).get().head.status == 200)
        }
        try await step {}
        try await step {
            try old.directory.write("server-bundle", both)
            try old.directory.write("client-bundle", both)
        }
        let clientNext = try await new.files("client")
        try await step {
            try old.directory.write("client/client.key", TestAuthority.read(clientNext.key))
            try old.directory.write("client/client.crt", TestAuthority.read(clientNext.certificate))
        }
        let serverNext = try await new.files("server")
        try await step {
            try old.directory.write("server/server.key", TestAuthority.read(serverNext.key))
            try old.directory.write("server/server.crt", TestAuthority.read(serverNext.certificate))
        }
        // A node that kept its old certificate is cut off when the old authority goes, in the middle of a connection.
        var staleFiles = try await old.files("stale")
        staleFiles.bundle = try old.directory.write("stale-bundle", both)
        let stale = PeerHTTP(store: try old.store(staleFiles))
        #expect(try await call(stale, server.endpoint).get().head.status == 200)
        try await step {
            try old.directory.write("server-bundle", TestAuthority.read(new.authority.bundle))
            try old.directory.write("client-bundle", TestAuthority.read(new.authority.bundle))
        }
        #expect(await Wait.eventually(.seconds(5)) { log.disconnected.contains { $0.text == "stale" } })
        #expect(log.refusals.contains(.unknownAuthority))
        await client.shutDown()
        await stale.shutDown()
        await server.stop()
    }
}
