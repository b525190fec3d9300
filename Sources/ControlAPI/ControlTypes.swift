import ChunkModel

/// The version every body of the control API carries: docs/operations.md, "Control API".
///
/// Names are camelCase, units are last in the name (`Bytes`, `Seconds`), digests are `sha256:<hex>`. Within a version
/// fields are only added, and a reader ignores those it does not know.
package enum ControlVersion {
    /// `apiVersion` of every reply, and of a request that carries one.
    package static let current = "chunkd/v1"
    /// What every path starts with.
    package static let pathPrefix = "/v1"
}

// MARK: - Mounts

/// `POST /v1/mounts`: open an image and mount it beneath the gate's directory.
package struct MountRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// An OCI reference, `host/name:tag` or `host/name@sha256:…`.
    package var reference: String
    /// When given, a reference that resolves to any other manifest is refused.
    package var pinnedDigest: Digest?

    package init(reference: String, pinnedDigest: Digest? = nil) {
        self.reference = reference
        self.pinnedDigest = pinnedDigest
    }
}

/// Answer to `POST /v1/mounts`.
package struct MountReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    /// The reference as it was asked for.
    package var reference: String
    /// The manifest it resolved to: the image's identity on this node.
    package var manifestDigest: Digest
    /// The gate's EROFS mount, shared by all users of the image. `chunkctl mount` bind-mounts it.
    package var mountPath: String
    /// Size of the EROFS metadata image, fetched whole before the mount.
    package var bootstrapBytes: UInt64
    /// Raw size of all data blobs.
    package var rawBytes: UInt64
    /// EROFS data devices.
    package var blobs: Int
    package var chunks: UInt64
    /// How many of `chunks` need no fetch already.
    package var residentChunks: UInt64
    /// The gate had it mounted before this request.
    package var alreadyMounted: Bool
    /// Wall time of the request in the agent.
    package var seconds: Double

    package init(
        reference: String, manifestDigest: Digest, mountPath: String, bootstrapBytes: UInt64, rawBytes: UInt64,
        blobs: Int, chunks: UInt64, residentChunks: UInt64, alreadyMounted: Bool, seconds: Double
    ) {
        self.reference = reference
        self.manifestDigest = manifestDigest
        self.mountPath = mountPath
        self.bootstrapBytes = bootstrapBytes
        self.rawBytes = rawBytes
        self.blobs = blobs
        self.chunks = chunks
        self.residentChunks = residentChunks
        self.alreadyMounted = alreadyMounted
        self.seconds = seconds
    }
}

/// `POST /v1/umounts`: the caller has unmounted its bind mount and needs the image no longer. `conflict` when containers
/// run on it.
package struct UmountRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    package var manifestDigest: Digest
    /// Only says whether it would be refused: before the caller unmounts anything.
    package var dryRun: Bool?

    package init(manifestDigest: Digest, dryRun: Bool? = nil) {
        self.manifestDigest = manifestDigest
        self.dryRun = dryRun
    }
}

/// Answer to `POST /v1/umounts`.
package struct UmountReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var manifestDigest: Digest
    /// False when another user keeps the gate's mount, and on a dry run.
    package var released: Bool

    package init(manifestDigest: Digest, released: Bool) {
        self.manifestDigest = manifestDigest
        self.released = released
    }
}

// MARK: - Images

/// One data blob of an image, as the gate holds it.
package struct BlobSummary: Codable, Equatable, Sendable {
    package var digest: Digest
    package var rawBytes: UInt64
    package var residentBytes: UInt64
    package var chunks: UInt64
    package var residentChunks: UInt64
    /// Complete, synced and unmarked: no process of ours is on its read path.
    package var graduated: Bool

    package init(
        digest: Digest, rawBytes: UInt64, residentBytes: UInt64, chunks: UInt64, residentChunks: UInt64, graduated: Bool
    ) {
        self.digest = digest
        self.rawBytes = rawBytes
        self.residentBytes = residentBytes
        self.chunks = chunks
        self.residentChunks = residentChunks
        self.graduated = graduated
    }
}

/// One image of this node.
package struct ImageSummary: Codable, Equatable, Sendable {
    package var manifestDigest: Digest
    /// References it was asked for by, sorted.
    package var references: [String]
    package var mounted: Bool
    /// Its readers may have seen zeros (the group was lost): remount it. docs/operations.md, "Tainted mounts".
    package var tainted: Bool
    /// Never evicted.
    package var pinned: Bool
    /// No fetches are made for it any more: its registry sends wrong bytes.
    package var quarantined: Bool
    /// Where the gate mounts it.
    package var mountPath: String
    package var bootstrapBytes: UInt64
    /// In the order of the manifest.
    package var blobs: [BlobSummary]
    /// Unix time of the last mount or read, in seconds; nil when unknown.
    package var lastUsedUnixSeconds: Double?

    package init(
        manifestDigest: Digest, references: [String], mounted: Bool, tainted: Bool, pinned: Bool, quarantined: Bool,
        mountPath: String, bootstrapBytes: UInt64, blobs: [BlobSummary], lastUsedUnixSeconds: Double? = nil
    ) {
        self.manifestDigest = manifestDigest
        self.references = references
        self.mounted = mounted
        self.tainted = tainted
        self.pinned = pinned
        self.quarantined = quarantined
        self.mountPath = mountPath
        self.bootstrapBytes = bootstrapBytes
        self.blobs = blobs
        self.lastUsedUnixSeconds = lastUsedUnixSeconds
    }

    /// Raw bytes of all blobs.
    package var rawBytes: UInt64 { blobs.reduce(0) { $0 &+ $1.rawBytes } }
    /// Resident bytes of all blobs.
    package var residentBytes: UInt64 { blobs.reduce(0) { $0 &+ $1.residentBytes } }
    package var chunks: UInt64 { blobs.reduce(0) { $0 &+ $1.chunks } }
    package var residentChunks: UInt64 { blobs.reduce(0) { $0 &+ $1.residentChunks } }
}

/// Answer to `GET /v1/images`, sorted by manifest digest.
package struct ImagesReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var images: [ImageSummary]

    package init(images: [ImageSummary]) { self.images = images }
}

// MARK: - Long operations

/// How far a long operation is; sent about once a second.
package struct ProgressReport: Codable, Equatable, Sendable {
    /// A word for people: `resolve`, `fetch`, `verify`, `repair`.
    package var phase: String
    package var doneChunks: UInt64
    package var totalChunks: UInt64
    package var doneBytes: UInt64
    package var totalBytes: UInt64

    package init(phase: String, doneChunks: UInt64, totalChunks: UInt64, doneBytes: UInt64, totalBytes: UInt64) {
        self.phase = phase
        self.doneChunks = doneChunks
        self.totalChunks = totalChunks
        self.doneBytes = doneBytes
        self.totalBytes = totalBytes
    }
}

/// `POST /v1/prefetch`: fetch the rest of an image, mounted or not.
package struct PrefetchRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    package var reference: String

    package init(reference: String) { self.reference = reference }
}

/// Last line of `POST /v1/prefetch`.
package struct PrefetchReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var reference: String
    package var manifestDigest: Digest
    package var chunks: UInt64
    /// Chunks this request had fetched or copied; the rest was resident.
    package var filledChunks: UInt64
    /// Bytes that came from outside the node (as transferred, so compressed ones count compressed).
    package var fetchedBytes: UInt64
    package var seconds: Double

    package init(
        reference: String, manifestDigest: Digest, chunks: UInt64, filledChunks: UInt64, fetchedBytes: UInt64,
        seconds: Double
    ) {
        self.reference = reference
        self.manifestDigest = manifestDigest
        self.chunks = chunks
        self.filledChunks = filledChunks
        self.fetchedBytes = fetchedBytes
        self.seconds = seconds
    }
}

/// `POST /v1/verify`: hash what is on disk against the chunk indexes.
package struct VerifyRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    package var reference: String
    /// Fetch bad chunks again.
    package var repair: Bool

    package init(reference: String, repair: Bool) {
        self.reference = reference
        self.repair = repair
    }
}

/// One chunk on disk whose bytes are not those of the index.
package struct BadChunk: Codable, Equatable, Sendable {
    package var blob: Digest
    /// Number in the blob's index, from 0.
    package var chunk: UInt64
    package var repaired: Bool

    package init(blob: Digest, chunk: UInt64, repaired: Bool) {
        self.blob = blob
        self.chunk = chunk
        self.repaired = repaired
    }
}

/// Last line of `POST /v1/verify`.
package struct VerifyReply: Codable, Equatable, Sendable {
    /// Bad chunks listed one by one; `badChunks` counts all.
    package static let maxListed = 1000

    package var apiVersion = ControlVersion.current
    package var reference: String
    package var manifestDigest: Digest
    package var checkedChunks: UInt64
    /// Not fetched yet, so nothing to check.
    package var absentChunks: UInt64
    package var badChunks: UInt64
    package var repairedChunks: UInt64
    /// The first `maxListed`.
    package var bad: [BadChunk]
    package var seconds: Double

    package init(
        reference: String, manifestDigest: Digest, checkedChunks: UInt64, absentChunks: UInt64, badChunks: UInt64,
        repairedChunks: UInt64, bad: [BadChunk], seconds: Double
    ) {
        self.reference = reference
        self.manifestDigest = manifestDigest
        self.checkedChunks = checkedChunks
        self.absentChunks = absentChunks
        self.badChunks = badChunks
        self.repairedChunks = repairedChunks
        self.bad = Array(bad.prefix(Self.maxListed))
        self.seconds = seconds
    }
}

/// `POST /v1/pins`: keep an image that is on the node from being collected, or no longer.
package struct PinRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// A reference or a manifest's digest.
    package var reference: String
    package var pinned: Bool

    package init(reference: String, pinned: Bool) {
        self.reference = reference
        self.pinned = pinned
    }
}

/// Answer to `POST /v1/pins`.
package struct PinReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var reference: String
    package var manifestDigest: Digest
    package var pinned: Bool

    package init(reference: String, manifestDigest: Digest, pinned: Bool) {
        self.reference = reference
        self.manifestDigest = manifestDigest
        self.pinned = pinned
    }
}

/// `POST /v1/gc`: remove what no mount, pin or quota keeps.
package struct GarbageRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// Say what would be removed, remove nothing.
    package var dryRun: Bool

    package init(dryRun: Bool) { self.dryRun = dryRun }
}

/// One image that was, or would be, removed.
package struct GarbageItem: Codable, Equatable, Sendable {
    package var manifestDigest: Digest
    package var references: [String]
    package var freedBytes: UInt64

    package init(manifestDigest: Digest, references: [String], freedBytes: UInt64) {
        self.manifestDigest = manifestDigest
        self.references = references
        self.freedBytes = freedBytes
    }
}

/// Answer to `POST /v1/gc`, least recently used first.
package struct GarbageReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var dryRun: Bool
    package var removed: [GarbageItem]
    package var freedBytes: UInt64

    package init(dryRun: Bool, removed: [GarbageItem], freedBytes: UInt64) {
        self.dryRun = dryRun
        self.removed = removed
        self.freedBytes = freedBytes
    }
}

// MARK: - Doctor and version

/// One thing `chunkctl doctor` looked at.
package struct DoctorCheck: Codable, Equatable, Sendable {
    /// How a check ended; `fail` makes `chunkctl doctor` exit 1.
    package enum Status: String, Codable, Sendable { case ok, warn, fail }

    /// Short and stable: `kernel`, `registry docker.io`.
    package var name: String
    package var status: Status
    /// What was found.
    package var found: String
    /// What to do about it; empty when `ok`.
    package var advice: String

    package init(name: String, status: Status, found: String, advice: String = "") {
        self.name = name
        self.status = status
        self.found = found
        self.advice = advice
    }
}

/// Answer to `GET /v1/doctor`: the checks only the agent can make (gate, registries, catalogue).
package struct DoctorReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var checks: [DoctorCheck]

    package init(checks: [DoctorCheck]) { self.checks = checks }
}

/// Answer to `GET /v1/version`.
package struct VersionReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    /// chunkd's own version, `MAJOR.MINOR.PATCH`.
    package var version: String
    /// Version of the protocol between chunkd and chunkgate.
    package var gateProtocol: Int
    package var gateConnected: Bool

    package init(version: String, gateProtocol: Int, gateConnected: Bool) {
        self.version = version
        self.gateProtocol = gateProtocol
        self.gateConnected = gateConnected
    }
}
