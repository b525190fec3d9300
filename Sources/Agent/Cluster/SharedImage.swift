import ChunkModel
import ContentIndex
import Integrity
import LinuxSystem

/// One image as peers may know it: its names on the wire, and the files its mount needs before the first chunk. A value.
struct SharedImage {
    /// Makes the names; nil for a public image.
    let key: ManifestKey?
    /// Its blobs' names, in order. Never empty: an image without blobs has nothing to share.
    let blobs: [WireID]
    /// Opens the parts that are here, by name.
    var parts: [WireID: @Sendable () async throws -> File] = [:]

    /// The blob by whose registered nodes the parts are found: nil for an image without blobs.
    init?(_ image: ImageManifest, key: ManifestKey?) {
        blobs = image.keys.map { WireID.blob($0.blob, index: $0.index, key: key) }
        self.key = key
        if blobs.isEmpty { return nil }
    }

    var first: WireID { blobs[0] }

    /// The name of a part with this digest.
    func part(_ digest: Digest) -> WireID { WireID.chunk(digest, key: key) }
}
