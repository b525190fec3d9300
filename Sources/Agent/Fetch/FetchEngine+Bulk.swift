import Catalogue
import ChunkModel
import ChunkResolution
import Telemetry

/// Replay, hydration, prefetch and repair: what nobody is blocked on.
extension FetchEngine {
    func startBulk(_ request: FetchPipeline.BulkRequest) {
        let job = BulkJob(
            id: request.id, kind: request.kind,
            spans: request.spans.map { BulkJob.Span(blob: book.id(of: $0.blob), chunks: $0.chunks) },
            notBefore: now + request.delay, progress: request.progress, completion: request.completion)
        noteTraced(job)
        jobs.append(job)
    }

    /// A trace's chunks are followed by what the trace says, not by what a sequential reader would want.
    private func noteTraced(_ job: BulkJob) {
        guard job.kind == .replay else { return }
        for span in job.spans { if let chunks = span.chunks { book[span.blob].setTraced(chunks) } }
    }

    func stopBulk(_ id: UInt64) {
        guard let number = jobs.firstIndex(where: { $0.id == id }) else { return }
        let job = jobs.remove(at: number)
        job.completion?(job.outcome)
    }

    /// Lets every job ask for more, the most urgent first, and ends those that are done.
    func runBulk() {
        guard gate != nil, !jobs.isEmpty else { return }
        for number in jobs.indices.sorted(by: { jobs[$0].kind.rawValue < jobs[$1].kind.rawValue })
        where jobs[number].notBefore <= now {
            advance(number)
        }
        for job in jobs where job.isAtEnd && job.outstanding.isEmpty {
            if job.kind != .hydration || job.isComplete(book) {
                stopBulk(job.id)
            } else if let number = jobs.firstIndex(where: { $0.id == job.id }) {
                // Something could not be had: once more, later.
                jobs[number].restart(at: now + Self.hydrationPause)
            }
        }
    }

    /// One batch: the next comes with the next turn, so that readers' misses are never behind a whole image.
    private func advance(_ number: Int) {
        let kind = jobs[number].kind
        // A recording sees only what readers ask for: nothing may be here before them.
        if kind != .prefetch, jobs[number].spans.contains(where: { isRecorded($0.blob) }) { return }
        let room = BulkJob.window - jobs[number].outstanding.count
        // Asked for in batches, so that ranges are long.
        guard !jobs[number].isAtEnd, room >= BulkJob.window / 2,
            scheduler.pendingSpeculative + room <= parts.limits.speculativeChunks
        else { return }
        var bytes = Int.max
        if kind == .hydration {
            // One image after the other, rather than a little of each.
            guard scheduler.pendingBackground < BulkJob.window else { return }
            bytes = pacer.allowance(pendingDemand: scheduler.pendingDemand + scheduler.pendingReplay, now: now)
            guard bytes > 0 else { return }
        }
        let next = jobs[number].next(book, count: room, bytes: bytes, isPending: { scheduler.isPending($0) })
        guard !next.keys.isEmpty else { return }
        switch kind {
        case .hydration:
            pacer.take(next.bytes)
            parts.metrics.hydratedBytes.increment(by: UInt64(next.bytes))
        case .replay:
            parts.metrics.traces.chunks.increment(by: UInt64(next.keys.count))
            parts.metrics.traces.bytes.increment(by: UInt64(next.bytes))
            jobs[number].outcome.asked += UInt64(next.keys.count)
        case .prefetch: break
        }
        jobs[number].outstanding.formUnion(next.keys)
        perform(.want(next.keys, kind.rank, repair: false))
        flushLocates()
    }

    func noteBulkSettled(_ key: ChunkKey, _ resident: Bool, _ source: FetchSource?) {
        guard let layout = book[key.blob].description?.layout else { return }
        for number in jobs.indices where jobs[number].outstanding.remove(key) != nil {
            if resident {
                jobs[number].outcome.filled += 1
                jobs[number].outcome.rawBytes += UInt64(layout.index[key.chunk].size)
                let chunk = key.chunk..<key.chunk + 1
                switch source {
                case .registry: jobs[number].outcome.fetchedBytes += UInt64(layout.storedRange(of: chunk).count)
                case .peer: jobs[number].outcome.fetchedBytes += UInt64(layout.rawRange(of: chunk).count)
                case .local, nil: break
                }
            } else {
                jobs[number].outcome.failed += 1
            }
            jobs[number].progress?(jobs[number].outcome)
        }
    }

    // MARK: - For other nodes

    /// Fetches what of these chunks is absent and not on its way.
    func relay(_ key: BlobKey, _ chunks: [Int], within asker: TraceContext?) {
        guard gate != nil, let id = book.existing(key), book[id].handle != nil, let description = book[id].description
        else { return }
        let count = description.layout.index.count
        let keys = chunks.filter { $0 >= 0 && $0 < count && !book[id].isResident($0) }.map { ChunkKey(id, $0) }
        if let asker { for key in keys { follow(key, within: asker) } }
        if !keys.isEmpty { perform(.want(keys, .relayed, repair: false)) }
    }

    // MARK: - Repair

    func repair(_ key: BlobKey, _ chunks: [Int], _ completion: @escaping @Sendable (Set<Int>) -> Void) {
        guard gate != nil, let id = book.existing(key), book[id].description != nil, !chunks.isEmpty else {
            return completion([])
        }
        repairs.append(Repair(blob: id, outstanding: Set(chunks), completion: completion))
        perform(.want(chunks.map { ChunkKey(id, $0) }, .background, repair: true))
        flushLocates()
    }

    func noteRepairSettled(_ key: ChunkKey, _ resident: Bool) {
        for number in repairs.indices.reversed() where repairs[number].blob == key.blob {
            guard repairs[number].outstanding.remove(key.chunk) != nil else { continue }
            if resident { repairs[number].repaired.insert(key.chunk) }
            guard repairs[number].outstanding.isEmpty else { continue }
            let done = repairs.remove(at: number)
            done.completion(done.repaired)
        }
    }
}
