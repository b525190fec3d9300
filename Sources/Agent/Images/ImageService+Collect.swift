import Catalogue
import ChunkModel
import ControlAPI
import Logging
import OCISpec
import Telemetry

/// Making room: unmounted images go, least recently used first.
extension ImageService {
    /// Why room is made, and how much.
    enum Collection: Sendable {
        /// Everything that no mount, pin or quota keeps.
        case all
        /// Down to the low-water mark.
        case quota(resident: UInt64)
        /// A write did not fit: at least these bytes.
        case bytes(UInt64)
    }

    /// What a full disk is relieved of at once: enough for the arena and the next few writes.
    static let roomStep: UInt64 = 128 << 20

    /// Removes images, or says which it would remove; least recently used first.
    func collect(_ collection: Collection, dryRun: Bool) async throws -> [GarbageItem] {
        let images = try await parts.gate.list()
        // Without the catalogue nobody knows which images are pinned: nothing goes.
        let records: [CatalogueImage]
        do throws(CatalogueError) { records = try await parts.catalogue.images() } catch {
            parts.metrics.catalogueErrors[error.reason].increment()
            throw error
        }
        let byDigest = Dictionary(records.map { ($0.manifest, $0) }, uniquingKeysWith: { first, _ in first })
        var goal = try await goal(collection)
        var left = images
        var removed: [GarbageItem] = []
        let candidates = images.filter { !$0.mounted && byDigest[$0.manifest]?.isPinned != true }
            .map { (lastUsed: byDigest[$0.manifest]?.lastUsed ?? 0, info: $0) }
            .sorted { ($0.lastUsed, $0.info.manifest) < ($1.lastUsed, $1.info.manifest) }
        for (_, info) in candidates {
            if let wanted = goal, wanted == 0 { break }
            guard !isBusy(info.manifest), await isFree(info.manifest) else { continue }
            var freed = Self.freed(by: info, among: left)
            if !dryRun {
                do { freed = try await remove(info.manifest) } catch let error as AgentError {
                    // Mounted meanwhile, or damaged: the next one may go.
                    parts.logger.warning(
                        "an image could not be removed",
                        metadata: ["manifest": "\(info.manifest)", "error": "\(error)"])
                    continue
                }
            }
            left.removeAll { $0.manifest == info.manifest }
            if let wanted = goal { goal = wanted > freed ? wanted - freed : 0 }
            removed.append(
                GarbageItem(
                    manifestDigest: info.manifest, references: byDigest[info.manifest]?.references ?? [],
                    freedBytes: freed))
        }
        return removed
    }

    /// Has collections pass an image over, or no longer. One that was about to go is gone first, and `notFound`.
    func setPinned(_ digest: Digest, _ isPinned: Bool) async throws {
        try await exclusively(digest) {
            guard try await parts.catalogue.setPinned(digest, isPinned) else {
                throw AgentError(
                    .notFound, "the catalogue does not have image \(digest): mount it by its reference first")
            }
        }
        parts.logger.info(
            isPinned ? "image pinned" : "image no longer pinned", metadata: ["manifest": "\(digest)"])
    }

    /// Frees what is over the quota, when something is. What goes wrong is logged once.
    func keepQuota(resident: UInt64) async {
        guard parts.quota.high > 0, resident > parts.quota.high else { return quotaProblem = "" }
        do {
            _ = try await collect(.quota(resident: resident), dryRun: false)
            quotaProblem = ""
        } catch {
            if quotaProblem != "\(error)" {
                parts.logger.error(
                    "the cache is over its quota and nothing can be removed",
                    metadata: ["bytes": "\(resident)", "quota": "\(parts.quota.high)", "error": "\(error)"])
            }
            quotaProblem = "\(error)"
        }
    }

    /// Whether no container's snapshot lies above an image; false when nobody can say. One that is not mounted may have
    /// containers all the same: between a reboot and the kubelet's start.
    private func isFree(_ digest: Digest) async -> Bool {
        do { try await checkContainers(digest) } catch {
            if (error as? AgentError)?.code != .inUse { noteCatalogueError(error) }
            return false
        }
        return true
    }

    /// Bytes to free; nil is all there is.
    private func goal(_ collection: Collection) async throws -> UInt64? {
        switch collection {
        case .bytes(let bytes): return bytes
        case .quota(let resident): return resident > parts.quota.low ? resident - parts.quota.low : 0
        case .all:
            guard parts.quota.high > 0 else { return nil }
            let resident = try await parts.gate.counters()[.residentBytes] ?? 0
            return resident > parts.quota.low ? resident - parts.quota.low : 0
        }
    }

    /// Its bootstrap and the resident bytes of the blobs only this image names: what the gate will say it freed.
    private static func freed(by info: GateProtocol.ImageInfo, among images: [GateProtocol.ImageInfo]) -> UInt64 {
        let others = images.filter { $0.manifest != info.manifest }
        let alone = info.blobs.filter { blob in
            !others.contains { $0.blobs.contains { $0.handle == blob.handle } }
        }
        return info.bootstrapSize + alone.reduce(0) { $0 + $1.residentBytes }
    }

    private func remove(_ digest: Digest) async throws -> UInt64 {
        try await exclusively(digest) {
            let keys = states[digest]?.keys ?? []
            let alone = alone(keys, but: digest)
            try await checkContainers(digest)
            // It may have been pinned since it was chosen.
            guard try await parts.catalogue.image(digest)?.isPinned != true else {
                throw AgentError(.inUse, "image \(digest) is pinned")
            }
            let freed = try await parts.gate.removeImage(digest)
            if let id = states[digest]?.hydration { parts.pipeline.post(.stopBulk(id)) }
            stopReplay(digest)
            parts.pipeline.post(.detach(alone))
            parts.cluster?.part(digest, keys, alone: alone)
            states[digest] = nil
            parts.metrics.evictedBytes.increment(by: freed)
            parts.metrics.events.note(.imageRemoved, "\(digest)", "\(freed) bytes")
            parts.logger.info("image removed", metadata: ["manifest": "\(digest)", "bytes": "\(freed)"])
            do throws(CatalogueError) { try await parts.catalogue.remove(digest) } catch { noteCatalogueError(error) }
            let content = parts.content
            await parts.disk.run {
                for blob in content.image(digest)?.blobs ?? []
                where alone.contains(where: { $0.blob == blob.descriptor.digest }) {
                    if let table = blob.seekTable { content.remove(.seek, table) }
                }
                content.remove(.manifest, digest)
                content.remove(.image, digest)
                for key in alone { content.remove(.index, key.index) }
            }
            return freed
        }
    }

    /// Unmounts and removes an image that nobody else mounted and that is not pinned. Returns the bytes freed, or nil.
    func removeIfUnused(_ digest: Digest) async throws -> UInt64? {
        guard try await parts.catalogue.image(digest)?.isPinned != true else { return nil }
        do { return try await close(digest) ? try await remove(digest) : nil } catch let error as AgentError
            where error.errno == Self.busyErrno || error.code == .inUse
        {
            // A container that still runs has its file system: it goes with the next garbage.
            return nil
        }
    }

    /// A write did not fit: true when something was removed.
    func makeRoom() async -> Bool {
        do {
            return try await !collect(.bytes(Self.roomStep), dryRun: false).isEmpty
        } catch {
            parts.logger.error("no room could be made", metadata: ["error": "\(error)"])
            return false
        }
    }
}
