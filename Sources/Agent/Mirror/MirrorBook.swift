import ChunkModel
import Integrity
import OCISpec

/// What the mirror knows of ordinary images, and who has shown that he may pull from where. A value: time is an argument.
struct MirrorBook {
    /// An image whose manifest went through here.
    struct Image {
        let manifest: Digest
        /// The repository it was pulled from.
        let repository: Reference
        /// Config and layers, each digest once.
        let blobs: [Descriptor]
        /// Its name among peers; nil when it is not shared.
        let id: WireID?
        /// With what its manifest could be had, and until when that is taken to hold; nil when that was before a restart.
        fileprivate let access: (MirrorAccess, until: Duration)?
        fileprivate var lastUsed: Duration
    }

    private struct Grant: Hashable {
        let access: Digest
        let repository: String
    }

    /// Images known: what is shared of each is one record of the 1,024 a node may have.
    static let maxImages = 256
    /// Grants kept; a node pulls from fewer repositories in ten minutes.
    static let maxGrants = 1024
    /// How long a shown right is taken to hold. Registries' own tokens live five minutes and more.
    static let trusted = Duration.seconds(600)

    private var images: [Digest: Image] = [:]
    private var grants: [Grant: Duration] = [:]

    func has(_ manifest: Digest) -> Bool { images[manifest] != nil }

    /// Takes in an image whose manifest these credentials have just been given, or an earlier process was. Returns images
    /// that were forgotten for it.
    mutating func note(
        _ manifest: Digest, _ blobs: [Descriptor], of repository: Reference, id: WireID?, by access: MirrorAccess?,
        now: Duration
    ) -> [Image] {
        var forgotten: [Image] = []
        // Another key is another image to peers.
        if let old = images[manifest], old.id != id { forgotten.append(old) }
        images[manifest] = Image(
            manifest: manifest, repository: repository, blobs: blobs, id: id,
            access: access.map { ($0, now + Self.trusted) },
            lastUsed: now)
        while images.count > Self.maxImages,
            let oldest = images.values.min(by: { ($0.lastUsed, $0.manifest) < ($1.lastUsed, $1.manifest) })
        {
            images[oldest.manifest] = nil
            forgotten.append(oldest)
        }
        return forgotten
    }

    /// These credentials have been given something of the repository.
    mutating func grant(_ access: MirrorAccess, _ repository: Reference, now: Duration) {
        if grants.count >= Self.maxGrants {
            grants = grants.filter { now < $0.value }
            // Asked for again where they are needed.
            if grants.count >= Self.maxGrants { grants = [:] }
        }
        grants[Grant(access: access.id, repository: repository.name)] = now + Self.trusted
    }

    func isGranted(_ access: MirrorAccess, _ repository: Reference, now: Duration) -> Bool {
        grants[Grant(access: access.id, repository: repository.name)].map { now < $0 } ?? false
    }

    /// The registry refuses what it gave before.
    mutating func revoke(_ access: MirrorAccess, _ repository: Reference) {
        grants[Grant(access: access.id, repository: repository.name)] = nil
    }

    /// The image of a repository that has a blob: one that peers know before one they do not, the last used before others.
    mutating func image(of repository: Reference, with blob: Digest, now: Duration) -> Image? {
        let found = images.values.filter { image in
            image.repository.name == repository.name && image.blobs.contains { $0.digest == blob }
        }.max { ($0.id == nil ? 0 : 1, $0.lastUsed, $0.manifest) < ($1.id == nil ? 0 : 1, $1.lastUsed, $1.manifest) }
        if let found { images[found.manifest]?.lastUsed = now }
        return found
    }

    /// The image that peers know by this name.
    func image(named id: WireID) -> Image? { images.values.first { $0.id == id } }
}

extension MirrorBook.Image {
    /// What it may be fetched with at the registry for a peer's sake.
    func access(now: Duration) -> MirrorAccess? { access.flatMap { now < $0.until ? $0.0 : nil } }
}
