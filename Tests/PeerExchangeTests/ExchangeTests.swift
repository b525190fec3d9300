import ChunkModel
import Glibc
import HTTPTransfer
import NIOCore
import PeerExchange
import PeerTestSupport
import PeerTransport
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(3))) struct ExchangeTests {
    let pki: TestAuthority

    init() async throws { pki = try await TestAuthority.make() }

    func fetch(
        _ client: PeerClient, _ request: ChunkRequest, _ node: Node, limit: UInt64 = 64 << 20
    ) async throws -> (ChunkFetchResult, [UInt8]) {
        let basket = Basket()
        let result = try await client.fetch(
            request, from: node.endpoint, limit: limit, handle: try client.begin()
        ) { piece in
            basket.add(piece)
            return .continue
        }
        return (result, basket.bytes)
    }

    @Test func chunksComeWholeAndInOrder() async throws {
        let shop = try Shop(resident: [0, 1, 2, 4, 5])
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        var (result, bytes) = try await fetch(client, shop.request(1), node)
        #expect(bytes == shop.bytes(1))
        guard case .delivered(let count, let residency) = result else {
            Issue.record("\(result)")
            return
        }
        #expect(count == UInt64(Shop.chunkSize))
        #expect(residency?.has(4) == true)
        #expect(residency?.has(3) == false)
        // Three in a row, although four were asked for: the next is not there.
        (_, bytes) = try await fetch(client, shop.request(0, count: 4), node)
        #expect(bytes == shop.bytes(0, count: 3))
        #expect(await Wait.eventually(.seconds(5)) { node.all.count == 2 })
        #expect(node.outcomes == [.sent, .sent])
        #expect(shop.ended == [true, true])
        #expect(node.all.map(\.bytes) == [UInt64(Shop.chunkSize), UInt64(3 * Shop.chunkSize)])
        #expect(node.exchange.uploads.load == (0, 0))
        await client.shutDown()
        await node.server.stop()
    }

    @Test func aPartOfAnImageIsGivenWholeToWhoCanNameIt() async throws {
        let shop = try Shop()
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        func part(_ id: WireID) async throws -> (ChunkFetchResult, [UInt8]) {
            let basket = Basket()
            let result = try await client.fetch(
                PartRequest(part: id, blob: shop.blob), from: node.endpoint, size: UInt64(Shop.chunkSize)
            ) { piece in
                basket.add(piece)
                return .continue
            }
            return (result, basket.bytes)
        }
        let (result, bytes) = try await part(shop.id(shop.chunkCount))
        #expect(result == .delivered(bytes: UInt64(Shop.chunkSize), residency: nil))
        #expect(bytes == shop.bytes(0))
        #expect(try await part(shop.id(shop.chunkCount + 1)).0 == .absent(residency: nil))
        #expect(await Wait.eventually(.seconds(5)) { node.all.count == 2 })
        #expect(node.all.map(\.kind) == [.part, .part])
        await client.shutDown()
        await node.server.stop()
    }

    @Test func whatIsNotHereAndWhatIsNotNamedRightLookTheSameButForTheResidency() async throws {
        let shop = try Shop(resident: [0])
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        let (absent, _) = try await fetch(client, shop.request(3), node)
        #expect(absent == .absent(residency: PeerResidency(first: 0, bits: [1])))
        var guessed = shop.request(0)
        guessed.chunk = shop.id(1)
        #expect(try await fetch(client, guessed, node).0 == .absent(residency: nil))
        let known = try await client.residency(blob: shop.blob, proof: shop.id(0), of: node.endpoint)
        #expect(known?.chunkCount == 8)
        #expect(known?.residency.bits == [1])
        #expect(try await client.residency(blob: shop.blob, proof: shop.id(1), of: node.endpoint) == nil)
        await client.shutDown()
        await node.server.stop()
    }

    @Test func aChunkInFlightIsWaitedFor() async throws {
        let shop = try Shop(resident: [])
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        async let waiting = fetch(client, shop.request(2, wait: .seconds(20)), node)
        #expect(await Wait.eventually(.seconds(5)) { shop.waitingCount == 1 })
        shop.arrive(2)
        let (_, bytes) = try await waiting
        #expect(bytes == shop.bytes(2))
        #expect(shop.asked.first?.wait == .seconds(20))
        await client.shutDown()
        await node.server.stop()
    }

    @Test func whoGoesAwayIsNotWaitedForAnyLonger() async throws {
        let shop = try Shop(resident: [])
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        let handle = try client.begin()
        let waiting = Task {
            try await client.fetch(
                shop.request(2, wait: .seconds(20)), from: node.endpoint, limit: 1 << 20, handle: handle
            ) { _ in .continue }
        }
        #expect(await Wait.eventually(.seconds(5)) { shop.waitingCount == 1 })
        handle.control.cancel()
        do {
            _ = try await waiting.value
            Issue.record("a cancelled fetch came to a good end")
        } catch let error as PeerError {
            #expect(error.code == .cancelled)
        }
        #expect(await Wait.eventually(.seconds(5)) { shop.gone == 1 })
        await client.shutDown()
        await node.server.stop()
    }

    @Test func refusalsAndHoldersAreTold() async throws {
        let shop = try Shop()
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        shop.always(.refused(.policy))
        #expect(try await fetch(client, shop.request(0), node).0 == .refused(reason: "policy"))
        let holders = [try TestAuthority.name("c"), try TestAuthority.name("d.zone")]
        shop.always(.busy(retryAfter: .milliseconds(1500), holders: holders))
        #expect(try await fetch(client, shop.request(0), node).0 == .busy(retryAfter: .seconds(2), holders: holders))
        await client.shutDown()
        await node.server.stop()
    }

    @Test func messagesGoThereAndBack() async throws {
        let shop = try Shop()
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        #expect(try await client.gossip([1, 2, 3], to: node.endpoint) == Array("a:".utf8) + [3, 2, 1])
        let large = [UInt8](repeating: 9, count: PeerProtocol.maxGossipBytes - 10)
        #expect(try await client.gossip(large, to: node.endpoint).count == large.count + 2)
        #expect(try await client.mount([5, 6], to: node.endpoint) == [5, 6, 5, 6])
        await #expect(throws: PeerError.self) { _ = try await client.gossip([0], to: node.endpoint) }
        let complaint = PeerComplaint(chunk: shop.id(3), blob: shop.blob, at: 3)
        try await client.complain(complaint, to: node.endpoint)
        #expect(shop.complaints.map(\.0) == [complaint])
        #expect(shop.complaints.map(\.1.text) == ["a"])
        // Sixteen in a burst; the rest is dropped here, and the peer is not told apart.
        for _ in 0..<40 { try await client.complain(complaint, to: node.endpoint) }
        #expect((16...20).contains(shop.complaints.count))
        await client.shutDown()
        await node.server.stop()
    }

    @Test func anAnswerLongerThanWhatWasAskedForIsRefused() async throws {
        let shop = try Shop()
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        do {
            _ = try await fetch(client, shop.request(0, count: 2), node, limit: UInt64(Shop.chunkSize))
            Issue.record("too long an answer was taken")
        } catch let error as PeerError {
            #expect(error.code == .unexpected)
            #expect(error.bytesDelivered == 0)
        }
        await client.shutDown()
        await node.server.stop()
    }

    @Test func aFileThatLostItsEndEndsTheConnectionAndIsTold() async throws {
        let shop = try Shop()
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        try shop.truncate()
        do {
            _ = try await fetch(client, shop.request(5), node)
            Issue.record("bytes that are not there were sent")
        } catch let error as PeerError {
            #expect(error.code == .broken)
        }
        #expect(await Wait.eventually(.seconds(5)) { node.outcomes == [.unreadable] })
        #expect(node.exchange.uploads.load == (0, 0))
        await client.shutDown()
        await node.server.stop()
    }

    @Test func aSinkMayPauseAndStop() async throws {
        let shop = try Shop(chunkCount: 12)
        let node = try await Node(try await pki.store("b"), shop: shop)
        let client = PeerClient(store: try await pki.store("a"))
        let handle = try client.begin()
        let basket = Basket()
        let refusals = Tally()
        let result = try await client.fetch(
            shop.request(0, count: 12), from: node.endpoint, limit: 64 << 20, handle: handle
        ) { piece in
            if refusals.sum < 3 {
                refusals.add(1, to: "")
                handle.control.resume()
                return .pause
            }
            basket.add(piece)
            return basket.bytes.count > 1_000_000 ? .stop : .continue
        }
        guard case .delivered(let count, _) = result else {
            Issue.record("\(result)")
            return
        }
        #expect(count == UInt64(basket.bytes.count))
        #expect(basket.bytes == Array(shop.content.prefix(basket.bytes.count)))
        #expect(await Wait.eventually(.seconds(5)) { node.exchange.uploads.load == (0, 0) })
        await client.shutDown()
        await node.server.stop()
    }

    @Test func aReaderThatTakesNothingIsCutOff() async throws {
        // More than sockets and buffers hold, so that the server has to wait for the reader.
        let shop = try Shop(chunkCount: 50)
        let log = EventLog()
        var limits = PeerServerLimits()
        limits.writeTimeout = .milliseconds(700)
        let node = try await Node(try await pki.store("b"), shop: shop, limits: limits, observer: log.observer)
        let target = PeerCall.chunks(shop.request(0, count: 50)).target
        let output = try await RawClient.run(
            port: node.server.port, files: try await pki.files("slow"),
            """
            s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(20); s.connect(("127.0.0.1", int(sys.argv[1])))
            c = context.wrap_socket(s)
            c.sendall(b"GET \(target) HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
            time.sleep(4)
            total = 0
            try:
                while True:
                    part = c.recv(65536)
                    if not part: break
                    total += len(part)
            except OSError: pass
            print(total < 15000000)
            """)
        #expect(output.text == "True\n", "\(output.errors)")
        #expect(await log.sees(.slowReader))
        #expect(await Wait.eventually(.seconds(5)) { node.outcomes == [.lost] })
        #expect(shop.ended == [false])
        #expect(node.exchange.uploads.load == (0, 0))
        await node.server.stop()
    }

    @Test func anAnswerThatFoundNoSlotHasEndedToo() async throws {
        let shop = try Shop()
        var uploads = UploadLimits()
        (uploads.slots, uploads.queue) = (0, 0)
        let node = try await Node(try await pki.store("b"), shop: shop, uploads: uploads)
        let client = PeerClient(store: try await pki.store("a"))
        let (result, bytes) = try await fetch(client, shop.request(0), node)
        guard case .busy = result else {
            Issue.record("\(result)")
            return
        }
        #expect(bytes.isEmpty)
        // Or what its supplier keeps for it would be kept for ever.
        #expect(shop.ended == [false])
        await client.shutDown()
        await node.server.stop()
    }

    @Test func thePeerThatOpensMoreConnectionsGetsNoMore() async throws {
        let shop = try Shop(chunkCount: 8)
        // 3 MB/s: what is measured is the limit's doing, not the machine's.
        let node = try await Node(
            try await pki.store("b"), shop: shop, uploads: UploadLimits(bytesPerSecond: 3_000_000))
        let (greedy, modest) = (
            PeerClient(store: try await pki.store("greedy")), PeerClient(store: try await pki.store("modest"))
        )
        let isDone = Flag()
        let taken = Tally()
        let loads = [(greedy, "greedy", 6), (modest, "modest", 1)].flatMap { client, name, count in
            (0..<count).map { _ in
                Task<Void, Never> {
                    while !isDone.isSet {
                        guard let handle = try? client.begin() else { return }
                        _ = try? await client.fetch(
                            shop.request(0, count: 8), from: node.endpoint, limit: 64 << 20, handle: handle
                        ) { piece in
                            taken.add(piece.count, to: name)
                            return isDone.isSet ? .stop : .continue
                        }
                    }
                }
            }
        }
        #expect(await Wait.eventually(.seconds(30)) { taken.sum > 9_000_000 })
        isDone.set()
        let shares = taken.all
        let (most, least) = (shares["greedy"] ?? 0, shares["modest"] ?? 0)
        #expect(Double(most) / Double(max(1, least)) < 1.4, "greedy \(most), modest \(least)")
        // No limit any more: what waits goes on at once.
        node.exchange.uploads.change(UploadLimits())
        for load in loads { await load.value }
        await greedy.shutDown()
        await modest.shutDown()
        await node.server.stop()
    }

    @Test func curlCanAskForAChunk() async throws {
        let shop = try Shop()
        let node = try await Node(try await pki.store("b"), shop: shop)
        let files = try await pki.files("operator")
        let path = pki.directory.path + "/chunk"
        let output = try await Curl.run(
            node.endpoint, PeerCall.chunks(shop.request(2)).target, files: files,
            more: ["-o", path, "-w", "%{http_code}"])
        #expect(output.text == "200", "\(output.errors)")
        let file = try ContentsOfFile(path)
        #expect(file.bytes == shop.bytes(2))
        let missing = try await Curl.run(node.endpoint, "/metrics", files: files, more: ["-i"])
        #expect(missing.text.hasPrefix("HTTP/1.1 404"))
        #expect(missing.text.contains("Chunkd-Reason: unknown_path"))
        await node.server.stop()
    }

    @Test func anAnswerHasASpanOfItsOwnInTheAskersTraceAndAMalformedTraceChangesNothing() async throws {
        let shop = try Shop()
        let node = try await Node(try await pki.store("b"), shop: shop)
        let store = try await pki.store("a")
        let client = PeerClient(store: store)
        var random = SplitMix64(seed: 3)
        let asker = TraceContext(trace: TraceID(using: &random), span: SpanID(using: &random))
        var request = shop.request(1)
        request.trace = asker
        #expect(try await fetch(client, request, node).1 == shop.bytes(1))
        #expect(await Wait.eventually(.seconds(5)) { node.all.count == 1 })
        let served = try #require(node.all.first)
        let own = try #require(served.request?.trace)
        #expect(served.parent == asker.span && own.trace == asker.trace && own.span != asker.span)
        #expect(shop.asked.map(\.trace) == [own], "what the supplier does for it is a part of the answer")
        #expect(!served.isTraceIgnored)

        request.trace = nil
        var http = PeerHTTP.Call(.get, PeerCall.chunks(request).target)
        http.headers = [(name: "traceparent", value: "00-0-0-01")]
        let peers = PeerHTTP(store: store)
        let result = try await peers.perform(
            http, to: node.endpoint, try peers.begin(), sink: .collecting(limit: Shop.chunkSize))
        #expect(result.head.status == 200 && result.body == shop.bytes(1))
        #expect(await Wait.eventually(.seconds(5)) { node.all.count == 2 })
        #expect(node.all.last?.isTraceIgnored == true && node.all.last?.parent == nil)
        await peers.shutDown()
        await client.shutDown()
        await node.server.stop()
    }
}
