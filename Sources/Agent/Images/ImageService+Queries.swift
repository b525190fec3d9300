import Catalogue
import ChunkModel
import ControlAPI
import OCISpec

/// What is known of images, for those who ask.
extension ImageService {
    func isMounted(_ digest: Digest) -> Bool { mountPath(digest) != nil }

    /// Where an image is mounted; nil when it is not, or is being unmounted.
    func mountPath(_ digest: Digest) -> String? {
        guard !closing.contains(digest), let info = states[digest]?.info, info.mounted else { return nil }
        return info.path
    }

    /// The manifest with this digest, from here or from where the reference leads; `ordinaryImage` when it is not one of
    /// chunkd's.
    func manifest(_ digest: Digest, by text: String) async throws -> ImageManifest {
        try await parts.loader.manifest(digest, try Reference(text))
    }

    /// The manifest's digest of the image that a reference or a digest stands for as far as the node knows, without asking
    /// a registry. It must be here.
    func storedDigest(_ text: String) async throws -> Digest {
        let digest: Digest?
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
        return digest
    }

    /// The manifest of that image.
    func stored(_ text: String) async throws -> ImageManifest {
        let digest = try await storedDigest(text)
        if let repository = try await parts.catalogue.image(digest)?.repository {
            return try await parts.loader.manifest(digest, try Reference(repository))
        }
        guard let bare = try? Reference(text) else {
            throw AgentError(
                .notFound, "nothing is known of where image \(digest) came from: mount it by its reference")
        }
        return try await parts.loader.manifest(digest, bare)
    }

    /// A blob, or one chunk of it, and the registry it is from.
    struct Target: Sendable {
        let key: BlobKey
        let chunk: Int?
        let registry: String
    }

    /// What people may mean: an image by reference or digest, a blob or a chunk by digest. `notFound` when it is nothing on
    /// this node.
    func find(_ text: String) async throws -> (kind: String, targets: [Target]) {
        guard let digest = Digest(text), states[digest] == nil else {
            let image = try await stored(text)
            return ("image", image.keys.map { Target(key: $0, chunk: nil, registry: image.reference.registry) })
        }
        let records = try await parts.catalogue.images()
        func registry(of key: BlobKey) -> String {
            let name = records.first { $0.blobs.contains { $0.key == key } }?.repository ?? ""
            return (try? Reference(name))?.registry ?? "unknown"
        }
        let blobs = Set(states.values.flatMap(\.keys)).filter { $0.blob == digest }.sorted { $0.index < $1.index }
        if !blobs.isEmpty { return ("blob", blobs.map { Target(key: $0, chunk: nil, registry: registry(of: $0)) }) }
        let places = try await parts.catalogue.places(of: [digest]).first ?? []
        guard !places.isEmpty else {
            throw AgentError(.notFound, "\(digest) is no image, blob or chunk of an image on this node")
        }
        return ("chunk", places.map { Target(key: $0.blob, chunk: $0.chunk, registry: registry(of: $0.blob)) })
    }

    /// What people call an image that has each of these blobs.
    func names(of blobs: Set<BlobKey>) async -> [BlobKey: String] {
        if blobs.isEmpty { return [:] }
        let records = await catalogued()
        var out: [BlobKey: String] = [:]
        for digest in states.keys.sorted() {
            for key in states[digest]?.keys ?? [] where blobs.contains(key) && out[key] == nil {
                out[key] = records.first { $0.manifest == digest }?.references.first ?? "\(digest)"
            }
        }
        return out
    }

    /// The blobs of these images, each once.
    func keys(of images: [Digest]) -> [BlobKey] {
        var out: [BlobKey] = []
        for key in images.flatMap({ states[$0]?.keys ?? [] }) where !out.contains(key) { out.append(key) }
        return out
    }

    /// How a reference is written in the catalogue: with its tag, or with its digest.
    static func canonical(_ reference: Reference) -> String {
        if let digest = reference.digest {
            return reference.name + (reference.tag.map { ":" + $0 } ?? "") + "@\(digest)"
        }
        return "\(reference.name):\(reference.tag ?? Reference.defaultTag)"
    }

    /// What the catalogue has of all images; nothing, which is counted and logged, when it cannot be read.
    private func catalogued() async -> [CatalogueImage] {
        do throws(CatalogueError) { return try await parts.catalogue.images() } catch {
            noteCatalogueError(error)
            return []
        }
    }

    /// The gate's images with what the catalogue adds, by manifest digest.
    func summaries(_ images: [GateProtocol.ImageInfo], quarantined: Set<Digest>) async -> [ImageSummary] {
        let records = await catalogued()
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
        BlobSummary(
            digest: blob.digest, rawBytes: blob.rawSize, residentBytes: blob.residentBytes,
            chunks: UInt64(blob.chunkCount), residentChunks: UInt64(blob.residentCount), graduated: blob.graduated)
    }
}
