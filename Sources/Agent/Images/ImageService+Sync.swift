import Catalogue
import ChunkModel
import LinuxSystem
import Logging
import OCISpec
import RegistryClient

/// Agreeing with the gate after a connection, and looking after what it holds.
extension ImageService {
    /// Images taken over at once after a connection.
    private static let takeWidth = 8

    /// Takes over what the gate has. Nothing durable is fetched again, and one bad image does not stop the others: an
    /// image whose parts must be fetched anew delays nobody but its own readers.
    func sync(_ connection: UInt64) async {
        self.connection = connection
        isSynced = false
        states = [:]
        do {
            let images = try await parts.gate.list()
            guard self.connection == connection else { return }
            for info in images { states[info.manifest] = State(info: info) }
            await reconcile(images)
            isSynced = true
            parts.logger.info(
                "in step with chunkgate",
                metadata: ["images": "\(images.count)", "mounted": "\(images.count { $0.mounted })"])
            Task { await self.takeAll(images, connection) }
        } catch {
            parts.logger.error("cannot get in step with chunkgate", metadata: ["error": "\(error)"])
            if parts.gate.current?.number == connection { parts.gate.reconnect() }
        }
    }

    /// Mounted ones first: their readers may be waiting.
    private func takeAll(_ images: [GateProtocol.ImageInfo], _ connection: UInt64) async {
        let sorted = images.sorted { ($0.mounted ? 0 : 1, $0.manifest) < ($1.mounted ? 0 : 1, $1.manifest) }
        await withTaskGroup(of: Void.self) { group in
            for (number, info) in sorted.enumerated() {
                if number >= Self.takeWidth { await group.next() }
                group.addTask { await self.exclusively(info.manifest) { await self.take(info, connection) } }
            }
        }
    }

    /// Waits, a little, until the node is in step with the gate: what it has must not be fetched again.
    func waitUntilSynced() async throws {
        guard parts.gate.current != nil else { throw GateConnection.away }
        for _ in 0..<500 where !isSynced {
            guard parts.gate.current != nil else { throw GateConnection.away }
            try await Task.sleep(for: .milliseconds(20))
        }
        guard isSynced else { throw AgentError(.gateTimeout, "not yet in step with chunkgate: try again") }
    }

    func noteGateDown() {
        connection = 0
        isSynced = false
        for state in states.values { if let id = state.hydration { parts.pipeline.post(.stopBulk(id)) } }
        for digest in replays.keys { stopReplay(digest) }
        states = [:]
    }

    /// One image of the gate: how to fetch its chunks is looked up if it is mounted and incomplete, or peers may want it;
    /// otherwise it is only a place to copy from.
    private func take(_ info: GateProtocol.ImageInfo, _ connection: UInt64) async {
        guard self.connection == connection, states[info.manifest]?.keys.isEmpty == true else { return }
        let isNeeded = info.mounted && !info.blobs.allSatisfy(\.graduated)
        do {
            let manifest = try await storedManifest(info.manifest)
            if isNeeded {
                try await share(manifest)
            } else if parts.cluster != nil {
                do { try await share(manifest) } catch {
                    // It is still a place to copy from; peers have other nodes.
                    parts.logger.warning(
                        "an image is not shared with peers",
                        metadata: ["manifest": "\(manifest.digest)", "error": "\(error)"])
                }
            }
            try await adopt(info, manifest.keys, connection, isDescribed: isNeeded)
            hydrate(info.manifest)
        } catch {
            parts.logger.error(
                "an image of chunkgate cannot be served",
                metadata: ["manifest": "\(info.manifest)", "mounted": "\(info.mounted)", "error": "\(error)"])
            if isNeeded { await refuse(info, connection) }
        }
    }

    private func share(_ manifest: ImageManifest) async throws {
        await join(manifest)
        describe(manifest, try await parts.loader.blobs(of: manifest))
        offerBootstrap(of: manifest)
    }

    /// Its readers are told at once instead of waiting for nothing; `retryUnserved` tries again.
    private func refuse(_ info: GateProtocol.ImageInfo, _ connection: UInt64) async {
        // The index digests are not known: stand-ins, so that the handles belong to something that can be refused.
        let keys = info.blobs.map { BlobKey(blob: $0.digest, index: info.manifest) }
        try? await adopt(info, keys, connection, isDescribed: false)
        states[info.manifest]?.isUnserved = true
        parts.pipeline.post(.refuse(keys))
    }

    private func storedManifest(_ digest: Digest) async throws -> ImageManifest {
        guard let repository = try await parts.catalogue.image(digest)?.repository else {
            throw AgentError(
                .notFound, "nothing is known of where image \(digest) came from: mount it by its reference")
        }
        return try await parts.loader.manifest(digest, try Reference(repository))
    }

    // MARK: - Catalogue and map

    /// Makes the catalogue say what the gate has: the map wins.
    private func reconcile(_ images: [GateProtocol.ImageInfo]) async {
        do {
            let known = try await parts.catalogue.images()
            for image in known where !images.contains(where: { $0.manifest == image.manifest }) {
                guard !isBusy(image.manifest) else { continue }
                parts.pipeline.post(.detach(image.blobs.map(\.key)))
                try await parts.catalogue.remove(image.manifest)
            }
            for info in images where !known.contains(where: { $0.manifest == info.manifest }) {
                await relearn(info)
            }
        } catch { noteCatalogueError(error) }
    }

    /// The catalogue lost an image: it is made again from its stored files.
    private func relearn(_ info: GateProtocol.ImageInfo) async {
        let content = parts.content
        do {
            guard let note = await parts.disk.run({ content.note(info.manifest) }),
                let bytes = await parts.disk.run({
                    content.verified(.manifest, info.manifest, limit: Limits.maxManifestSize)
                })
            else { return }
            let manifest = try ImageManifest(
                digest: info.manifest, bytes: bytes, reference: try Reference(note.repository))
            guard manifest.keys.count == info.blobs.count else { return }
            let blobs = zip(manifest.keys, info.blobs).map { key, blob in
                CatalogueBlob(key: key, rawSize: blob.rawSize, chunkCount: Int(blob.chunkCount))
            }
            try await parts.catalogue.record(
                CatalogueImage(
                    manifest: info.manifest, repository: note.repository, references: note.references,
                    lastUsed: Self.unixTime(), bootstrapSize: info.bootstrapSize, blobs: blobs))
            for (number, key) in manifest.keys.enumerated() {
                guard
                    let bytes = await parts.disk.run({
                        content.verified(.index, key.index, limit: Limits.maxChunkIndexSize)
                    })
                else { continue }
                try await parts.catalogue.addPlaces(of: blobs[number].key, try ChunkIndex(caibx: bytes))
            }
        } catch {
            parts.logger.warning(
                "an image could not be put back into the catalogue",
                metadata: ["manifest": "\(info.manifest)", "error": "\(error)"])
        }
    }

    // MARK: - Looking after

    /// Called every few seconds: counters, uses, quota, and images that could not be served.
    func maintain() async {
        guard isSynced else { return }
        let snapshot = await parts.pipeline.snapshot()
        await noteUses(snapshot.used)
        if let counters = try? await parts.gate.counters() {
            parts.metrics.mirror(counters)
            await keepQuota(resident: counters[.residentBytes] ?? 0)
        }
        await retryUnserved()
    }

    private func noteUses(_ used: [BlobKey]) async {
        guard !used.isEmpty else { return }
        let now = Self.unixTime()
        let uses = states.filter { !$0.value.keys.allSatisfy { !used.contains($0) } }.map {
            (manifest: $0.key, at: now)
        }
        do throws(CatalogueError) { try await parts.catalogue.touch(uses) } catch { noteCatalogueError(error) }
    }

    private func retryUnserved() async {
        for (digest, state) in states.sorted(by: { $0.key < $1.key }) where state.isUnserved && state.info.mounted {
            guard !isBusy(digest), let manifest = try? await storedManifest(digest) else { continue }
            _ = try? await open(manifest, name: nil, mount: true)
        }
    }

    // MARK: - Unmounting

    /// False when somebody else uses the mount; `inUse` when containers do, of whose mounts the gate sees nothing.
    func close(_ digest: Digest) async throws -> Bool {
        try await exclusively(digest) {
            // A snapshot is in the ledger before its mount is looked up: it is either seen by the check, or finds the
            // image closing and has it mounted again.
            closing.insert(digest)
            defer { closing.remove(digest) }
            return try await closeNow(digest)
        }
    }

    // Not within the closure above: there the optimising swiftc 6.3.1 overflows its stack on it.
    private func closeNow(_ digest: Digest) async throws -> Bool {
        try await checkContainers(digest)
        do throws(AgentError) { try await parts.gate.closeImage(digest) } catch {
            if error.errno == Self.busyErrno { return false }
            throw error
        }
        if let id = states[digest]?.hydration { parts.pipeline.post(.stopBulk(id)) }
        states[digest]?.hydration = nil
        stopReplay(digest)
        states[digest]?.info.mounted = false
        return true
    }

    /// Container snapshots that are named when one of them keeps an image.
    static let namedContainers = 8

    /// Throws `inUse` when containers' snapshots lie above an image. An overlay holds the file system of its lower
    /// directories but not their mounts, so the gate would unmount it; with the mount the image would seem unused after
    /// a restart, and its containers' reads would fail.
    func checkContainers(_ digest: Digest) async throws {
        guard let ledger = parts.ledger else { return }
        let (names, count) = try await ledger.containers(on: digest, limit: Self.namedContainers)
        guard count > 0 else { return }
        let list = names.joined(separator: ", ") + (count > names.count ? " and \(count - names.count) more" : "")
        throw AgentError(
            .inUse, "containers run on image \(digest): \(count == 1 ? "snapshot" : "snapshots") \(list)")
    }

    static let busyErrno: Int32 = 16  // EBUSY
}
