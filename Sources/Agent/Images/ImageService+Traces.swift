import ChunkModel
import ControlAPI
import HTTPTransfer
import Logging
import OCISpec
import RegistryClient
import Telemetry

/// Replaying access traces: docs/formats/trace.md. Always in the background: a mount waits for nothing of it, and a trace
/// that cannot be had costs its chunks' head start, nothing else.
extension ImageService {
    /// How long a trace may be looked for and fetched.
    private static let traceLookupLimit = Duration.seconds(10)

    /// Looks for the trace of an image that is about to be mounted; nil when none is wanted.
    func lookForTrace(_ manifest: ImageManifest) -> Task<AccessTrace?, any Error>? {
        guard parts.replaysTraces, !manifest.keys.isEmpty else { return nil }
        if let known = states[manifest.digest]?.info {
            // Replayed when it was mounted, or not: its readers have begun. And what is complete needs nothing.
            if known.mounted || known.blobs.allSatisfy({ $0.residentCount == $0.chunkCount }) { return nil }
        }
        let registry = parts.loader.registry
        return Task {
            try await Self.within(Self.traceLookupLimit) {
                // The lists are asked for once: the image can do without.
                try await registry.trace(
                    of: manifest.digest, blobs: try manifest.image.traceBlobs(), in: manifest.reference, attempts: 1,
                    priority: .prefetch)?.trace
            }
        }
    }

    /// Fetches what the trace names, once it is here.
    func replay(_ lookup: Task<AccessTrace?, any Error>, _ manifest: ImageManifest) {
        stopReplay(manifest.digest)
        replays[manifest.digest] = Task {
            let outcome = await runReplay(lookup, manifest)
            parts.metrics.traces.replays[outcome.rawValue].increment()
            // Who cancelled it has taken it out, and there may be another one.
            if !Task.isCancelled { replays[manifest.digest] = nil }
        }
    }

    func stopReplay(_ digest: Digest) { replays.removeValue(forKey: digest)?.cancel() }

    private func runReplay(
        _ lookup: Task<AccessTrace?, any Error>, _ manifest: ImageManifest
    ) async -> TraceMetrics.Outcome {
        let image = "\(manifest.reference)"
        do {
            let found = try await withTaskCancellationHandler {
                try await lookup.value
            } onCancel: {
                lookup.cancel()
            }
            guard let trace = found else {
                parts.logger.debug("the image has no access trace", metadata: ["image": "\(image)"])
                return .absent
            }
            let keys = manifest.keys
            let outcome = await parts.pipeline.replay(trace.runs.map { .init(keys[$0.blob], $0.chunks) })
            if Task.isCancelled { return .stopped }
            parts.metrics.events.note(
                .traceReplayed, image, "\(outcome.asked) of \(trace.chunkCount) chunks were not here and asked for")
            parts.logger.info(
                "access trace replayed",
                metadata: [
                    "image": "\(image)", "chunks": "\(trace.chunkCount)", "asked": "\(outcome.asked)",
                    "failed": "\(outcome.failed)",
                ])
            return .replayed
        } catch {
            if Task.isCancelled { return .stopped }
            let reason =
                (error as? RegistryError)?.reason ?? (error is CancellationError ? "deadline" : "invalid_document")
            parts.metrics.traces.errors[reason].increment()
            parts.logger.info(
                "no access trace is replayed",
                metadata: ["image": "\(image)", "reason": "\(reason)", "error": "\(error)"])
            return .failed
        }
    }
}
