import Catalogue
import ChunkModel
import Logging
import Snapshotter
import Synchronization
import TestSupport

/// A node that remembers what it was asked for.
final class ScriptedHost: SnapshotHost {
    struct State {
        var made: [UInt64: GateProtocol.SnapshotLike] = [:]
        var mounts: [SnapshotRecord.Image] = []
        var released: [SnapshotRecord.Image] = []
        /// Manifest digest → digests of its layers, for images of chunkd.
        var images: [Digest: [Digest]] = [:]
        var failure: SnapshotError?
    }
    let state = Mutex(State())

    private func attempt<Value>(_ body: (inout sending State) -> sending Value) throws(SnapshotError) -> Value {
        if let failure = state.withLock({ $0.failure }) { throw failure }
        return state.withLock(body)
    }

    func directory(of id: UInt64) -> String { "/s/\(id)" }
    func makeDirectory(_ id: UInt64, like: GateProtocol.SnapshotLike) async throws(SnapshotError) {
        let isNew = try attempt { $0.made.updateValue(like, forKey: id) == nil }
        guard isNew else { throw SnapshotError(.exists, "/s/\(id) is there already") }
    }
    func removeDirectory(_ id: UInt64) async throws(SnapshotError) { try attempt { $0.made[id] = nil } }
    func usage(of id: UInt64) async throws(SnapshotError) -> SnapshotRecord.Usage {
        try attempt { _ in .init(bytes: 4096 * id, inodes: id) }
    }
    func directories() async throws(SnapshotError) -> [UInt64] { try attempt { $0.made.keys.sorted() } }
    func layer(
        _ layer: Digest, of manifest: Digest, reference: String
    ) async throws(SnapshotError) -> SnapshotLayer? {
        try attempt { $0.images[manifest]?.firstIndex(of: layer).map { SnapshotLayer(position: $0) } }
    }
    func mount(_ image: SnapshotRecord.Image) async throws(SnapshotError) -> String {
        try attempt { state in
            state.mounts.append(image)
            return "/i/" + image.manifest.hex.prefix(4)
        }
    }
    func usage(of image: SnapshotRecord.Image) async throws(SnapshotError) -> SnapshotRecord.Usage {
        try attempt { _ in .init(bytes: 77, inodes: 1) }
    }
    func release(_ image: SnapshotRecord.Image) async throws(SnapshotError) {
        try attempt { $0.released.append(image) }
    }
}

/// A service on a ledger in a directory of its own.
struct Rig {
    let directory: TemporaryDirectory
    let ledger: SnapshotLedger
    let host = ScriptedHost()
    let service: SnapshotService
    let failures: Failures

    /// What the service told of itself. Thread-safe.
    final class Failures: Sendable {
        let codes = Mutex<[SnapshotError.Code]>([])
        let undecided = Mutex(0)
    }

    init(in directory: TemporaryDirectory? = nil, firstID: UInt64 = 1) throws {
        let directory = try directory ?? TemporaryDirectory(prefix: "snapshots")
        self.directory = directory
        ledger = try SnapshotLedger(path: directory.path + "/snapshots.sqlite", firstID: firstID)
        let failures = Failures()
        self.failures = failures
        let time = Mutex<Int64>(1_700_000_000_000_000_000)
        service = SnapshotService(
            ledger: ledger, host: host, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            now: {
                time.withLock { time in
                    time += 1_000_000_001
                    return time
                }
            },
            observe: { notice in
                switch notice {
                case .failed(let code): failures.codes.withLock { $0.append(code) }
                case .undecided: failures.undecided.withLock { $0 += 1 }
                case .skippedLayer: break
                }
            })
    }

    /// Records an image with three layers, and the labels containerd's image service gives its layers.
    func addImage(_ seed: UInt8) -> (manifest: Digest, labels: [[String: String]]) {
        let layers = (1...3).map { digest(seed &+ $0) }
        let manifest = digest(seed)
        host.state.withLock { $0.images[manifest] = layers }
        return (
            manifest,
            layers.enumerated().map { number, layer in
                [
                    "containerd.io/snapshot.ref": "sha256:chain\(seed)-\(number)",
                    "containerd.io/snapshot/cri.image-ref": "registry.test/app:\(seed)",
                    "containerd.io/snapshot/cri.manifest-digest": "\(manifest)",
                    "containerd.io/snapshot/cri.layer-digest": "\(layer)",
                ]
            }
        )
    }

    func digest(_ seed: UInt8) -> Digest {
        guard let digest = Digest(rawBytes: [UInt8](repeating: seed, count: 32)) else { fatalError("32 bytes") }
        return digest
    }

    /// Pulls an image of chunkd as containerd would; the name of its last layer.
    func pull(_ labels: [[String: String]]) async throws -> String {
        var parent = ""
        for (number, labels) in labels.enumerated() {
            do {
                _ = try await service.prepare("k8s.io/\(number)/extract", parent: parent, labels: labels)
                return "prepared"
            } catch let error as SnapshotError where error.code == .exists {
                parent = labels["containerd.io/snapshot.ref"] ?? ""
            }
        }
        return parent
    }
}
