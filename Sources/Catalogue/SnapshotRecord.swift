package import ChunkModel

/// A container snapshot as containerd knows it (containerd, core/snapshots, `Info`).
package struct SnapshotRecord: Equatable, Sendable {
    /// What can be done with it.
    package enum Kind: String, Sendable {
        /// Read only, of a container that writes nothing.
        case view
        /// Writable: a container's, or a layer that is being unpacked.
        case active
        /// Read only for ever, and the parent of others.
        case committed
    }

    /// The EROFS image that stands for a snapshot and those of its ancestors that name the same one.
    package struct Image: Hashable, Sendable {
        package var manifest: Digest
        /// What to fetch it by.
        package var reference: String

        package init(manifest: Digest, reference: String) {
            self.manifest = manifest
            self.reference = reference
        }
    }

    /// Bytes on disk and inodes.
    package struct Usage: Equatable, Sendable {
        package var bytes: UInt64
        package var inodes: UInt64

        package init(bytes: UInt64 = 0, inodes: UInt64 = 0) {
            self.bytes = bytes
            self.inodes = inodes
        }
    }

    /// Names its directory; never used again.
    package var id: UInt64
    /// containerd's key, or once committed its name.
    package var name: String
    package var parent: String?
    package var kind: Kind
    /// Nanoseconds since 1970.
    package var created: Int64
    package var updated: Int64
    package var labels: [String: String]
    /// Nil: it has a directory of its own.
    package var image: Image?
    /// Measured when it was committed.
    package var usage = Usage()

    package init(
        id: UInt64 = 0, name: String, parent: String?, kind: Kind, created: Int64, labels: [String: String],
        image: Image? = nil
    ) {
        self.id = id
        self.name = name
        self.parent = parent
        self.kind = kind
        self.created = created
        updated = created
        self.labels = labels
        self.image = image
    }
}

/// Why a snapshot could not be prepared, committed or removed.
package struct SnapshotError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Closed set; the raw value is a metric label.
    package enum Code: String, Sendable, CaseIterable {
        case invalid
        case notFound = "not_found"
        case exists
        /// The snapshot is of another kind, or has children.
        case precondition
        /// chunkgate, the disk or a registry could not do it now.
        case unavailable
    }

    package let code: Code
    /// What, expected and found.
    package let message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    package var description: String { message }
}
