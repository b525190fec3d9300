import Catalogue
import ChunkModel
import ControlAPI
import LinuxSystem
import Logging
import OCISpec

/// The long operations: prefetch and verify.
extension AgentService {
    package func prefetch(
        _ request: PrefetchRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> PrefetchReply {
        try await answering {
            let start = Monotonic.now
            try await images.waitUntilSynced()
            let (manifest, name) = try await images.resolve(request.reference)
            let info = try await images.open(manifest, name: name, mount: false)
            let chunks = info.blobs.reduce(UInt64(0)) { $0 + UInt64($1.chunkCount) }
            let resident = info.blobs.reduce(UInt64(0)) { $0 + UInt64($1.residentCount) }
            let total = info.blobs.reduce(UInt64(0)) { $0 + $1.rawSize }
            let before = chunks == 0 ? 0 : UInt64(Double(total) * Double(resident) / Double(chunks))
            @Sendable func report(_ outcome: BulkJob.Outcome) {
                progress(
                    ProgressReport(
                        phase: "fetch", doneChunks: min(chunks, resident + outcome.filled), totalChunks: chunks,
                        doneBytes: min(total, before + outcome.rawBytes), totalBytes: total))
            }
            report(BulkJob.Outcome())
            let outcome = await pipeline.prefetch(manifest.keys, progress: report)
            try Task.checkCancellation()
            guard outcome.failed == 0 else {
                throw AgentError(
                    .incomplete,
                    "\(outcome.failed) of \(chunks - resident) chunks of \(request.reference) could not be had")
            }
            return PrefetchReply(
                reference: request.reference, manifestDigest: manifest.digest, chunks: chunks,
                filledChunks: outcome.filled, fetchedBytes: outcome.fetchedBytes, seconds: Self.seconds(since: start))
        }
    }

    package func verify(
        _ request: VerifyRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> VerifyReply {
        try await answering {
            let start = Monotonic.now
            try await images.waitUntilSynced()
            let manifest = try await images.stored(request.reference)
            let info = try await images.open(manifest, name: nil, mount: false)
            var run = VerifyRun(
                total: info.blobs.reduce(0) { $0 + UInt64($1.chunkCount) },
                totalBytes: info.blobs.reduce(0) { $0 + $1.rawSize }, progress: progress)
            for (blob, key) in zip(info.blobs, manifest.keys) {
                try await verify(blob, key, repair: request.repair, &run)
            }
            return VerifyReply(
                reference: request.reference, manifestDigest: manifest.digest, checkedChunks: run.checked,
                absentChunks: run.absent, badChunks: UInt64(run.bad.count), repairedChunks: run.repaired, bad: run.bad,
                seconds: Self.seconds(since: start))
        }
    }

    /// What a verification has found so far.
    private struct VerifyRun {
        let total: UInt64
        let totalBytes: UInt64
        let progress: @Sendable (ProgressReport) -> Void
        var checked: UInt64 = 0
        var absent: UInt64 = 0
        var doneBytes: UInt64 = 0
        var repaired: UInt64 = 0
        var bad: [BadChunk] = []

        func report(_ phase: String) {
            progress(
                ProgressReport(
                    phase: phase, doneChunks: checked + absent, totalChunks: total,
                    doneBytes: min(doneBytes, totalBytes), totalBytes: totalBytes))
        }
    }

    private func verify(
        _ blob: GateProtocol.BlobInfo, _ key: BlobKey, repair: Bool, _ run: inout VerifyRun
    ) async throws {
        let mean = blob.chunkCount == 0 ? 0 : blob.rawSize / UInt64(blob.chunkCount)
        var first = 0
        while first < Int(blob.chunkCount) {
            try Task.checkCancellation()
            let count = min(GateProtocol.maxVerifyChunks, Int(blob.chunkCount) - first)
            let result = try await gate.verify(blob.handle, first: first, count: count)
            guard result.checked + result.absent > 0 else {
                throw AgentError(.gateProtocol, "chunkgate checked nothing from chunk \(first) on")
            }
            run.checked += UInt64(result.checked)
            run.absent += UInt64(result.absent)
            run.doneBytes += UInt64(result.checked + result.absent) * mean
            run.report("verify")
            if !result.bad.isEmpty {
                logger.error(
                    "chunks on disk are damaged", metadata: ["blob": "\(key.blob)", "chunks": "\(result.bad)"])
                let repaired = repair ? await pipeline.repair(key, result.bad) : []
                if repair { run.report("repair") }
                run.repaired += UInt64(repaired.count)
                run.bad += result.bad.map {
                    BadChunk(blob: key.blob, chunk: UInt64($0), repaired: repaired.contains($0))
                }
            }
            first += result.checked + result.absent
        }
    }
}
