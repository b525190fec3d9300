package import Catalogue
package import ChunkModel

/// What snapshots need of their node: directories that belong to root, and EROFS images. Thread-safe.
package protocol SnapshotHost: Sendable {
    /// Where the directories of snapshot `id` lie: `fs`, what it holds, and `work` for overlayfs.
    func directory(of id: UInt64) -> String
    /// Makes them, for root; `fs` looks like that of another snapshot or like the root of an image. `exists` when they are
    /// there.
    func makeDirectory(_ id: UInt64, like: GateProtocol.SnapshotLike) async throws(SnapshotError)
    /// Removes them; not there is no error.
    func removeDirectory(_ id: UInt64) async throws(SnapshotError)
    /// What `fs` takes.
    func usage(of id: UInt64) async throws(SnapshotError) -> SnapshotRecord.Usage
    /// Numbers of all directories there are.
    func directories() async throws(SnapshotError) -> [UInt64]

    /// Whether containerd's image is one of chunkd's, and which layer of it this is; nil when it is an ordinary one.
    /// - Throws: when nobody could say.
    func layer(
        _ layer: Digest, of manifest: Digest, reference: String
    ) async throws(SnapshotError) -> SnapshotLayer?
    /// Has the image mounted; where. Again is cheap.
    func mount(_ image: SnapshotRecord.Image) async throws(SnapshotError) -> String
    /// Bytes of the image on disk.
    func usage(of image: SnapshotRecord.Image) async throws(SnapshotError) -> SnapshotRecord.Usage
    /// No snapshot needs the image any more: it is unmounted and removed unless somebody else uses it or it is pinned.
    func release(_ image: SnapshotRecord.Image) async throws(SnapshotError)
}

/// One layer of a chunkd image.
package struct SnapshotLayer: Equatable, Sendable {
    /// Its place in the manifest; 0 is the bootstrap.
    package var position: Int
    package init(position: Int) { self.position = position }
}
