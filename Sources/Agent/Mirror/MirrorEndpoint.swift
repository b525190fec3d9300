import ChunkModel
import LinuxSystem
import Logging
import Mirror
import NIOCore
import NIOPosix
import RegistryClient
import Settings
import Synchronization
import Telemetry

/// The mirror, put together. Its transfers, its disk and its event loop are its own: nothing that a reader of a mounted
/// image waits for ever waits for it.
final class MirrorEndpoint: Sendable {
    /// Threads that read, hash and sync blobs: one that hashes a large one does not hold up the others.
    private static let diskThreads = 3
    /// Requests for one operation: containerd goes on at the registry by itself, so persistence is not needed here.
    private static let attempts = 2

    let service: MirrorService
    private let settings: AgentSettings.Mirror
    private let registry: RegistryClient
    private let disk: WorkQueue
    private let cluster: ClusterNode?
    private let logger: Logger
    private let running = Mutex<(MirrorServer, MultiThreadedEventLoopGroup)?>(nil)

    /// Opens the cache: blocking file I/O.
    init(
        _ settings: AgentSettings.Mirror, directory: String, registry configuration: RegistryConfiguration,
        cluster: ClusterNode?, sharing: SharingPolicy, metrics: AgentMetrics, logger: Logger
    ) throws {
        self.settings = settings
        self.cluster = cluster
        self.logger = logger
        var configuration = configuration
        configuration.retry.maxAttempts = min(Self.attempts, configuration.retry.maxAttempts)
        registry = RegistryClient(configuration: configuration, observer: metrics.observe)
        disk = try WorkQueue("mirror", threads: Self.diskThreads)
        let cache = try BlobCache(directory: directory, quota: settings.quotaBytes) { [weak cluster] digest in
            metrics.mirroring.evicted.increment()
            cluster?.note(whole: digest, isHere: false)
        }
        service = MirrorService(
            MirrorService.Parts(
                registries: Set(settings.registries),
                accesses: MirrorAccesses(registry, nodeCredentials: settings.usesNodeCredentials), cache: cache,
                records: try ImageRecords(directory: directory + "/images"), disk: disk, cluster: cluster,
                sharing: sharing, metrics: metrics, logger: logger))
        cluster?.wholeSupplier.withLock { $0 = service }
    }

    /// Serves until `stop`. The cluster is running.
    func run() async throws {
        await service.restore()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server: MirrorServer
        do {
            server = try await MirrorServer.start(
                host: settings.listen.host, port: settings.listen.port, group: group, responder: service)
        } catch {
            // The error below says more.
            try? await group.shutdownGracefully()
            throw AgentError(.state, "mirror.listen \(settings.listen): \(error)")
        }
        running.withLock { $0 = (server, group) }
        logger.info(
            "mirroring registries",
            metadata: [
                "address": "\(settings.listen.host):\(server.port)",
                "registries": "\(settings.registries.joined(separator: ","))",
            ])
    }

    /// The port bound; 0 before `run`.
    var port: Int { running.withLock { $0?.0.port } ?? 0 }

    func stop() async {
        cluster?.wholeSupplier.withLock { $0 = nil }
        let running = running.withLock { running in
            defer { running = nil }
            return running
        }
        await running?.0.stop()
        await registry.shutDown()
        disk.stop()
        // Ended or not, the process is about to.
        try? await running?.1.shutdownGracefully()
    }
}
