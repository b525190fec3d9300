import ChunkModel
import OCISpec

let traceFuzzTargets: [FuzzTarget] = [FuzzTarget(name: "access-trace", run: fuzzAccessTrace)]

@Sendable private func fuzzAccessTrace(_ bytes: [UInt8]) {
    guard let trace = try? AccessTrace(decoding: bytes) else { return }
    require((1...AccessTrace.maxRuns).contains(trace.runs.count), "\(trace.runs.count) runs")
    require(trace.blobs.count <= Limits.maxBlobsPerImage, "\(trace.blobs.count) blobs")
    for run in trace.runs {
        require(trace.blobs.indices.contains(run.blob), "a run of blob \(run.blob)")
        require(!run.chunks.isEmpty, "a run of no chunk")
        require(run.chunks.upperBound <= trace.blobs[run.blob].chunks, "a chunk that is not there")
    }
    require(trace.chunkCount <= trace.imageChunkCount, "more chunks than the image has")
    let again = trace.encoded()
    require(again.count <= AccessTrace.maxBytes, "\(again.count) bytes written")
    require((try? AccessTrace(decoding: again)) == trace, "writing and reading changes the trace")
    do { try trace.check(image: trace.image, blobs: trace.blobs) } catch { fatalError("does not fit its own image") }
}
