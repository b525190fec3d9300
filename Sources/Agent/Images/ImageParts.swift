import CLinux
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
            image = try ChunkdImage(manifest: manifest)
            self.reference = try Reference(
                registry: reference.registry, repository: reference.repository, digest: digest)
        } catch { throw AgentError(.image, "image \(digest): \(error)") }
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
    init(_ blob: ChunkdImage.Blob, of reference: Reference, index bytes: [UInt8], seek: [UInt8]?) throws(AgentError) {
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
                layout: layout, reference: reference, stored: blob.descriptor, compression: blob.compression)
        } catch let error as AgentError { throw error } catch {
            throw AgentError(.image, "blob \(digest): \(error)")
        }
    }

    /// Bytes of the seek table at the end of a compressed blob, from the size its index must have: one entry a chunk.
    static func seekTableSize(_ blob: ChunkdImage.Blob) throws(AgentError) -> Int {
        let entries = Int(blob.index.size) - caibxFraming
        let size = SeekTable.encodedSize(frames: entries / caibxEntry)
        guard entries >= 0, entries % caibxEntry == 0, UInt64(size) <= blob.descriptor.size else {
            throw AgentError(
                .image,
                "chunk index of blob \(blob.descriptor.digest) has \(blob.index.size) bytes, "
                    + "which no index of a blob of \(blob.descriptor.size) bytes has")
        }
        return size
    }

    /// Header, table header and tail of a `.caibx`, and one entry; see `ChunkIndex`.
    private static let caibxFraming = 104
    private static let caibxEntry = 40
}

/// Gets the parts of images: from the content store where they are, else from the registry.
struct PartsLoader: Sendable {
    let registry: RegistryClient
    let content: ContentStore
    let disk: WorkQueue

    /// The manifest with this digest.
    func manifest(_ digest: Digest, _ reference: Reference) async throws -> ImageManifest {
        let content = self.content
        if let bytes = await disk.run({ content.verified(.manifest, digest, limit: Limits.maxManifestSize) }) {
            return try ImageManifest(digest: digest, bytes: bytes, reference: reference)
        }
        let byDigest = try Reference(
            registry: reference.registry, repository: reference.repository, digest: digest)
        return try await fetchManifest(byDigest)
    }

    /// What a reference stands for now; an index leads to this platform's image.
    func fetchManifest(_ reference: Reference) async throws -> ImageManifest {
        let found = try await registry.imageManifest(reference, platform: .current)
        let manifest = try ImageManifest(digest: found.descriptor.digest, bytes: found.bytes, reference: reference)
        let content = self.content
        try await disk.run { () throws(SystemError) in try content.write(.manifest, manifest.digest, manifest.bytes) }
        return manifest
    }

    /// Indexes and seek tables of all blobs, at once, in the manifest's order.
    func blobs(of manifest: ImageManifest) async throws -> [BlobParts] {
        try await withThrowingTaskGroup(of: (Int, BlobParts).self) { group in
            for (number, blob) in manifest.image.blobs.enumerated() {
                group.addTask { (number, try await self.blob(blob, manifest.reference)) }
            }
            var out: [(Int, BlobParts)] = []
            for try await part in group { out.append(part) }
            return out.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    private func blob(_ blob: ChunkdImage.Blob, _ reference: Reference) async throws -> BlobParts {
        async let index = self.index(blob, reference)
        guard blob.compression == .zstd else {
            return try BlobParts(blob, of: reference, index: try await index, seek: nil)
        }
        async let stored = seekTable(blob, reference, isStored: true)
        let (bytes, table) = (try await index, try await stored)
        do throws(AgentError) { return try BlobParts(blob, of: reference, index: bytes, seek: table) } catch {
            // A stored table has no digest of its own: if it does not fit, the registry's is the one that counts.
            let fresh = try await seekTable(blob, reference, isStored: false)
            return try BlobParts(blob, of: reference, index: bytes, seek: fresh)
        }
    }

    private func index(_ blob: ChunkdImage.Blob, _ reference: Reference) async throws -> [UInt8] {
        let content = self.content
        let digest = blob.index.digest
        if let bytes = await disk.run({ content.verified(.index, digest, limit: Limits.maxChunkIndexSize) }) {
            return bytes
        }
        let bytes = try await registry.blob(blob.index, of: reference, limit: Limits.maxChunkIndexSize)
        try await disk.run { () throws(SystemError) in try content.write(.index, digest, bytes) }
        return bytes
    }

    private func seekTable(
        _ blob: ChunkdImage.Blob, _ reference: Reference, isStored: Bool
    ) async throws -> [UInt8] {
        let content = self.content
        let digest = blob.descriptor.digest
        let size = try BlobParts.seekTableSize(blob)
        if isStored, let bytes = await disk.run({ content.unverified(.seek, digest, limit: size) }), bytes.count == size
        {
            return bytes
        }
        let collected = Monitor<[UInt8]>([])
        let total = blob.descriptor.size
        _ = try await registry.blobRange(
            digest, of: reference, range: total - UInt64(size)..<total, totalSize: total,
            sink: { piece in
                collected.withLock { $0 += piece }
                return .continue
            })
        let bytes = collected.withLock { $0 }
        try await disk.run { () throws(SystemError) in try content.write(.seek, digest, bytes) }
        return bytes
    }

    /// The bootstrap in a memory file sealed for good, verified on the way.
    func bootstrap(of manifest: ImageManifest) async throws -> File {
        let file = try File.memory(name: "bootstrap")
        try await registry.download(manifest.image.bootstrap, of: manifest.reference, to: file.descriptor)
        // Only after the last write: a sealed file takes none.
        try file.seal(CLINUX_SEAL_WRITE | CLINUX_SEAL_GROW | CLINUX_SEAL_SHRINK | CLINUX_SEAL_SEAL)
        return file
    }
}
