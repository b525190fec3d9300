import ChunkModel
import ControlAPI
import LinuxSystem
import Logging
import Telemetry
import OCISpec
import Synchronization

/// What chunkd does for the clients of its control socket. Thread-safe.
package final class AgentService: ControlService {
    let images: ImageService
    let gate: GateClient
    let pipeline: FetchPipeline
    let metrics: AgentMetrics
    let logger: Logger
    let doctorParts: DoctorParts
    let quota: UInt64
    /// Nil unless ordinary images are mirrored.
    private let mirrorQuota: UInt64?
    let spans: SpanRecorder
    private let started = Monotonic.now
    /// chunkgate says it lost its group while images were mounted.
    let integrityGap = Mutex(false)
    /// The limits in force.
    let limits = Mutex(LimitsReply())
    let cluster: ClusterNode?
    /// Access traces being recorded, by image.
    let recordings = Mutex<[Digest: Recording]>([:])

    init(
        images: ImageService, gate: GateClient, pipeline: FetchPipeline, metrics: AgentMetrics, logger: Logger,
        doctorParts: DoctorParts, quota: UInt64, mirrorQuota: UInt64? = nil, spans: SpanRecorder,
        cluster: ClusterNode? = nil
    ) {
        self.cluster = cluster
        self.images = images
        self.gate = gate
        self.pipeline = pipeline
        self.metrics = metrics
        self.logger = logger
        self.doctorParts = doctorParts
        self.quota = quota
        self.mirrorQuota = mirrorQuota
        self.spans = spans
    }

    /// Runs a call; every error leaves as a `ControlError`.
    func answering<Value>(_ body: () async throws -> Value) async throws -> Value {
        do { return try await body() } catch { throw ControlError.from(error) }
    }

    static func seconds(since start: Monotonic) -> Double {
        Double(Monotonic.now.nanoseconds - start.nanoseconds) * 1e-9
    }

    // MARK: - Mounts

    package func mount(_ request: MountRequest) async throws -> MountReply {
        let start = Monotonic.now
        do {
            let reply = try await answering { try await mount(request, start) }
            metrics.mountSeconds.observe(reply.seconds)
            metrics.events.note(.mounted, reply.reference, "\(reply.manifestDigest)")
            logger.info(
                "mounted",
                metadata: [
                    "reference": "\(reply.reference)", "manifest": "\(reply.manifestDigest)",
                    "seconds": "\(reply.seconds)",
                ])
            return reply
        } catch {
            let code = (error as? ControlError)?.code ?? .internal
            metrics.mountErrors[code.rawValue].increment()
            metrics.events.note(.mountFailed, request.reference, "\(error)")
            logger.error("mount failed", metadata: ["reference": "\(request.reference)", "error": "\(error)"])
            throw error
        }
    }

    private func mount(_ request: MountRequest, _ start: Monotonic) async throws -> MountReply {
        try await images.waitUntilSynced()
        let (manifest, name) = try await images.resolve(request.reference)
        if let pinned = request.pinnedDigest, pinned != manifest.digest {
            throw ControlError(
                .conflict, "\(request.reference) is \(manifest.digest), expected \(pinned)",
                hint: "the tag was moved; mount by digest to keep what you had")
        }
        let wasMounted = await images.isMounted(manifest.digest)
        let info = try await images.open(manifest, name: name, mount: true)
        return MountReply(
            reference: request.reference, manifestDigest: manifest.digest, mountPath: info.path,
            bootstrapBytes: info.bootstrapSize, rawBytes: info.blobs.reduce(0) { $0 + $1.rawSize },
            blobs: info.blobs.count, chunks: info.blobs.reduce(0) { $0 + UInt64($1.chunkCount) },
            residentChunks: info.blobs.reduce(0) { $0 + UInt64($1.residentCount) }, alreadyMounted: wasMounted,
            seconds: Self.seconds(since: start))
    }

    package func umount(_ request: UmountRequest) async throws -> UmountReply {
        do {
            return try await answering {
                var reply = UmountReply(manifestDigest: request.manifestDigest, released: false)
                if request.dryRun == true {
                    try await images.checkContainers(request.manifestDigest)
                } else {
                    reply.released = try await images.close(request.manifestDigest)
                    if reply.released { metrics.events.note(.unmounted, "\(request.manifestDigest)") }
                }
                return reply
            }
        } catch let error as ControlError {
            metrics.umountErrors[error.code.rawValue].increment()
            if error.code == .conflict {
                metrics.events.note(.unmountRefused, "\(request.manifestDigest)", error.message)
            }
            logger.warning(
                "umount refused", metadata: ["manifest": "\(request.manifestDigest)", "error": "\(error)"])
            throw error
        }
    }

    // MARK: - Images

    package func images() async throws -> ImagesReply {
        try await answering {
            try await images.waitUntilSynced()
            return ImagesReply(images: try await summaries())
        }
    }

    /// After a connection the catalogue may still be learning what the gate has.
    private func summaries() async throws -> [ImageSummary] {
        let list = try await gate.list()
        let snapshot = await pipeline.snapshot()
        return await images.summaries(list, quarantined: Set(snapshot.quarantined.map(\.blob)))
    }

    // MARK: - Garbage

    package func pin(_ request: PinRequest) async throws -> PinReply {
        try await answering {
            try await images.waitUntilSynced()
            let digest = try await images.storedDigest(request.reference)
            try await images.setPinned(digest, request.pinned)
            return PinReply(reference: request.reference, manifestDigest: digest, pinned: request.pinned)
        }
    }

    package func collectGarbage(_ request: GarbageRequest) async throws -> GarbageReply {
        try await answering {
            try await images.waitUntilSynced()
            let removed = try await images.collect(.all, dryRun: request.dryRun)
            return GarbageReply(
                dryRun: request.dryRun, removed: removed, freedBytes: removed.reduce(0) { $0 + $1.freedBytes })
        }
    }

    // MARK: - Stat and version

    package func stat() async throws -> StatReply {
        var reply = StatReply()
        reply.uptimeSeconds = Self.seconds(since: started)
        reply.gateConnected = gate.current != nil
        reply.sources = metrics.sources
        reply.bytesFetched = reply.sources.filter { $0.source != "local" }.reduce(0) { $0 + $1.bytes }
        let outside = reply.sources.filter { $0.source != "local" }
        let all = outside.reduce(0) { $0 + $1.chunks }
        let offloaded = outside.filter { !$0.source.hasPrefix("registry") }.reduce(0) { $0 + $1.chunks }
        reply.offloadRatio = all == 0 ? nil : Double(offloaded) / Double(all)
        (reply.indexBlobs, reply.indexBytes) = cluster?.indexSize ?? (0, 0)
        reply.errors = metrics.errors
        reply.agentMemoryBytes = metrics.residentBytes
        reply.quotaBytes = quota
        reply.mirror = mirrorQuota.map { metrics.mirroring.stat(quota: $0) }
        let snapshot = await pipeline.snapshot()
        reply.integrity.mismatches = metrics.mismatches.value
        reply.integrity.integrityGap = integrityGap.withLock { $0 }
        reply.integrity.quarantined = snapshot.quarantined.map { key in
            QuarantineStat(kind: "image", name: key.blob.description, reason: "wrong bytes from its registry")
        }
        reply.reads.missP50Seconds = metrics.missSeconds.quantile(0.5)
        reply.reads.missP99Seconds = metrics.missSeconds.quantile(0.99)
        // Without a gate there is still something to say.
        guard reply.gateConnected, let counters = try? await gate.counters() else { return reply }
        metrics.mirror(counters)
        fill(&reply, counters)
        reply.images = (try? await summaries()) ?? []
        reply.graduatedBlobs = UInt64(reply.images.flatMap(\.blobs).count(where: \.graduated))
        return reply
    }

    private func fill(_ reply: inout StatReply, _ counters: [GateProtocol.Counter: UInt64]) {
        func value(_ counter: GateProtocol.Counter) -> UInt64 { counters[counter] ?? 0 }
        reply.gateRestarts = value(.restarts)
        reply.cacheBytes = value(.residentBytes)
        reply.reads.bytesRead = value(.bytesAsked)
        reply.reads.events = value(.events)
        reply.reads.hits = value(.hits)
        reply.reads.misses = value(.misses)
        reply.reads.denied = value(.denied)
        reply.reads.blockedReaders = value(.blockedReaders)
        reply.reads.oldestBlockedSeconds = Double(value(.oldestBlockedMilliseconds)) / 1000
        reply.integrity.selfEvents = value(.selfEvents)
        reply.integrity.integrityGaps = value(.integrityGaps)
        reply.integrity.integrityGap = reply.integrity.integrityGap || value(.integrityGaps) > 0
        reply.integrity.mismatches = max(reply.integrity.mismatches, value(.fillMismatches))
        reply.integrity.verifyFailures = value(.verifyFailures)
    }

    package func version() async throws -> VersionReply {
        VersionReply(
            version: chunkdVersion, gateProtocol: Int(GateProtocol.version), gateConnected: gate.current != nil)
    }
}
