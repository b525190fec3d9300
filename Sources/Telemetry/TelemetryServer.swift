import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Serves `/metrics`, `/livez` and `/readyz` over plain HTTP/1.1 for a node's own scraper and kubelet.
///
/// `/livez` answers 200 as long as an event loop turns: a restart never helps a blocked reader, so nothing else may make
/// liveness fail (docs/operations.md, "Probes"). `/readyz` answers 503 with the reason while the node cannot mount.
package final class TelemetryServer: Sendable {
    /// Whether new mounts would work.
    package enum Readiness: Equatable, Sendable {
        case ready
        case notReady(reason: String)
    }

    /// Connections at once: a few scrapers and probes. More are closed at once.
    static let maxConnections = 64
    /// A connection without a request for this long is closed.
    static let idleTimeout = TimeAmount.seconds(30)

    private let channel: any Channel

    private init(channel: any Channel) { self.channel = channel }

    /// Binds and serves until `stop`. `readiness` is called on an event loop and must not block.
    /// - Throws: `IOError` of NIO with the errno of socket(2), bind(2) or listen(2).
    package static func start(
        host: String, port: Int, group: any EventLoopGroup, registry: MetricsRegistry,
        readiness: @escaping @Sendable () -> Readiness
    ) async throws -> TelemetryServer {
        let limiter = ConnectionLimiter(limit: maxConnections)
        let channel = try await ServerBootstrap(group: group)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(ChannelOptions.backlog, value: 64)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard limiter.admit(channel) else { throw ChannelError.eof }
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(IdleStateHandler(allTimeout: idleTimeout))
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(TelemetryHandler(registry: registry, readiness: readiness))
                }
            }
            .bind(host: host, port: port).get()
        return TelemetryServer(channel: channel)
    }

    /// The port bound, also when 0 was asked for.
    package var port: Int { channel.localAddress?.port ?? 0 }

    /// Stops accepting; open connections end by themselves.
    package func stop() async throws { try await channel.close() }
}

/// Counts connections, so that nobody can hold more than a fixed number.
final class ConnectionLimiter: Sendable {
    private let open = Atomic<Int>(0)
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    /// Whether the channel may go on; it is counted until it closes.
    func admit(_ channel: any Channel) -> Bool {
        let count = open.wrappingAdd(1, ordering: .relaxed).newValue
        channel.closeFuture.whenComplete { _ in self.open.wrappingSubtract(1, ordering: .relaxed) }
        return count <= limit
    }
}

/// Answers one request after the other on one connection.
private final class TelemetryHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let registry: MetricsRegistry
    private let readiness: @Sendable () -> TelemetryServer.Readiness
    private var request: HTTPRequestHead?

    init(registry: MetricsRegistry, readiness: @escaping @Sendable () -> TelemetryServer.Readiness) {
        self.registry = registry
        self.readiness = readiness
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): request = head
        case .body: break
        case .end:
            guard let request else { return }
            self.request = nil
            answer(request, context: context)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func answer(_ request: HTTPRequestHead, context: ChannelHandlerContext) {
        var (status, type, body) = reply(to: request)
        var headers = HTTPHeaders([("content-type", type), ("content-length", String(body.utf8.count))])
        if !request.isKeepAlive { headers.add(name: "connection", value: "close") }
        if request.method == .HEAD { body = "" }
        let head = HTTPResponseHead(version: .http1_1, status: status, headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !body.isEmpty {
            context.write(
                wrapOutboundOut(.body(.byteBuffer(context.channel.allocator.buffer(string: body)))), promise: nil)
        }
        let done = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        if !request.isKeepAlive { done.futureResult.whenComplete { _ in channel.close(promise: nil) } }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: done)
    }

    private func reply(to request: HTTPRequestHead) -> (HTTPResponseStatus, type: String, body: String) {
        let text = "text/plain; charset=utf-8"
        guard request.method == .GET || request.method == .HEAD else {
            return (.methodNotAllowed, text, "only GET and HEAD\n")
        }
        switch request.uri.split(separator: "?", maxSplits: 1).first ?? "" {
        case "/metrics": return (.ok, MetricsRegistry.contentType, registry.exposition())
        case "/livez": return (.ok, text, "ok\n")
        case "/readyz":
            switch readiness() {
            case .ready: return (.ok, text, "ok\n")
            case .notReady(let reason): return (.serviceUnavailable, text, "not ready: \(reason)\n")
            }
        default: return (.notFound, text, "not found; there are /metrics, /livez and /readyz\n")
        }
    }
}
