import ChunkModel
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// Serves peers over HTTP/1.1 and mutual TLS 1.3. Safe from any thread.
///
/// Every connection belongs to a node whose name its certificate proves; a connection that proves none is closed with a
/// counted reason. When the identity changes, connections that the new one would refuse are closed.
package final class PeerServer: Sendable {
    private let channel: any Channel
    private let connections: PeerConnections

    private init(channel: any Channel, connections: PeerConnections) {
        self.channel = channel
        self.connections = connections
    }

    /// Binds and serves until `drain`. Without an identity in `store` connections are refused until there is one.
    /// - Throws: `IOError` of NIO with the errno of socket(2), bind(2) or listen(2).
    package static func start(
        host: String, port: Int, group: any EventLoopGroup, store: IdentityStore, handler: any PeerRequestHandler,
        limits: PeerServerLimits = PeerServerLimits(), observer: @escaping PeerTransportObserver = { _ in }
    ) async throws -> PeerServer {
        let connections = PeerConnections(limits: limits, store: store, observer: observer)
        let channel = try await ServerBootstrap(group: group)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(ChannelOptions.backlog, value: 256)
            .childChannelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                ChannelOptions.writeBufferWaterMark,
                value: .init(low: limits.lowWatermark, high: limits.highWatermark)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try Self.configure(channel, connections, handler, limits)
                }
            }
            .bind(host: host, port: port).get()
        store.onChange { [weak connections] identity in connections?.recheck(identity) }
        return PeerServer(channel: channel, connections: connections)
    }

    /// The port bound, also when 0 was asked for.
    package var port: Int { channel.localAddress?.port ?? 0 }

    /// Closes connections whose certificates have expired since. Call it every few seconds.
    package func tick() { connections.recheck(nil) }

    /// Connections open now, and how many names they belong to.
    package var load: (connections: Int, names: Int) { connections.load }

    /// Stops accepting, lets running answers end, closes the rest at the end of `grace`.
    package func drain(grace: Duration) async {
        try? await channel.close()
        await connections.drain(grace: grace)
    }

    private static func configure(
        _ channel: any Channel, _ connections: PeerConnections, _ handler: any PeerRequestHandler,
        _ limits: PeerServerLimits
    ) throws {
        let address = channel.remoteAddress?.ipAddress ?? "unknown"
        // Throwing closes the channel before a byte of TLS was spent on it.
        let identity = try connections.accept(channel, address)
        let handshake = PeerHandshake(identity: identity, address: address)
        let connection = PeerConnectionHandler(
            handshake: handshake, connections: connections, handler: handler, limits: limits)
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(
            PlaintextGuard { [weak connection] first in
                connection?.refuse(IdentityError(.plaintext, "first byte is \(first), not a TLS handshake's"))
            })
        var keeping = NIOSSLHandler.Configuration()
        keeping.maximumPreservedOutboundBufferCapacity = limits.keptSealedBytes
        try pipeline.addHandler(
            NIOSSLServerHandler(
                context: identity.serverContext,
                customVerificationCallback: { certificates, promise in
                    promise.succeed(handshake.verify(certificates) ? .certificateVerified : .failed)
                }, configuration: keeping))
        let meter = RequestMeter()
        try pipeline.addHandler(meter)
        connection.meter = meter
        var decoding = NIOHTTPDecoderLimitConfiguration()
        decoding.maxHeaderFieldSize = limits.headBytes
        decoding.maxHeaderListSize = limits.headBytes
        decoding.maxHeaderFieldCount = limits.headerFields
        try pipeline.addHandler(HTTPResponseEncoder())
        try pipeline.addHandler(
            ByteToMessageHandler(
                HTTPRequestDecoder(
                    leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .drop,
                    limitConfiguration: decoding)))
        try pipeline.addHandler(connection)
        meter.onExcess = { [weak connection] in connection?.exceedsLimit() }
    }
}

/// Sees whether the first byte is a TLS record's (RFC 8446 section 5.1: handshake, 22): a plain HTTP client gets its own
/// reason.
private final class PlaintextGuard: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let onPlaintext: (UInt8) -> Void

    init(_ onPlaintext: @escaping (UInt8) -> Void) { self.onPlaintext = onPlaintext }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        guard let first = buffer.getInteger(at: buffer.readerIndex, as: UInt8.self), first != 22 else {
            context.fireChannelRead(data)
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
            return
        }
        onPlaintext(first)
    }
}

/// Counts the bytes of one request as they come. The limit is looked at after each read was parsed, since a head that
/// came in it may have raised it: so a read's worth (64 KiB) over the limit is kept at most.
final class RequestMeter: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    /// Bytes that may come until `reset`; the limit of a head before one was parsed.
    var limit = 0
    private(set) var bytes = 0
    var onExcess: (() -> Void)?
    /// The first bytes of a request have come.
    var onFirst: (() -> Void)?

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let isFirst = bytes == 0
        bytes += unwrapInboundIn(data).readableBytes
        if isFirst { onFirst?() }
        context.fireChannelRead(data)
        if bytes > limit { onExcess?() }
    }

    /// The next request may come.
    func reset(limit: Int) {
        bytes = 0
        self.limit = limit
    }
}
