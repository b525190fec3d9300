import Catalogue
import ChunkModel
import ControlAPI
import LinuxSystem
import Logging
import OCISpec

/// What people ask of the cluster.
extension AgentService {
    package func peers() async throws -> PeersReply { cluster?.peers() ?? PeersReply(enabled: false) }

    package func explain(_ request: ExplainRequest) async throws -> ExplainReply {
        try await answering {
            try await images.waitUntilSynced()
            let (kind, targets) = try await images.find(request.subject)
            let infos = try await gate.list()
            let blobs = targets.map { target in
                let info = infos.lazy.flatMap(\.blobs).first { $0.digest == target.key.blob }
                var blob = ExplainedBlob(
                    blob: target.key.blob, chunks: UInt64(info?.chunkCount ?? 0),
                    residentChunks: UInt64(info?.residentCount ?? 0), sharing: "none",
                    chunk: UInt64(target.chunk ?? 0))
                let registry = ExplainedSource(
                    "registry/\(target.registry)",
                    why: cluster == nil ? "this node has no peers" : "when peers gave nothing, or their time is over")
                cluster?.explain(target.key, chunk: target.chunk, registry: registry, &blob)
                if blob.sources.isEmpty {
                    blob.sources = [
                        ExplainedSource(
                            registry.source, why: cluster == nil ? registry.why : "its images are not shared with peers"
                        )
                    ]
                }
                return blob
            }
            return ExplainReply(subject: request.subject, kind: kind, blobs: blobs)
        }
    }

    package func drain(
        _ request: DrainRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> DrainReply {
        try await answering {
            let start = Monotonic.now
            try await images.waitUntilSynced()
            cluster?.stopServing()
            metrics.events.note(.draining, cluster?.own.text ?? "this node")
            logger.notice("draining", metadata: ["hydrate": "\(request.hydrate)"])
            let mounted = try await gate.list().filter(\.mounted)
            var outcome = BulkJob.Outcome()
            if request.hydrate {
                let keys = await images.keys(of: mounted.map(\.manifest))
                let blobs = mounted.flatMap(\.blobs)
                let (chunks, bytes) = blobs.reduce((UInt64(0), UInt64(0))) { sum, blob in
                    let absent = UInt64(blob.chunkCount - min(blob.chunkCount, blob.residentCount))
                    return (sum.0 + absent, sum.1 + blob.rawSize - min(blob.rawSize, blob.residentBytes))
                }
                outcome = await pipeline.prefetch(keys) { outcome in
                    progress(
                        ProgressReport(
                            phase: "drain", doneChunks: min(chunks, outcome.filled), totalChunks: chunks,
                            doneBytes: min(bytes, outcome.rawBytes), totalBytes: bytes))
                }
                try Task.checkCancellation()
            }
            await cluster?.depart()
            return DrainReply(
                images: UInt64(mounted.count), filledChunks: outcome.filled, missingChunks: outcome.failed,
                announced: cluster != nil, seconds: Self.seconds(since: start))
        }
    }
}
