import Catalogue
import ChunkModel
import ControlAPI
import LinuxSystem
import Logging
import OCISpec
import Synchronization

/// Recording access traces.
extension AgentService {
    /// One recording under way.
    struct Recording {
        /// As its client wrote it, and ends it by.
        let reference: String
        var isEnded = false
    }

    /// Recordings at once: each keeps at most 65,536 runs of 32 bytes and a bit a chunk.
    private static let maxRecordings = 4
    /// A recording that nobody ends, in case its client was forgotten: it ends with what it has.
    private static let longestRecording = Duration.seconds(3600)
    /// How often an end is looked for and progress is reported.
    private static let recordingInterval = Duration.milliseconds(200)

    package func recordTrace(
        _ request: TraceRequest, progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> TraceReply {
        try await answering {
            try await images.waitUntilSynced()
            let (manifest, name) = try await images.resolve(request.reference)
            try begin(manifest.digest, request.reference)
            defer { recordings.withLock { $0[manifest.digest] = nil } }
            // Before it is known what is here: nothing may come unseen in between.
            let id = pipeline.record(manifest.keys)
            defer { pipeline.post(.endRecording(id)) }
            return try await record(id, manifest, name, request, progress)
        }
    }

    package func endTrace(_ request: TraceRequest) async throws -> TraceEndReply {
        let ended = recordings.withLock { recordings in
            let found = recordings.first { $0.value.reference == request.reference }?.key
            if let found { recordings[found]?.isEnded = true }
            return found != nil
        }
        return TraceEndReply(ended: ended)
    }

    private func begin(_ digest: Digest, _ reference: String) throws(ControlError) {
        let refusal: ControlError? = recordings.withLock { recordings in
            if recordings[digest] != nil {
                return ControlError(
                    .conflict, "a trace of \(digest) is being recorded", hint: "wait for it, or end that chunkctl")
            }
            guard recordings.count < Self.maxRecordings else {
                return ControlError(.busy, "\(recordings.count) traces are being recorded", hint: "try again later")
            }
            recordings[digest] = Recording(reference: reference)
            return nil
        }
        if let refusal { throw refusal }
    }

    private func record(
        _ id: UInt64, _ manifest: ImageManifest, _ name: String, _ request: TraceRequest,
        _ progress: @escaping @Sendable (ProgressReport) -> Void
    ) async throws -> TraceReply {
        let start = Monotonic.now
        let info = try await images.open(manifest, name: name, mount: false)
        let chunks = info.blobs.reduce(UInt64(0)) { $0 + UInt64($1.chunkCount) }
        let resident = info.blobs.reduce(UInt64(0)) { $0 + UInt64($1.residentCount) }
        guard resident < chunks else {
            throw ControlError(
                .conflict,
                chunks == 0
                    ? "\(request.reference) has no data"
                    : "all \(chunks) chunks of \(request.reference) are here already",
                hint: chunks == 0
                    ? "there is nothing to fetch in any order"
                    : "no first read can be seen: unmount it, run chunkctl gc, and record again; or record on another node"
            )
        }
        let total = info.blobs.reduce(UInt64(0)) { $0 + $1.rawSize }
        var recorded = FetchPipeline.Recorded()
        while true {
            progress(
                ProgressReport(
                    phase: "record", doneChunks: UInt64(recorded.chunks), totalChunks: chunks,
                    doneBytes: recorded.bytes, totalBytes: total))
            let isEnded = recordings.withLock { $0[manifest.digest]?.isEnded ?? true }
            if isEnded || Self.seconds(since: start) > Self.longestRecording / .seconds(1) { break }
            // A client that has gone cancels it here.
            try await Task.sleep(for: Self.recordingInterval)
            recorded = await pipeline.recorded(id)
        }
        recorded = await pipeline.recorded(id)
        guard !recorded.runs.isEmpty else {
            throw ControlError(
                .conflict, "nothing of \(request.reference) was read for the first time while it was recorded",
                hint: "start the workload while recording; \(resident) of \(chunks) chunks were here before")
        }
        let trace = try AccessTrace(
            image: manifest.digest, blobs: manifest.image.traceBlobs(), runs: recorded.runs, bytes: recorded.bytes)
        metrics.events.note(.traceRecorded, request.reference, "\(recorded.chunks) of \(chunks) chunks")
        return TraceReply(
            reference: request.reference, manifestDigest: manifest.digest,
            trace: String(decoding: trace.encoded(), as: UTF8.self), chunks: UInt64(recorded.chunks),
            bytes: recorded.bytes, imageChunks: chunks, residentBefore: resident, isFull: recorded.isFull,
            seconds: Self.seconds(since: start))
    }
}
