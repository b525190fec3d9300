internal import GRPCCore
internal import GRPCNIOTransportHTTP2Posix

/// The snapshots service on a unix socket, for containerd's proxy plugin.
package struct SnapshotServer: Sendable {
    private let server: GRPCServer<HTTP2ServerTransport.Posix>
    private let path: String

    /// - Parameter path: in a directory that only root and our own user may enter, which is what guards the socket. It
    ///   must not be there.
    package init(path: String, service: SnapshotService) {
        self.path = path
        let transport = HTTP2ServerTransport.Posix(
            address: .unixDomainSocket(path: path), transportSecurity: .plaintext)
        server = GRPCServer(transport: transport, services: [SnapshotsProvider(service: service)])
    }

    /// Serves until `stop`, or until the task is cancelled.
    package func run() async throws { try await server.serve() }

    /// Waits until the socket takes connections.
    package func waitUntilListening() async throws { _ = try await server.transport.listeningAddress }

    /// Lets calls end and takes no more.
    package func stop() { server.beginGracefulShutdown() }
}
