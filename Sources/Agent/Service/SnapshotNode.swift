import Catalogue
import ChunkModel
import Glibc
import Logging
import OCISpec
import Snapshotter
import Synchronization
import Telemetry

/// What containerd's snapshots need of this node: directories from chunkgate, images from `ImageService`. Thread-safe.
final class SnapshotNode: SnapshotHost {
    private let gate: GateClient
    private let images: ImageService
    private let root: String
    private let logger: Logger
    /// Images that turned out to be ordinary ones, so that a registry is asked once and not for each layer.
    private let ordinary = Mutex<[Digest]>([])

    /// How many of them are remembered: those being pulled at once, with room.
    private static let maxOrdinary = 256

    init(gate: GateClient, images: ImageService, stateDirectory: String, logger: Logger) {
        self.gate = gate
        self.images = images
        root = stateDirectory + "/gate/snapshots/"
        self.logger = logger
    }

    private func answering<Value: Sendable>(
        _ body: () async throws -> Value
    ) async throws(SnapshotError) -> Value {
        do { return try await body() } catch let error as SnapshotError { throw error } catch {
            throw SnapshotError(.unavailable, "\(error)")
        }
    }

    // MARK: - Directories

    func directory(of id: UInt64) -> String { root + String(id) }

    func makeDirectory(_ id: UInt64, like: GateProtocol.SnapshotLike) async throws(SnapshotError) {
        try await answering {
            do { try await gate.makeSnapshot(id, like: like) } catch let error as AgentError {
                guard error.errno == EEXIST else { throw error }
                throw SnapshotError(.exists, "\(directory(of: id)) is there already")
            }
        }
    }

    func removeDirectory(_ id: UInt64) async throws(SnapshotError) {
        _ = try await answering { try await gate.removeSnapshot(id) }
    }

    func usage(of id: UInt64) async throws(SnapshotError) -> SnapshotRecord.Usage {
        try await answering {
            let usage = try await gate.snapshotUsage(id)
            return .init(bytes: usage.bytes, inodes: usage.inodes)
        }
    }

    func directories() async throws(SnapshotError) -> [UInt64] {
        try await answering {
            var all: [UInt64] = []
            while true {
                let ids = try await gate.snapshots(after: all.last ?? 0)
                all += ids
                guard ids.count == GateProtocol.maxListedSnapshots else { return all }
            }
        }
    }

    // MARK: - Images

    func layer(
        _ layer: Digest, of manifest: Digest, reference: String
    ) async throws(SnapshotError) -> SnapshotLayer? {
        if ordinary.withLock({ $0.contains(manifest) }) { return nil }
        return try await answering {
            do {
                let image = try await images.manifest(manifest, by: reference).image
                let layers = [image.bootstrap] + image.blobs.flatMap { [$0.descriptor, $0.index] }
                return layers.firstIndex { $0.digest == layer }.map { SnapshotLayer(position: $0) }
            } catch let error as AgentError where error.code == .ordinaryImage {
                ordinary.withLock { known in
                    known.append(manifest)
                    if known.count > Self.maxOrdinary { known.removeFirst() }
                }
                return nil
            }
        }
    }

    func mount(_ image: SnapshotRecord.Image) async throws(SnapshotError) -> String {
        try await answering {
            try await images.waitUntilSynced()
            if let path = await images.mountPath(image.manifest) { return path }
            let manifest = try await images.manifest(image.manifest, by: image.reference)
            let name = ImageService.canonical(try Reference(image.reference))
            let info = try await images.open(manifest, name: name, mount: true)
            logger.info(
                "mounted for containers",
                metadata: ["reference": "\(image.reference)", "manifest": "\(image.manifest)"])
            return info.path
        }
    }

    func usage(of image: SnapshotRecord.Image) async throws(SnapshotError) -> SnapshotRecord.Usage {
        try await answering {
            let all = try await gate.list()
            guard let info = all.first(where: { $0.manifest == image.manifest }) else { return .init() }
            let files = UInt64(info.blobs.count + 1)
            return .init(bytes: info.bootstrapSize + info.blobs.reduce(0) { $0 + $1.residentBytes }, inodes: files)
        }
    }

    func release(_ image: SnapshotRecord.Image) async throws(SnapshotError) {
        try await answering {
            try await images.waitUntilSynced()
            guard let freed = try await images.removeIfUnused(image.manifest) else {
                return logger.info(
                    "an image that containers need no more stays: it is pinned, or mounted elsewhere",
                    metadata: ["manifest": "\(image.manifest)"])
            }
            logger.info(
                "image of containers removed", metadata: ["manifest": "\(image.manifest)", "bytes": "\(freed)"])
        }
    }
}
