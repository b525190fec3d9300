import Catalogue
import ChunkModel
import ControlAPI
import OCISpec

/// What is known of images, for those who ask.
extension ImageService {
    func isMounted(_ digest: Digest) -> Bool { states[digest]?.info.mounted ?? false }

    /// The image a reference stands for as far as the node knows, without asking a registry. It must be here.
    func stored(_ text: String) async throws -> ImageManifest {
        let digest: Digest?
        let bare = try? Reference(text)
        if let plain = Digest(text) {
            digest = plain
        } else {
            let reference = try Reference(text)
            let known = await knownManifest(of: Self.canonical(reference))
            digest = known ?? reference.digest
        }
        guard let digest, states[digest] != nil else {
            throw AgentError(.notFound, "image \(text) is not on this node: mount or prefetch it first")
        }
        if let repository = try await parts.catalogue.image(digest)?.repository {
            return try await parts.loader.manifest(digest, try Reference(repository))
        }
        guard let bare else {
            throw AgentError(
                .notFound, "nothing is known of where image \(digest) came from: mount it by its reference")
        }
        return try await parts.loader.manifest(digest, bare)
    }

    /// How a reference is written in the catalogue: with its tag, or with its digest.
    static func canonical(_ reference: Reference) -> String {
        if let digest = reference.digest {
            return reference.name + (reference.tag.map { ":" + $0 } ?? "") + "@\(digest)"
        }
        return "\(reference.name):\(reference.tag ?? Reference.defaultTag)"
    }

    /// The gate's images with what the catalogue adds, by manifest digest.
    func summaries(_ images: [GateProtocol.ImageInfo], quarantined: Set<Digest>) async -> [ImageSummary] {
        let records = (try? await parts.catalogue.images()) ?? []
        let byDigest = Dictionary(records.map { ($0.manifest, $0) }, uniquingKeysWith: { first, _ in first })
        return images.sorted { $0.manifest < $1.manifest }.map { info in
            let record = byDigest[info.manifest]
            return ImageSummary(
                manifestDigest: info.manifest, references: record?.references ?? [], mounted: info.mounted,
                tainted: info.tainted, pinned: record?.isPinned ?? false,
                quarantined: info.blobs.contains { quarantined.contains($0.digest) }, mountPath: info.path,
                bootstrapBytes: info.bootstrapSize, blobs: info.blobs.map(Self.summary),
                lastUsedUnixSeconds: record?.lastUsed)
        }
    }

    private static func summary(_ blob: GateProtocol.BlobInfo) -> BlobSummary {
        let isComplete = blob.residentCount == blob.chunkCount
        let mean = blob.chunkCount == 0 ? 0 : Double(blob.rawSize) / Double(blob.chunkCount)
        return BlobSummary(
            digest: blob.digest, rawBytes: blob.rawSize,
            residentBytes: isComplete ? blob.rawSize : UInt64(mean * Double(blob.residentCount)),
            chunks: UInt64(blob.chunkCount), residentChunks: UInt64(blob.residentCount), graduated: blob.graduated)
    }
}
