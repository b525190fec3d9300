import Catalogue
import ChunkModel
import ChunkResolution
import HTTPTransfer
import LinuxSystem
import OCISpec
import RegistryClient

/// A manifest that was checked, and where its parts come from.
struct ImageManifest: Sendable {
    let digest: Digest
    let bytes: [UInt8]
    let image: ChunkdImage
    /// The repository, by digest reference.
    let reference: Reference

    init(digest: Digest, bytes: [UInt8], reference: Reference) throws(AgentError) {
        do {
            let manifest = try OCIJSON.decode(Manifest.self, from: bytes)
            guard manifest.layers.first?.mediaType == MediaTypes.bootstrap else {
                throw AgentError(
                    .ordinaryImage,
                    "image \(digest) is no chunkd image: its first layer is "
                        + OCISpecError.quote(manifest.layers.first?.mediaType ?? "missing")
                        + "; make one of it with chunkctl image build")
            }
            image = try ChunkdImage(manifest: manifest, bytes: bytes)
            self.reference = try Reference(
                registry: reference.registry, repository: reference.repository, digest: digest)
        } catch let error as AgentError { throw error } catch {
            throw AgentError(.image, "image \(digest): \(error)")
        }
        self.digest = digest
        self.bytes = bytes
    }

    var keys: [BlobKey] { image.blobs.map { BlobKey(blob: $0.descriptor.digest, index: $0.index.digest) } }
}

/// One blob with everything that is needed to fetch its chunks.
struct BlobParts: Sendable {
    let key: BlobKey
    let indexBytes: [UInt8]
    let description: BlobDescription

    /// Checks that index, seek table and manifest belong together.
    init(
        _ blob: ChunkdImage.Blob, of manifest: Digest, _ reference: Reference, index bytes: [UInt8], seek: [UInt8]?
    ) throws(AgentError) {
        let digest = blob.descriptor.digest
        do {
            let index = try ChunkIndex(caibx: bytes)
            guard index.rawSize == blob.rawSize else {
                throw AgentError(
                    .image, "chunk index of blob \(digest) describes \(index.rawSize) bytes, expected \(blob.rawSize)")
            }
            let layout: BlobLayout?
            if let seek {
                let table = try SeekTable(decoding: seek)
                try table.check(against: index, blobSize: blob.descriptor.size)
                layout = BlobLayout(index, frameSizes: table.frames.lazy.map(\.storedSize))
            } else {
                layout = BlobLayout(raw: index)
            }
            guard let layout else { throw AgentError(.image, "seek table of blob \(digest) does not fit its index") }
            key = BlobKey(blob: digest, index: blob.index.digest)
            indexBytes = bytes
            description = BlobDescription(
                layout: layout, reference: reference, stored: blob.descriptor, compression: blob.compression,
                manifest: manifest)
        } catch let error as AgentError { throw error } catch {
            throw AgentError(.image, "blob \(digest): \(error)")
        }
    }

    /// Bytes of the seek table at the end of a compressed blob, from the size its index must have: one entry a chunk.
    static func seekTableSize(_ blob: ChunkdImage.Blob) throws(AgentError) -> Int {
        guard let count = ChunkIndex.count(inFileOf: blob.index.size),
            case let size = SeekTable.encodedSize(frames: count), UInt64(size) <= blob.descriptor.size
        else {
            throw AgentError(
                .image,
                "chunk index of blob \(blob.descriptor.digest) has \(blob.index.size) bytes, "
                    + "which no index of a blob of \(blob.descriptor.size) bytes has")
        }
        return size
    }
}
