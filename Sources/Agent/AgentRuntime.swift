import Catalogue
import ChunkModel
import ChunkResolution
import ControlAPI
import Glibc
import LinuxSystem
import Logging
import NIOCore
import NIOPosix
import PeerTransport
import RegistryClient
import ServiceLifecycle
import Settings
import Snapshotter
import Synchronization
import Telemetry

/// chunkd, put together: made from settings, runs until it is told to stop.
package final class AgentRuntime: Service {
    /// Where one agent's parts are; tests make their own.
    package struct Configuration: Sendable {
        package var settings: AgentSettings
        package var registry: RegistryConfiguration

        package init(settings: AgentSettings, registry: RegistryConfiguration) {
            self.settings = settings
            self.registry = registry
        }
    }

    /// How often the gate's counters are read, uses are noted and the quota is looked at.
    private static let maintenanceInterval = Duration.seconds(2)
    /// Threads that decompress, and that do blocking file work.
    private static let decodeThreads = 2
    private static let diskThreads = 2
    /// Event loops for control and metrics: neither is busy.
    private static let eventLoops = 1

    package let service: AgentService
    package let metrics: AgentMetrics
    private let settings: AgentSettings
    private let images: ImageService
    private let gate: GateClient
    private let pipeline: FetchPipeline
    private let registry: RegistryClient
    private let decoders: DecodePool
    private let disk: WorkQueue
    private let logger: Logger
    private let notices: AsyncStream<GateClient.Notice>
    private let cluster: ClusterNode?
    /// Nil unless containerd is served.
    let snapshots: SnapshotService?
    /// Nil unless ordinary images are mirrored.
    let mirror: MirrorEndpoint?

    /// Opens what must be there: blocking file I/O, so call it before anything waits.
    package init(_ configuration: Configuration, logger: Logger) throws {
        let settings = configuration.settings
        self.settings = settings
        self.logger = logger
        let metrics = AgentMetrics()
        self.metrics = metrics
        let directory = settings.stateDirectory + "/agent"
        try Self.waitForDirectory(directory)
        let content = try ContentStore(directory: directory + "/content")
        let catalogue = try Catalogue(path: directory + "/catalogue.sqlite")
        if case .damaged(let aside, let reason) = catalogue.condition {
            logger.error(
                "the catalogue was damaged and is made again",
                metadata: ["setAside": "\(aside)", "reason": "\(reason)"])
        }
        let limits = Self.limits(settings)
        // Slots as large as any chunk may be: their pages exist from first use only.
        let arena = try Arena(slotSize: Limits.maxChunkSize, slotCount: SlotPool.Limits().slots)
        disk = try WorkQueue("disk", threads: Self.diskThreads)
        decoders = try DecodePool(threads: Self.decodeThreads)
        registry = RegistryClient(configuration: configuration.registry, observer: metrics.observe)
        pipeline = FetchPipeline()
        let (stream, continuation) = AsyncStream.makeStream(of: GateClient.Notice.self)
        notices = stream
        let pipeline = self.pipeline
        let spans = SpanRecorder()
        gate = try GateClient(path: settings.gateSocket, arena: arena, logger: logger) { notice in
            switch notice {
            case .up(let connection, _, _): pipeline.post(.gateUp(connection))
            case .down: pipeline.post(.gateDown)
            case .event(let connection, let event):
                return pipeline.post(.gate(connection: connection.number, event))
            case .refused: break
            }
            continuation.yield(notice)
        }
        cluster =
            settings.cluster.isEnabled
            ? try ClusterNode(
                ClusterNode.Parts(
                    settings: settings.cluster, pipeline: pipeline, gate: gate, metrics: metrics, logger: logger,
                    disk: disk, hasMirror: settings.mirror.enabled, spans: spans),
                advertise: try Self.advertised(settings.cluster)) : nil
        let sharing = SharingPolicy(
            publicImages: settings.cluster.publicImages, keyedImages: settings.cluster.keyedImages,
            unshared: settings.cluster.unsharedImages)
        mirror =
            settings.mirror.enabled
            ? try MirrorEndpoint(
                settings.mirror, directory: directory + "/mirror", registry: configuration.registry, cluster: cluster,
                sharing: sharing, metrics: metrics, logger: logger) : nil
        let ledger = try Self.ledger(settings, logger)
        images = ImageService(
            ImageService.Parts(
                gate: gate, pipeline: pipeline, catalogue: catalogue, content: content,
                loader: PartsLoader(
                    registry: registry, content: content, disk: disk, metrics: metrics, cluster: cluster), disk: disk,
                metrics: metrics,
                logger: logger, hydrateAfter: settings.hydrate.enabled ? settings.hydrate.delay : nil,
                replaysTraces: settings.trace.replay,
                quota: (settings.quota.highWaterBytes, settings.quota.lowWaterBytes), cluster: cluster,
                sharing: sharing, ledger: ledger))
        service = AgentService(
            images: images, gate: gate, pipeline: pipeline, metrics: metrics, logger: logger,
            doctorParts: DoctorParts(
                catalogue: catalogue, registry: registry, disk: disk, stateDirectory: settings.stateDirectory,
                gateSocket: settings.gateSocket, configuredHosts: settings.registries.map(\.host)),
            quota: settings.quota.highWaterBytes,
            mirrorQuota: settings.mirror.enabled ? settings.mirror.quotaBytes : nil, spans: spans, cluster: cluster)
        snapshots = ledger.map { [images, gate] ledger in
            SnapshotService(
                ledger: ledger,
                host: SnapshotNode(gate: gate, images: images, stateDirectory: settings.stateDirectory, logger: logger),
                logger: logger, now: { Int64(ImageService.unixTime() * 1e9) }, observe: metrics.observe(snapshots:))
        }
        try startPipeline(arena, catalogue, limits, spans)
        service.startLimits(settings)
        metrics.events.note(.started, "chunkd", "version \(chunkdVersion)")
    }

    /// Which snapshots containers have; nil unless containerd is served.
    private static func ledger(_ settings: AgentSettings, _ logger: Logger) throws -> SnapshotLedger? {
        guard settings.snapshotter.enabled else { return nil }
        let ledger = try SnapshotLedger(
            path: settings.stateDirectory + "/agent/snapshots.sqlite", firstID: UInt64(ImageService.unixTime() * 1000))
        if case .damaged(let aside, let reason) = ledger.condition {
            logger.critical(
                "the list of container snapshots was damaged: containerd's images must be pulled again",
                metadata: ["setAside": "\(aside)", "reason": "\(reason)"])
        }
        return ledger
    }

    private func startPipeline(
        _ arena: Arena, _ catalogue: Catalogue, _ limits: FetchLimits, _ spans: SpanRecorder
    ) throws {
        let images = self.images
        var readAhead: ReadAheadDetector.Limits? = ReadAheadDetector.Limits()
        readAhead?.maxWindowBytes = Int(clamping: settings.readAheadWindowMaxBytes)
        if settings.readAheadWindowMaxBytes == 0 { readAhead = nil }
        try pipeline.start(
            FetchPipeline.Parts(
                registry: registry, catalogue: catalogue, metrics: metrics, logger: logger, arena: arena,
                slots: Slots(SlotPool.Limits()),
                decoders: decoders, limits: limits, readAhead: readAhead,
                hydrationRate: settings.hydrate.rateBytesPerSecond, makeRoom: { await images.makeRoom() },
                peers: cluster, spans: spans))
    }

    /// Where peers reach this node: as configured, else the listening address, else the one a packet to the outside would
    /// have (a connected UDP socket sends nothing).
    static func advertised(_ settings: AgentSettings.Cluster) throws(AgentError) -> PeerAddress {
        if !settings.advertise.isEmpty {
            guard let address = PeerAddress(settings.advertise) else {
                throw AgentError(.cluster, "cluster.advertise: \"\(settings.advertise)\" is no ip:port of a host")
            }
            return address
        }
        let listen = settings.listen
        if let address = PeerAddress(host: listen.host, port: UInt16(listen.port)) { return address }
        guard let host = OutgoingAddress.find(), let address = PeerAddress(host: host, port: UInt16(listen.port)) else {
            throw AgentError(.cluster, "no address found that peers could reach: set cluster.advertise")
        }
        return address
    }

    static func limits(_ settings: AgentSettings) -> FetchLimits {
        var limits = FetchLimits()
        limits.rangeBytes = Int(clamping: settings.fetch.rangeMaxBytes)
        limits.deadline = settings.fetch.deadline
        // Half for readers, who come first; of the rest so many that ranges are long and their latencies overlap.
        limits.demandRanges = max(1, settings.fetch.parallel / 2)
        limits.speculativeRanges = max(1, min(3, settings.fetch.parallel / 4))
        return limits
    }

    /// chunkgate makes the directory for chunkd's user when it starts, which may be a moment later.
    private static func waitForDirectory(_ path: String) throws(AgentError) {
        let deadline = Monotonic.now.adding(milliseconds: 10_000)
        while true {
            do throws(SystemError) { return try Directory.create(path, mode: 0o700) } catch {
                guard Monotonic.now < deadline else {
                    throw AgentError(.state, "\(error): start chunkgate with --agent-user, or make it for this user")
                }
            }
            usleep(100_000)
        }
    }

    // MARK: - Running

    /// Runs until a graceful shutdown is asked for. Throws when another agent has the gate or a socket cannot be had.
    package func run() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: Self.eventLoops)
        do {
            try await serve(group)
        } catch {
            await end(group)
            throw error
        }
        await end(group)
    }

    private func serve(_ group: MultiThreadedEventLoopGroup) async throws {
        let control = try await ControlServer.start(
            path: settings.controlSocket, group: group, service: service, logger: logger)
        var telemetry: TelemetryServer?
        if let address = settings.metricsAddress {
            let gate = self.gate
            telemetry = try await TelemetryServer.start(
                host: address.host, port: address.port, group: group, registry: metrics.registry
            ) {
                gate.current == nil ? .notReady(reason: "no connection to chunkgate") : .ready
            }
        }
        try await cluster?.run(group)
        try await mirror?.run()
        let snapshotSocket = SnapshotSocket(
            path: snapshots == nil ? nil : settings.snapshotter.socket, gate: gate, group: group, logger: logger)
        try gate.start()
        logger.info(
            "ready",
            metadata: [
                "version": "\(chunkdVersion)", "control": "\(settings.controlSocket)",
                "metrics": "\(telemetry.map { String($0.port) } ?? "off")",
            ])
        let result: Result<Void, any Error> = await withTaskGroup(of: Result<Void, any Error>.self) { tasks in
            tasks.addTask { await Self.result { try await self.follow(snapshotSocket) } }
            tasks.addTask { await self.maintain() }
            if let cluster = self.cluster {
                tasks.addTask {
                    await cluster.maintain()
                    return .success(())
                }
            }
            if let snapshots = self.snapshots {
                tasks.addTask { await Self.result { try await Self.serve(snapshots, on: snapshotSocket) } }
            }
            tasks.addTask { await Self.result { try await gracefulShutdown() } }
            let first = await tasks.next() ?? .success(())
            // Readers and containerd are served until then, so that a successor can be there a moment later.
            await cluster?.leave()
            tasks.cancelAll()
            return first
        }
        logger.info("stopping")
        await control.stop()
        try? await telemetry?.stop()
        try result.get()
    }

    private static func serve(_ snapshots: SnapshotService, on socket: SnapshotSocket) async throws {
        for await file in socket.found {
            let descriptor = try StreamListener.duplicate(file)
            return try await SnapshotServer(listener: descriptor, service: snapshots).run()
        }
    }

    /// Keeps the images in step with the gate's connections, one notice after the other.
    private func follow(_ snapshotSocket: SnapshotSocket) async throws {
        for await notice in notices {
            switch notice {
            case .up(let connection, let gap, _):
                metrics.gateConnected.set(1)
                metrics.events.note(.gateConnected, settings.gateSocket)
                service.integrityGap.withLock { $0 = gap }
                if gap {
                    metrics.events.note(.integrityGap, "images", "chunkgate lost its group while they were mounted")
                    logger.critical("chunkgate lost its group while images were mounted: see docs/operations.md")
                }
                try await snapshotSocket.gateConnected()
                await images.sync(connection.number)
                if let snapshots { Task { await cleanUp(snapshots) } }
            case .down:
                metrics.gateConnected.set(0)
                metrics.events.note(.gateLost, settings.gateSocket)
                await images.noteGateDown()
            case .refused(let error): throw error
            case .event: break
            }
        }
    }

    /// What a crash left of snapshots that are no more.
    private func cleanUp(_ snapshots: SnapshotService) async {
        do {
            let count = try await snapshots.cleanup()
            if count > 0 { logger.info("left snapshot directories removed", metadata: ["count": "\(count)"]) }
        } catch {
            logger.warning("left snapshot directories are not removed", metadata: ["error": "\(error)"])
        }
    }

    private static func result(_ body: () async throws -> Void) async -> Result<Void, any Error> {
        do { return .success(try await body()) } catch { return .failure(error) }
    }

    private func maintain() async -> Result<Void, any Error> {
        while !Task.isCancelled {
            try? await Task.sleep(for: Self.maintenanceInterval)
            await images.maintain()
        }
        return .success(())
    }

    private func end(_ group: MultiThreadedEventLoopGroup) async {
        await mirror?.stop()
        await cluster?.leave()
        await cluster?.stop()
        gate.stop()
        pipeline.post(.stop)
        await registry.shutDown()
        decoders.stop()
        disk.stop()
        try? await group.shutdownGracefully()
    }
}
