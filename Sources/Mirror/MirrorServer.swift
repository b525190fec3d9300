import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Bounds of the endpoint.
package struct MirrorServerLimits: Sendable {
    /// Connections at once: containerd keeps a few for each pull; each has one slice in memory (256 × 256 KiB = 64 MiB).
    package var connections = 256
    /// A connection on which nothing is asked for this long is closed.
    package var idleTimeout = TimeAmount.seconds(120)
    /// A client that takes nothing of a slice for this long is given up: containerd may pause while its disk is slow.
    package var stallTimeout = TimeAmount.seconds(300)

    package init() {}
}

/// The mirror endpoint: HTTP/1.1 without TLS on a loopback address. Safe from any thread.
package final class MirrorServer: Sendable {
    private let channel: any Channel
    private let connections: MirrorConnections

    private init(channel: any Channel, connections: MirrorConnections) {
        self.channel = channel
        self.connections = connections
    }

    /// Binds and serves until `stop`.
    /// - Throws: `IOError` of NIO with the errno of socket(2), bind(2) or listen(2).
    package static func start(
        host: String, port: Int, group: any EventLoopGroup, responder: any MirrorResponder,
        limits: MirrorServerLimits = MirrorServerLimits()
    ) async throws -> MirrorServer {
        let connections = MirrorConnections(limit: limits.connections)
        let channel = try await ServerBootstrap(group: group)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(ChannelOptions.backlog, value: 128)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard connections.admit(channel) else { throw ChannelError.eof }
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(MirrorHandler(responder: responder, limits: limits))
                }
            }
            .bind(host: host, port: port).get()
        return MirrorServer(channel: channel, connections: connections)
    }

    /// The port bound, also when 0 was asked for.
    package var port: Int { channel.localAddress?.port ?? 0 }

    /// Stops accepting and closes what is open: containerd goes on at the registry.
    package func stop() async {
        // Closed already: fine.
        try? await channel.close()
        await connections.closeAll()
    }
}

/// The open connections, bounded. Thread-safe.
final class MirrorConnections: Sendable {
    private let limit: Int
    private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])

    init(limit: Int) { self.limit = limit }

    /// Whether there is room; the channel is counted until it closes.
    func admit(_ channel: any Channel) -> Bool {
        let id = ObjectIdentifier(channel)
        let isAdmitted = channels.withLock { channels in
            guard channels.count < limit else { return false }
            channels[id] = channel
            return true
        }
        if isAdmitted { channel.closeFuture.whenComplete { _ in self.forget(id) } }
        return isAdmitted
    }

    private func forget(_ id: ObjectIdentifier) { channels.withLock { $0[id] = nil } }

    func closeAll() async {
        for channel in channels.withLock({ Array($0.values) }) {
            // Closed already: fine.
            try? await channel.close()
        }
    }
}
