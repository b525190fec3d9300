import Catalogue
import ChunkModel
import ChunkResolution
import OCISpec

/// Recording what readers access first.
extension FetchEngine {
    func startRecording(_ id: UInt64, _ keys: [BlobKey]) {
        let blobs = keys.map { book.id(of: $0) }
        recordings[id] = (blobs, AccessRecorder(blobs: blobs, maxRuns: AccessTrace.maxRuns))
    }

    /// Whether somebody records accesses of this blob.
    func isRecorded(_ blob: BlobID) -> Bool { recordings.values.contains { $0.recorder.covers(blob) } }

    func noteAccess(_ key: ChunkKey) {
        for id in recordings.keys { recordings[id]?.recorder.access(key) }
    }

    func recorded(_ id: UInt64) -> FetchPipeline.Recorded {
        guard let recording = recordings[id] else { return .init() }
        var out = FetchPipeline.Recorded(chunks: recording.recorder.count, isFull: recording.recorder.isFull)
        for run in recording.recorder.runs {
            guard let number = recording.blobs.firstIndex(of: run.blob) else { continue }
            out.runs.append(AccessTrace.Run(blob: number, chunks: run.chunks))
            if let layout = book[run.blob].description?.layout, run.chunks.upperBound <= layout.index.count {
                out.bytes += UInt64(layout.rawRange(of: run.chunks).count)
            }
        }
        return out
    }
}
