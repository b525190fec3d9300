internal import GRPCCore
internal import GRPCNIOTransportHTTP2Posix

/// The snapshots service on a unix socket, for containerd's proxy plugin.
package struct SnapshotServer: Sendable {
    private let server: GRPCServer<HTTP2ServerTransport.Posix>

    /// - Parameter listener: the descriptor of a unix stream socket that listens, which `run` closes. It is as guarded as
    ///   the place it was bound to.
    package init(listener: Int32, service: SnapshotService) {
        let transport = HTTP2ServerTransport.Posix(
            listeningSocketDescriptor: Int(listener), transportSecurity: .plaintext)
        server = GRPCServer(transport: transport, services: [SnapshotsProvider(service: service)])
    }

    /// Serves until `stop`, or until the task is cancelled.
    package func run() async throws { try await server.serve() }

    /// Lets calls end and takes no more.
    package func stop() { server.beginGracefulShutdown() }
}
