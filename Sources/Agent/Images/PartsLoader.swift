import CLinux
import ChunkModel
import HTTPTransfer
import Integrity
import LinuxSystem
import OCISpec
import RegistryClient
import Telemetry

/// Gets the parts of images: from the content store where they are, else from peers, else from the registry. Everything
/// is verified by a digest that the manifest names.
struct PartsLoader: Sendable {
    let registry: RegistryClient
    let content: ContentStore
    let disk: WorkQueue
    let metrics: AgentMetrics
    /// Nil without peers.
    let cluster: ClusterNode?

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

    /// What a reference stands for now; an index leads to this platform's image. Always the registry's word: who has
    /// the manifest has shown that he may pull the image.
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
                group.addTask { (number, try await self.blob(blob, manifest)) }
            }
            var out: [(Int, BlobParts)] = []
            for try await part in group { out.append(part) }
            return out.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    private func blob(_ blob: ChunkdImage.Blob, _ manifest: ImageManifest) async throws -> BlobParts {
        async let index = small(.index, blob.index.digest, size: blob.index.size, of: manifest) {
            try await registry.blob(blob.index, of: manifest.reference, limit: Limits.maxChunkIndexSize)
        }
        guard let digest = blob.seekTable else {
            return try BlobParts(blob, of: manifest.digest, manifest.reference, index: try await index, seek: nil)
        }
        let size = UInt64(try BlobParts.seekTableSize(blob))
        async let table = small(.seek, digest, size: size, of: manifest) {
            try await seekTable(blob, size: size, manifest.reference)
        }
        return try BlobParts(
            blob, of: manifest.digest, manifest.reference, index: try await index, seek: try await table)
    }

    /// A small part, kept in the content store and offered to peers from there.
    private func small(
        _ kind: ContentStore.Kind, _ digest: Digest, size: UInt64, of manifest: ImageManifest,
        fromRegistry: @Sendable () async throws -> [UInt8]
    ) async throws -> [UInt8] {
        let content = self.content
        let limit = Int(size)
        if let bytes = await disk.run({ content.verified(kind, digest, limit: limit) }) {
            offer(kind, digest, of: manifest)
            return bytes
        }
        let bytes: [UInt8]
        if let file = await cluster?.fetchPart(digest, size: size, of: manifest.digest, .first) {
            bytes = try file.contents(limit: limit)
        } else {
            do {
                bytes = try await fromRegistry()
                metrics.cluster.imageParts["registry"].increment(by: size)
            } catch {
                guard let file = await cluster?.fetchPart(digest, size: size, of: manifest.digest, .last) else {
                    throw error
                }
                bytes = try file.contents(limit: limit)
            }
        }
        try await disk.run { () throws(SystemError) in try content.write(kind, digest, bytes) }
        offer(kind, digest, of: manifest)
        return bytes
    }

    /// Hashed before each answer: a file that has rotted would have peers distrust this node, which could not tell why.
    private func offer(_ kind: ContentStore.Kind, _ digest: Digest, of manifest: ImageManifest) {
        cluster?.offer(digest, of: manifest.digest) { [content, disk] in
            try await disk.run {
                guard let bytes = content.verified(kind, digest, limit: Limits.maxChunkIndexSize) else {
                    throw AgentError(.image, "\(kind.rawValue) \(digest) is missing or damaged on disk")
                }
                return try bytes.withUnsafeBytes { try File.sealed(name: kind.rawValue, $0) }
            }
        }
    }

    /// The end of a stored blob, checked by the digest that the manifest has for it.
    private func seekTable(
        _ blob: ChunkdImage.Blob, size: UInt64, _ reference: Reference
    ) async throws -> [UInt8] {
        let total = blob.descriptor.size
        var found = ""
        // Wrong bytes are asked for once more, past mirrors and caches, as those of a whole blob are.
        for bypassingCaches in [false, true] {
            let collected = Monitor<[UInt8]>([])
            _ = try await registry.blobRange(
                blob.descriptor.digest, of: reference, range: total - size..<total, totalSize: total,
                bypassingCaches: bypassingCaches,
                sink: { piece in
                    collected.withLock { $0 += piece }
                    return .continue
                })
            let bytes = collected.withLock { $0 }
            let digest = SHA256.hash(bytes)
            if digest == blob.seekTable { return bytes }
            found = digest.hex
        }
        throw AgentError(
            .image,
            "seek table of blob \(blob.descriptor.digest) hashes to \(found), expected \(blob.seekTable?.hex ?? "none")"
        )
    }

    /// The bootstrap in a memory file sealed for good, verified on the way.
    func bootstrap(of manifest: ImageManifest) async throws -> File {
        let part = manifest.image.bootstrap
        let file = try await bootstrap(part, of: manifest)
        // Only after the last write: a sealed file takes none.
        try file.seal(CLINUX_SEAL_WRITE | CLINUX_SEAL_GROW | CLINUX_SEAL_SHRINK | CLINUX_SEAL_SEAL)
        return file
    }

    private func bootstrap(_ part: Descriptor, of manifest: ImageManifest) async throws -> File {
        if let file = await cluster?.fetchPart(part.digest, size: part.size, of: manifest.digest, .first) {
            return file
        }
        do {
            let file = try File.memory(name: "bootstrap")
            try await registry.download(part, of: manifest.reference, to: file.descriptor)
            metrics.cluster.imageParts["registry"].increment(by: part.size)
            return file
        } catch {
            if let file = await cluster?.fetchPart(part.digest, size: part.size, of: manifest.digest, .last) {
                return file
            }
            throw error
        }
    }
}
