import Catalogue
import ChunkModel
import ChunkResolution
import Glibc
import Integrity
import LinuxSystem
import Logging
import Telemetry
import OCISpec
import RegistryClient

/// Opens, keeps and removes images: what lies between references and the gate's handles.
///
/// An actor: its own state is small; everything slow is awaited elsewhere.
actor ImageService {
    /// What the service works with.
    struct Parts: Sendable {
        let gate: GateClient
        let pipeline: FetchPipeline
        let catalogue: Catalogue
        let content: ContentStore
        let loader: PartsLoader
        let disk: WorkQueue
        let metrics: AgentMetrics
        let logger: Logger
        /// nil: nothing is hydrated.
        let hydrateAfter: Duration?
        /// What an image's access trace names is fetched once it is mounted.
        let replaysTraces: Bool
        let quota: (high: UInt64, low: UInt64)
        /// Nil without peers.
        var cluster: ClusterNode?
        var sharing = SharingPolicy()
        /// Nil unless containerd is served.
        var ledger: SnapshotLedger?
    }

    /// An image as the gate had it last.
    struct State {
        var info: GateProtocol.ImageInfo
        /// Empty until its manifest was read.
        var keys: [BlobKey] = []
        /// How to fetch its chunks is known.
        var isDescribed = false
        /// Nothing could be found out about it: its readers are refused.
        var isUnserved = false
        var hydration: UInt64?
    }

    let parts: Parts
    var states: [Digest: State] = [:]
    /// Access traces being looked for or replayed.
    var replays: [Digest: Task<Void, Never>] = [:]
    /// Images something is done with; everything else about them waits.
    private var busy: Set<Digest> = []
    private var waiters: [Digest: [CheckedContinuation<Void, Never>]] = [:]
    /// Images whose mount is about to go: nobody is given its path any more.
    var closing: Set<Digest> = []
    /// Why the cache could not be held to its quota last time; empty when it could.
    var quotaProblem = ""
    /// Connection the states belong to; 0 before the first.
    var connection: UInt64 = 0
    var isSynced = false

    init(_ parts: Parts) { self.parts = parts }

    // MARK: - References

    /// How long a registry may take to say what a tag means when the node knows an answer.
    static let resolvePatience = Duration.seconds(5)

    /// The image a reference stands for. A tag is asked of the registry; when that cannot be reached, what it stood for
    /// last is taken, if the node has it.
    func resolve(_ text: String) async throws -> (manifest: ImageManifest, name: String) {
        let reference = try Reference(text)
        let name = Self.canonical(reference)
        let known = await knownManifest(of: name)
        if reference.digest != nil, let known { return (try await parts.loader.manifest(known, reference), name) }
        if let digest = reference.digest { return (try await parts.loader.manifest(digest, reference), name) }
        guard let known else { return (try await parts.loader.fetchManifest(reference), name) }
        do {
            let loader = parts.loader
            return (try await Self.within(Self.resolvePatience) { try await loader.fetchManifest(reference) }, name)
        } catch  where Self.isOutage(error) {
            parts.logger.warning(
                "registry does not answer: taking what the reference stood for last",
                metadata: ["reference": "\(name)", "manifest": "\(known)", "error": "\(error)"])
            return (try await parts.loader.manifest(known, reference), name)
        }
    }

    /// What a reference stood for last, without asking anybody.
    func knownManifest(of name: String) async -> Digest? {
        do throws(CatalogueError) { return try await parts.catalogue.manifest(of: name) } catch {
            parts.metrics.catalogueErrors[error.reason].increment()
            return nil
        }
    }

    private static func isOutage(_ error: any Error) -> Bool {
        guard let error = error as? RegistryError else { return error is CancellationError }
        return switch error.code {
        case .cancelled, .unreachable, .rateLimited, .serverError, .circuitOpen, .unexpectedStatus, .malformedResponse:
            true
        default: false
        }
    }

    /// Runs `body`, cancelled after `limit`.
    static func within<Value: Sendable>(
        _ limit: Duration, _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                try await Task.sleep(for: limit)
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let value = first else { throw CancellationError() }
            return value
        }
    }

    // MARK: - One at a time

    /// Runs `body` while nothing else is done with the image.
    func exclusively<Value: Sendable>(
        _ digest: Digest, _ body: () async throws -> Value
    ) async rethrows -> Value {
        while busy.contains(digest) {
            await withCheckedContinuation { waiters[digest, default: []].append($0) }
        }
        busy.insert(digest)
        defer {
            busy.remove(digest)
            for waiter in waiters.removeValue(forKey: digest) ?? [] { waiter.resume() }
        }
        return try await body()
    }

    func isBusy(_ digest: Digest) -> Bool { busy.contains(digest) }

    // MARK: - Opening

    /// Has the gate open, and with `mount` mount, an image; fetches what the gate needs for that and lacks.
    func open(_ manifest: ImageManifest, name: String?, mount: Bool) async throws -> GateProtocol.ImageInfo {
        try await exclusively(manifest.digest) { try await openNow(manifest, name: name, mount: mount) }
    }

    private func openNow(
        _ manifest: ImageManifest, name: String?, mount: Bool
    ) async throws -> GateProtocol.ImageInfo {
        guard let connection = parts.gate.current?.number else { throw GateConnection.away }
        // While the parts of the image are fetched, so that it is here when the first read is.
        let lookup = mount ? lookForTrace(manifest) : nil
        do {
            await join(manifest)
            let (info, blobs) = try await openKnownOrNew(manifest, name, mount: mount)
            try await adopt(info, manifest.keys, connection, isDescribed: true)
            offerBootstrap(of: manifest)
            hydrate(manifest.digest)
            addPlaces(blobs)
            if let lookup { replay(lookup, manifest) }
            return info
        } catch {
            lookup?.cancel()
            throw error
        }
    }

    private func openKnownOrNew(
        _ manifest: ImageManifest, _ name: String?, mount: Bool
    ) async throws -> (GateProtocol.ImageInfo, [BlobParts]) {
        guard states[manifest.digest] == nil else { return try await openKnown(manifest, name, mount: mount) }
        do { return try await openNew(manifest, name, mount: mount) } catch {
            // Nobody is to wait for what this node will not have.
            parts.cluster?.part(manifest.digest, manifest.keys, alone: alone(manifest.keys, but: manifest.digest))
            throw error
        }
    }

    /// Those of an image's blobs that no other has.
    func alone(_ keys: [BlobKey], but digest: Digest) -> [BlobKey] {
        let others = Set(states.filter { $0.key != digest }.flatMap(\.value.keys))
        return keys.filter { !others.contains($0) }
    }

    /// The gate had it when it was last asked.
    private func openKnown(
        _ manifest: ImageManifest, _ name: String?, mount: Bool
    ) async throws -> (GateProtocol.ImageInfo, [BlobParts]) {
        let blobs = try await prepare(manifest, name)
        do throws(AgentError) {
            let info = try await parts.gate.openImage(
                manifest.digest, mount: mount, blobCount: blobs.count, descriptors: [])
            return (info, blobs)
        } catch {
            guard error.errno == ENOENT else { throw error }
            return try await openNew(manifest, name, mount: mount)
        }
    }

    /// The gate is given all parts; the bootstrap, which is the largest, comes while the others do.
    private func openNew(
        _ manifest: ImageManifest, _ name: String?, mount: Bool
    ) async throws -> (GateProtocol.ImageInfo, [BlobParts]) {
        let loader = parts.loader
        async let bootstrap = loader.bootstrap(of: manifest)
        let blobs = try await prepare(manifest, name)
        var files = [try Self.sealed("manifest", manifest.bytes), try await bootstrap]
        for blob in blobs { files.append(try Self.sealed("index", blob.indexBytes)) }
        let info = try await parts.gate.openImage(
            manifest.digest, mount: mount, blobCount: blobs.count, descriptors: files)
        return (info, blobs)
    }

    /// Everything but the bootstrap: fetched, described to the pipeline and recorded, before a reader can come.
    private func prepare(_ manifest: ImageManifest, _ name: String?) async throws -> [BlobParts] {
        let blobs = try await parts.loader.blobs(of: manifest)
        describe(manifest, blobs)
        await record(manifest, blobs, name)
        return blobs
    }

    /// How the blobs are fetched, for the pipeline, and what they are, for peers.
    func describe(_ manifest: ImageManifest, _ blobs: [BlobParts]) {
        parts.cluster?.share(blobs.map { ($0.key, $0.description.layout) }, of: manifest.digest)
        for blob in blobs { parts.pipeline.post(.describe(blob.key, blob.description)) }
    }

    /// Tells peers that this node is interested, and learns who else is, before anything of the image is fetched.
    func join(_ manifest: ImageManifest) async {
        guard let cluster = parts.cluster else { return }
        let isPublic: Bool
        switch parts.sharing.policy(of: manifest.reference.name) {
        case .none: return
        case .publicImage: isPublic = true
        case .manifest: isPublic = false
        case .byCredentials: isPublic = await parts.loader.registry.isAnonymous(manifest.reference)
        }
        await cluster.join(manifest, key: isPublic ? nil : ManifestKey(manifest: manifest.bytes))
    }

    /// The gate has the image now.
    func offerBootstrap(of manifest: ImageManifest) {
        let gate = parts.gate
        parts.cluster?.offer(manifest.image.bootstrap.digest, of: manifest.digest) {
            try await gate.bootstrapFile(manifest.digest)
        }
    }

    private static func sealed(_ name: String, _ bytes: [UInt8]) throws -> File {
        try bytes.withUnsafeBytes { try File.sealed(name: name, $0) }
    }

    /// Takes over what the gate says of an image: handles and residency go to the pipeline.
    func adopt(
        _ info: GateProtocol.ImageInfo, _ keys: [BlobKey], _ connection: UInt64, isDescribed: Bool
    ) async throws(AgentError) {
        guard info.blobs.count == keys.count else {
            throw AgentError(
                .gateProtocol, "chunkgate names \(info.blobs.count) blobs of \(info.manifest), expected \(keys.count)")
        }
        var attachments: [BlobAttachment] = []
        for (blob, key) in zip(info.blobs, keys) {
            let size = (Int(blob.chunkCount) + 7) / 8
            let bits: [UInt8] =
                if blob.graduated || blob.residentCount == blob.chunkCount {
                    [UInt8](repeating: 0xFF, count: size)
                } else if blob.residentCount == 0 {
                    [UInt8](repeating: 0, count: size)
                } else {
                    try await parts.gate.residency(blob.handle)
                }
            attachments.append(
                BlobAttachment(
                    key: key, handle: blob.handle, chunkCount: Int(blob.chunkCount), rawSize: blob.rawSize,
                    residency: bits))
        }
        let hydration = states[info.manifest]?.hydration
        states[info.manifest] = State(info: info, keys: keys, isDescribed: isDescribed, hydration: hydration)
        parts.pipeline.post(.attach(connection: connection, attachments))
    }

    /// Starts fetching the rest of a mounted image, unless that is under way or there is no rest.
    func hydrate(_ digest: Digest) {
        guard let delay = parts.hydrateAfter, let state = states[digest], state.info.mounted, state.isDescribed,
            state.hydration == nil,
            state.info.blobs.contains(where: { !$0.graduated && $0.residentCount < $0.chunkCount })
        else { return }
        states[digest]?.hydration = parts.pipeline.hydrate(state.keys, after: delay)
    }

    // MARK: - Recording

    /// Remembers the image before the gate has it: a crash in between leaves a note too much, not an image nobody can
    /// fetch for. Failing to remember is no reason not to mount.
    private func record(_ manifest: ImageManifest, _ blobs: [BlobParts], _ name: String?) async {
        let image = CatalogueImage(
            manifest: manifest.digest, repository: manifest.reference.name, references: name.map { [$0] } ?? [],
            lastUsed: Self.unixTime(), bootstrapSize: manifest.image.bootstrap.size,
            blobs: blobs.map { blob in
                let index = blob.description.layout.index
                return CatalogueBlob(key: blob.key, rawSize: index.rawSize, chunkCount: index.count)
            })
        do {
            try await parts.catalogue.record(image)
            let all = try await parts.catalogue.image(manifest.digest)?.references ?? image.references
            let note = ContentStore.ImageNote(repository: image.repository, references: all)
            let content = parts.content
            if await parts.disk.run({ content.note(manifest.digest) }) != note {
                try await parts.disk.run { () throws(SystemError) in try content.write(note, manifest.digest) }
            }
        } catch { noteCatalogueError(error) }
    }

    private func addPlaces(_ blobs: [BlobParts]) {
        let catalogue = parts.catalogue
        Task {
            for blob in blobs {
                do throws(CatalogueError) {
                    try await catalogue.addPlaces(of: blob.key, blob.description.layout.index)
                } catch { self.noteCatalogueError(error) }
            }
        }
    }

    func noteCatalogueError(_ error: any Error) {
        parts.metrics.catalogueErrors[(error as? CatalogueError)?.reason ?? "io"].increment()
        parts.logger.error("the catalogue could not be read or written", metadata: ["error": "\(error)"])
    }

    /// Seconds since 1970, for "last used": the one thing here that people compare with their clocks.
    static func unixTime() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
}
