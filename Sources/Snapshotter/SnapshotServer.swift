internal import GRPCCore
internal import GRPCNIOTransportHTTP2Posix
internal import NIOCore
internal import NIOPosix

/// The snapshots service on a unix socket, for containerd's proxy plugin.
package struct SnapshotServer: Sendable {
    private let server: GRPCServer<HTTP2ServerTransport.Posix>
    private let threads = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// - Parameter listener: the descriptor of a unix stream socket that listens, which `run` closes. It is as guarded as
    ///   the place it was bound to.
    package init(listener: Int32, service: SnapshotService) {
        let transport = HTTP2ServerTransport.Posix(
            listeningSocketDescriptor: Int(listener), transportSecurity: .plaintext, eventLoopGroup: threads)
        server = GRPCServer(transport: transport, services: [SnapshotsProvider(service: service)])
    }

    /// Serves until `stop`, or until the task is cancelled. Then the server is done with.
    package func run() async throws {
        // Calls are carried out where they are received: a call's way in and out would else be handed over to other
        // threads four times, which took as long as its work.
        let executor = LoopExecutor(loop: threads.next())
        let result: Result<Void, any Error> = await withTaskExecutorPreference(executor) {
            do { return .success(try await server.serve()) } catch { return .failure(error) }
        }
        try await threads.shutdownGracefully()
        try result.get()
    }

    /// Lets calls end and takes no more.
    package func stop() { server.beginGracefulShutdown() }
}

/// Runs tasks on an event loop's thread.
private final class LoopExecutor: TaskExecutor {
    private let loop: any EventLoop

    init(loop: any EventLoop) { self.loop = loop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { [self] in job.runSynchronously(on: asUnownedTaskExecutor()) }
    }
}
