import ChunkModel
import Integrity
import LinuxSystem
import Logging
import Mirror
import OCISpec
import RegistryClient
import Synchronization
import Telemetry

// Images over restarts: what is on disk is shared again before anybody pulls it again.
extension MirrorService {
    /// Takes in the images of an earlier process that are still to be shared and of which blobs are here.
    func restore() async {
        let records = parts.records
        let found: [ImageRecords.Record]
        do throws(SystemError) {
            found = try await parts.disk.run { () throws(SystemError) in
                try records.load(limit: MirrorBook.maxImages)
            }
        } catch { return note(recordError: error, "read") }
        for record in found {
            guard let digest = await restore(record) else { continue }
            await parts.disk.run { records.remove(digest) }
        }
    }

    /// The manifest's digest, when the image is not to be shared any more.
    private func restore(_ record: ImageRecords.Record) async -> Digest? {
        let digest = SHA256.hash(record.manifest)
        guard let reference = try? Reference(record.name), parts.registries.contains(reference.registry),
            case .manifest(let manifest)? = try? OCIJSON.document(record.manifest, mediaType: nil).document
        else { return digest }
        let key: ManifestKey?
        switch parts.sharing.policy(of: reference.name) {
        case .none: return digest
        case .publicImage: key = nil
        case .manifest: key = ManifestKey(manifest: record.manifest)
        case .byCredentials: key = record.isPublic ? nil : ManifestKey(manifest: record.manifest)
        }
        let blobs = Self.blobs(of: manifest)
        guard let cluster = parts.cluster, blobs.contains(where: { parts.cache.has($0.digest, size: $0.size) }) else {
            return digest
        }
        let image = whole(digest, blobs, key)
        let isNew = book.withLock { book in
            guard !book.has(digest) else { return false }
            _ = book.note(digest, blobs, of: reference.byDigest(digest), id: image.id, by: nil, now: now)
            return true
        }
        if isNew { cluster.announce(image) }
        return nil
    }

    /// Remembers an image that is shared.
    func remember(_ image: WholeImage, _ manifest: [UInt8], of reference: Reference) async {
        let records = parts.records
        // One that is public by the settings alone is not when they are others at the next start.
        let isPublic = image.key == nil && parts.sharing.policy(of: reference.name) == .byCredentials
        let record = ImageRecords.Record(name: reference.name, isPublic: isPublic, manifest: manifest)
        do throws(SystemError) {
            try await parts.disk.run { () throws(SystemError) in try records.write(record) }
        } catch { note(recordError: error, "write") }
    }

    func forget(_ manifest: Digest) async {
        let records = parts.records
        await parts.disk.run { records.remove(manifest) }
    }

    private func note(recordError error: SystemError, _ operation: String) {
        parts.metrics.mirroring.recordErrors[operation].increment()
        parts.logger.warning(
            "images of the mirror are not shared after a restart", metadata: ["error": "\(error)"])
    }
}
