import ChunkModel
import ChunkResolution
import ContentIndex
import ControlAPI
import Glibc
import Integrity
import LinuxSystem
import Logging
import Membership
import NIOPosix
import PeerExchange
import PeerTransport
import PeerWire
import Settings
import Synchronization
import Telemetry

/// This node among its peers: membership and content index as seen from here, the server peers ask, and what this node
/// asks of them. Thread-safe.
///
/// All decisions are made by the values in `ClusterState`, under one lock that is never held over I/O; frames go out and
/// come in around it. What peers say is advice: the gate checks every byte.
final class ClusterNode: Sendable {
    /// What a node is made from.
    struct Parts: Sendable {
        let settings: AgentSettings.Cluster
        let pipeline: FetchPipeline
        let gate: GateClient
        let metrics: AgentMetrics
        let logger: Logger
        /// For what blocks: files, name resolution.
        let disk: WorkQueue
        /// Whether ordinary images are shared too.
        let hasMirror: Bool
        let spans: SpanRecorder
    }

    /// How often certificates and seeds are looked at, and news of our own content told.
    static let identityInterval = Duration.seconds(5)
    static let seedInterval = Duration.seconds(10)
    static let announceInterval = Duration.milliseconds(500)
    /// Saying goodbye may take this long: the membership lingers for less (`MembershipConfiguration.leaveLinger`).
    static let goodbye = Duration.seconds(4)
    /// Old news are dropped from the index this often.
    static let sweepInterval = Duration.seconds(60)

    let parts: Parts
    let own: NodeName
    let store: IdentityStore
    let client: PeerClient
    /// For whole blobs, which go to a disk: nobody's chunk waits behind them. Nil without a mirror.
    let wholeClient: PeerClient?
    /// Who has the blobs of ordinary images.
    let wholeSupplier = Mutex<(any WholeSupplier)?>(nil)
    let signer: RecordSigner
    let verifier: RecordVerifier
    let state: Mutex<ClusterState>
    private let start = Monotonic.now
    /// Wakes the thread that keeps the membership's time.
    let alarm = Monitor(Alarm())
    private let server = Mutex<PeerServer?>(nil)
    private let exchange = Mutex<PeerExchangeServer?>(nil)
    /// What was wrong with the seeds when they were last looked up: said once.
    let seedProblems = Mutex<[SeedProblem]>([])
    private let pool = NIOThreadPool(numberOfThreads: 2)

    struct Alarm {
        var isRung = false
        var isStopped = false
        /// Others know that we have left.
        var hasDeparted = false
    }

    /// Loads certificates and makes the own record: blocking file I/O. Throws when they are not fit for use, since a node
    /// that silently stays alone is a mystery.
    init(_ parts: Parts, advertise: PeerAddress) throws {
        self.parts = parts
        let settings = parts.settings
        guard let domain = TrustDomain(settings.trustDomain) else {
            throw AgentError(.cluster, "cluster.trustDomain: \"\(settings.trustDomain)\" is no trust domain")
        }
        let observer = Self.observer(parts)
        store = IdentityStore(
            files: IdentityFiles(
                bundle: settings.caFile, certificate: settings.certFile, key: settings.keyFile,
                denyList: settings.denyFile.isEmpty ? nil : settings.denyFile), trustDomain: domain, observer: observer)
        do throws(IdentityError) { own = try store.require().name } catch {
            throw AgentError(.cluster, "\(error.message): see chunkctl pki inspect")
        }
        client = PeerClient(store: store, observer: observer)
        wholeClient = parts.hasMirror ? PeerClient(store: store, observer: observer) : nil
        signer = RecordSigner(store)
        verifier = RecordVerifier(store)
        let boot = UInt64(max(0, ImageService.unixTime() * 1000))
        guard
            let bare = NodeRecord(
                name: own, boot: boot, incarnation: boot, address: advertise.text, zone: settings.zone,
                version: chunkdVersion)
        else { throw AgentError(.cluster, "cluster.zone or cluster.advertise is too long") }
        let record = try Self.sign(bare, signer)
        var configuration = MembershipConfiguration()
        configuration.rejoinInterval = .seconds(10)
        state = Mutex(
            ClusterState(
                membership: Membership(
                    configuration: configuration, own: record, seed: Monotonic.now.nanoseconds ^ boot, now: .zero),
                selector: PeerSelector(own: own)))
        state.withLock { _ = $0.index.setMember(own, zone: settings.zone, now: .zero) }
        store.onChange { [weak self] _ in
            guard let self else { return }
            perform(handle(.certificateChanged))
        }
    }

    /// Time since this node was made, monotonic: what the state machines count in.
    var now: Duration { .nanoseconds(Int64(Monotonic.now.nanoseconds - start.nanoseconds)) }

    private static func sign(_ record: NodeRecord, _ signer: RecordSigner) throws -> NodeRecord {
        let body = SignedRecord.body(of: record)
        let proof = SignedRecord(body: body, signature: try signer.sign(body), certificate: [])
        guard let signed = record.signed(proof: proof.bytes) else {
            throw AgentError(.cluster, "the certificate chain is too long for a record: \(proof.bytes.count) bytes")
        }
        return signed
    }

    private static func observer(_ parts: Parts) -> PeerTransportObserver {
        let (metrics, logger) = (parts.metrics, parts.logger)
        return { event in
            switch event {
            case .refused(let reason, let peer, let address, let detail):
                metrics.cluster.refusals[reason.rawValue].increment()
                metrics.events.note(.peerRefused, peer?.text ?? "\(address)", reason.rawValue)
                logger.warning(
                    "peer refused",
                    metadata: [
                        "reason": "\(reason.rawValue)", "peer": "\(peer?.text ?? "")", "address": "\(address)",
                        "detail": "\(detail)",
                    ])
            case .identityLoaded(let identity):
                metrics.cluster.certificateExpiry.set(UInt64(max(0, identity.notAfter)))
                metrics.events.note(.certificateLoaded, "\(identity.name)")
                logger.info("certificate in use", metadata: ["node": "\(identity.name)"])
            case .identityRejected(let error):
                metrics.cluster.refusals[error.reason.rawValue].increment()
                metrics.events.note(.certificateRejected, error.reason.rawValue, error.message)
                logger.error("new certificate files not taken over", metadata: ["error": "\(error.message)"])
            case .connected, .disconnected: break
            }
        }
    }

    // MARK: - Running

    /// Serves peers and joins them.
    func run(_ group: MultiThreadedEventLoopGroup) async throws {
        pool.start()
        let uploads = UploadGate(Self.uploadLimits(parts.settings), loop: group.next())
        let exchange = PeerExchangeServer(
            PeerExchangeServer.Parts(chunks: self, gossip: self, mount: self, complaints: self), uploads: uploads,
            pool: pool, spanIDs: { [spans = parts.spans] in spans.spanID() },
            observer: { [weak self] served in self?.noteServed(served) })
        self.exchange.withLock { $0 = exchange }
        let listen = parts.settings.listen
        let server = try await PeerServer.start(
            host: listen.host, port: listen.port, group: group, store: store, handler: exchange,
            observer: Self.observer(parts))
        self.server.withLock { $0 = server }
        try Thread.start("gossip") { [weak self] in while self?.keepTime() == true {} }
        parts.logger.info(
            "serving peers", metadata: ["node": "\(own)", "address": "\(listen)", "zone": "\(parts.settings.zone)"])
    }

    /// What has to be done again and again; returns when cancelled.
    func maintain() async {
        var next = (identity: Duration.zero, seeds: Duration.zero, sweep: Self.sweepInterval)
        while !Task.isCancelled {
            let time = now
            if time >= next.identity {
                next.identity = time + Self.identityInterval
                await parts.disk.run { [store] in store.tick() }
                server.withLock { $0 }?.tick()
            }
            if time >= next.seeds {
                next.seeds = time + Self.seedInterval
                await lookUpSeeds()
            }
            if time >= next.sweep {
                next.sweep = time + Self.sweepInterval
                state.withLock { $0.index.sweep(now: time) }
            }
            announce()
            mirror()
            try? await Task.sleep(for: Self.announceInterval)
        }
    }

    static func uploadLimits(_ settings: AgentSettings.Cluster) -> UploadLimits {
        UploadLimits(
            bytesPerSecond: settings.uploadBytesPerSecond, bytesPerSecondPerPeer: settings.uploadBytesPerSecondPerPeer)
    }

    /// Other limits from now on.
    func change(_ limits: UploadLimits) { exchange.withLock { $0 }?.uploads.change(limits) }

    /// Peers are given nothing from now on; asking them goes on.
    func stopServing() { state.withLock { $0.isLeaving = true } }

    /// Says goodbye, for a moment: to the others this node has left.
    func depart() async {
        stopServing()
        guard !alarm.withLock({ $0.hasDeparted }) else { return }
        perform(state.withLock { [now] in $0.take(.leave, now: now) })
        let deadline = now + Self.goodbye
        while now < deadline, !alarm.withLock({ $0.hasDeparted }) {
            // Cancelled: who waits for the goodbye no longer wants to.
            guard (try? await Task.sleep(for: .milliseconds(50))) != nil else { return }
        }
    }

    /// Says goodbye and lets uploads end; asking peers goes on.
    func leave() async {
        await depart()
        await endServing()
    }

    private func endServing() async {
        let server = self.server.withLock { server in
            defer { server = nil }
            return server
        }
        await server?.drain(grace: .seconds(2))
    }

    /// Ends everything, without a goodbye unless `leave` was called.
    func stop() async {
        await endServing()
        alarm.update { $0.isStopped = true }
        await client.shutDown()
        await wholeClient?.shutDown()
        try? await pool.shutdownGracefully()
    }

    private func mirror() {
        let (counts, blobs, bytes) = state.withLock { ($0.membership.counts, $0.index.blobCount, $0.index.byteCount) }
        parts.metrics.cluster.members["alive"].set(counts.alive)
        parts.metrics.cluster.members["suspect"].set(counts.suspect)
        parts.metrics.cluster.members["dead"].set(counts.dead)
        parts.metrics.cluster.members["left"].set(counts.left)
        parts.metrics.cluster.indexBlobs.set(blobs)
        parts.metrics.cluster.indexBytes.set(bytes)
    }
}
