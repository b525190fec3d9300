import ChunkModel
import ControlAPI
import Foundation
import Logging
import NIOPosix
import Synchronization

/// A control server whose answers a test sets.
final class ScriptedAgent: ControlService {
    static let digest = Digest(hex: String(repeating: "cd", count: 32)) ?? never

    private static var never: Digest { fatalError("64 hexadecimal digits are a digest") }

    let directory: String
    let socket: String
    private let server = Mutex<ControlServer?>(nil)
    private let mountPath: String
    private let calls = Mutex<[String]>([])
    private let gap: Bool

    var asked: [String] { calls.withLock { $0 } }

    init(mountPath: String = "/nonexistent/mnt", integrityGap: Bool = false) async throws {
        directory = "/tmp/chunkctl-agent-\(UUID().uuidString.prefix(8))"
        socket = directory + "/control.sock"
        self.mountPath = mountPath
        gap = integrityGap
        let started = try await ControlServer.start(
            path: socket, group: MultiThreadedEventLoopGroup.singleton, service: self,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        server.withLock { $0 = started }
    }

    func end() async {
        await server.withLock { $0 }?.stop()
        try? FileManager.default.removeItem(atPath: directory)
    }

    private func note(_ call: String) { calls.withLock { $0.append(call) } }

    private var image: ImageSummary {
        ImageSummary(
            manifestDigest: Self.digest, references: ["r.example/a:1"], mounted: true, tainted: gap, pinned: false,
            quarantined: false, mountPath: mountPath, bootstrapBytes: 4096,
            blobs: [
                BlobSummary(
                    digest: Self.digest, rawBytes: 1 << 30, residentBytes: 256 << 20, chunks: 2000, residentChunks: 500,
                    graduated: false)
            ])
    }

    func mount(_ request: MountRequest) async throws -> MountReply {
        note("mount \(request.reference)")
        if request.reference == "missing" { throw ControlError(.notFound, "no image missing", hint: "check the tag") }
        return MountReply(
            reference: request.reference, manifestDigest: Self.digest, mountPath: mountPath, bootstrapBytes: 4096,
            rawBytes: 1 << 30, blobs: 1, chunks: 2000, residentChunks: 500, alreadyMounted: false, seconds: 0.1)
    }

    func umount(_ request: UmountRequest) async throws -> UmountReply {
        note("umount \(request.manifestDigest.short)")
        return UmountReply(manifestDigest: request.manifestDigest, released: true)
    }

    func images() async throws -> ImagesReply { ImagesReply(images: [image]) }

    func stat() async throws -> StatReply {
        var stat = StatReply()
        stat.gateConnected = true
        stat.reads.bytesRead = 3 << 20
        stat.reads.misses = 7
        stat.bytesFetched = 2 << 20
        stat.sources = [SourceStat(source: "registry/r.example", chunks: 7, bytes: 2 << 20, errors: 0)]
        stat.images = [image]
        stat.integrity.integrityGap = gap
        return stat
    }

    func prefetch(
        _ request: PrefetchRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> PrefetchReply {
        progress(.init(phase: "fetch", doneChunks: 1, totalChunks: 4, doneBytes: 1 << 20, totalBytes: 4 << 20))
        return PrefetchReply(
            reference: request.reference, manifestDigest: Self.digest, chunks: 4, filledChunks: 3,
            fetchedBytes: 3 << 20, seconds: 2)
    }

    func verify(
        _ request: VerifyRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> VerifyReply {
        let bad = [BadChunk(blob: Self.digest, chunk: 17, repaired: request.repair)]
        return VerifyReply(
            reference: request.reference, manifestDigest: Self.digest, checkedChunks: 9, absentChunks: 1, badChunks: 1,
            repairedChunks: request.repair ? 1 : 0, bad: bad, seconds: 1)
    }

    func collectGarbage(_ request: GarbageRequest) async throws -> GarbageReply {
        GarbageReply(
            dryRun: request.dryRun,
            removed: [GarbageItem(manifestDigest: Self.digest, references: ["r.example/old:1"], freedBytes: 5 << 20)],
            freedBytes: 5 << 20)
    }

    func doctor() async throws -> DoctorReply {
        DoctorReply(checks: [
            DoctorCheck(name: "registry r.example", status: .fail, found: "no route", advice: "check the network")
        ])
    }

    func version() async throws -> VersionReply {
        VersionReply(version: "0.1.0", gateProtocol: 1, gateConnected: true)
    }
}
