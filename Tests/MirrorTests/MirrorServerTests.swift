import Glibc
import HTTPTransfer
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Mirror

@Suite("The mirror's server") struct MirrorServerTests {
    /// Says back what it was asked, or sends pieces.
    struct Echo: MirrorResponder {
        var pieces: [[UInt8]] = []
        var length: UInt64 = 0

        func respond(to call: MirrorCall) async -> MirrorAnswer {
            guard call.target != "/pieces" else {
                return MirrorAnswer(200, body: .stream(Pieces(pieces), length: length))
            }
            let text = "\(call.method) \(call.target) \(call.field("authorization") ?? "nothing")"
            return MirrorAnswer(200, headers: [("X-Said", text)], body: .bytes(Array(text.utf8)))
        }
    }

    final class Pieces: MirrorBody {
        private let left: Mutex<[[UInt8]]>
        init(_ pieces: [[UInt8]]) { left = Mutex(pieces.reversed()) }
        func next() async -> ByteBuffer? { left.withLock { $0.popLast() }.map { ByteBuffer(bytes: $0) } }
    }

    func serve<Value>(
        _ echo: Echo, limits: MirrorServerLimits = MirrorServerLimits(),
        _ body: (String, TransferClient) async throws -> Value
    ) async throws -> Value {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try await MirrorServer.start(
            host: "127.0.0.1", port: 0, group: group, responder: echo, limits: limits)
        let client = TransferClient()
        let result: Result<Value, any Error>
        do { result = .success(try await body("http://127.0.0.1:\(server.port)", client)) } catch {
            result = .failure(error)
        }
        await client.shutDown()
        await server.stop()
        try await group.shutdownGracefully()
        return try result.get()
    }

    @Test("requests are answered one after the other on a connection, HEAD without a body")
    func answers() async throws {
        try await serve(Echo()) { url, client in
            for method in [TransferRequest.Method.get, .head, .get] {
                let result = try await client.perform(
                    TransferRequest(method, url: url + "/a?b", headers: [("Authorization", "Basic x")]),
                    sink: .collecting(limit: 1000))
                let said = "\(method.rawValue) /a?b Basic x"
                #expect(result.head.status == 200 && result.head.first("X-Said") == said)
                #expect(result.head.contentLength == UInt64(said.utf8.count))
                #expect(String(decoding: result.body, as: UTF8.self) == (method == .head ? "" : said))
            }
        }
    }

    @Test("a body comes in pieces; one that breaks off is a cut and not an end")
    func pieces() async throws {
        let pieces: [[UInt8]] = [[1, 2], [3], [UInt8](repeating: 4, count: 300_000)]
        let all = pieces.flatMap { $0 }
        let request: (String) -> TransferRequest = { TransferRequest(url: $0 + "/pieces") }
        try await serve(Echo(pieces: pieces, length: UInt64(all.count))) { url, client in
            let result = try await client.perform(request(url), sink: .collecting(limit: 1 << 20))
            #expect(result.body == all)
        }
        for length in [UInt64(all.count) + 1, 2] {
            try await serve(Echo(pieces: pieces, length: length)) { url, client in
                let isWhole = length == 2
                let result = try? await client.perform(request(url), sink: .collecting(limit: 1 << 20))
                #expect((result != nil) == isWhole, "length \(length)")
            }
        }
    }

    @Test("of a field that comes twice neither counts")
    func doubledFields() {
        let call = MirrorCall(
            method: "GET", target: "/", fields: [("A", "1"), ("a", "2"), ("a", "3"), ("B", "4")])
        #expect(call.field("a") == nil && call.field("b") == "4")
    }

    @Test("there are only so many connections")
    func connections() async throws {
        var limits = MirrorServerLimits()
        limits.connections = 0
        await #expect(throws: TransferError.self) {
            try await serve(Echo(), limits: limits) { url, client in
                _ = try await client.perform(TransferRequest(url: url), sink: .collecting(limit: 1000))
            }
        }
    }
}
