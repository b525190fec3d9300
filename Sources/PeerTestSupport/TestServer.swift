import ChunkModel
import NIOCore
import NIOPosix
import PeerTransport
import TestSupport

/// Answers every request with what it was: for tests of the transport.
package struct EchoHandler: PeerRequestHandler {
    package var limit = 4096

    package init() {}

    package func bodyLimit(method: String, target: String) -> Int { method == "POST" ? limit : 0 }

    package func respond(to request: PeerRequest) async -> PeerResponse {
        let text = "\(request.peer) \(request.method) \(request.target) \(request.body.count)\n"
        return PeerResponse(200, body: .bytes(Array(text.utf8)))
    }
}

/// A peer server on loopback, and where it is.
package struct TestServer: Sendable {
    package let server: PeerServer
    package let endpoint: PeerEndpoint

    package init(
        _ store: IdentityStore, handler: any PeerRequestHandler = EchoHandler(),
        limits: PeerServerLimits = PeerServerLimits(), observer: @escaping PeerTransportObserver = { _ in }
    ) async throws {
        server = try await PeerServer.start(
            host: "127.0.0.1", port: 0, group: MultiThreadedEventLoopGroup.singleton, store: store, handler: handler,
            limits: limits, observer: observer)
        guard let address = PeerAddress("127.0.0.1:\(server.port)"), let name = store.current?.name else {
            throw FixtureError("no address or no name")
        }
        endpoint = PeerEndpoint(name: name, address: address)
    }

    package var port: Int { server.port }

    package func stop() async { await server.drain(grace: .milliseconds(200)) }
}
