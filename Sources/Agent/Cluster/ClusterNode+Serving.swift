import Catalogue
import ChunkModel
import ChunkResolution
import ContentIndex
import ControlAPI
import LinuxSystem
import Logging
import PeerExchange
import PeerTransport
import Synchronization
import Telemetry

/// What others ask of this node: chunks.
extension ClusterNode: ChunkSupplier, ComplaintHandler {
    func chunks(_ request: ChunkRequest, for peer: NodeName) async -> ChunkAnswer {
        let deadline = now + min(request.wait, PeerProtocol.maxWait)
        var hasAsked = false
        var isFollowed = false
        while true {
            let time = now
            let look = state.withLock {
                $0.look(request, peer, hasAsked: hasAsked, mayWait: time < deadline, now: time)
            }
            switch look {
            case .answer(let answer): return answer
            case .serve(let ticket, let bytes, let residency):
                return .found([bytes], residency: residency) { [weak self] in self?.endUpload(ticket, isSent: $0) }
            case .get(let key, let chunks):
                (hasAsked, isFollowed) = (true, true)
                parts.pipeline.post(.relay(key, chunks, request.trace))
            case .wait(let key):
                if let trace = request.trace, !isFollowed { parts.pipeline.post(.follow(key, request.at, trace)) }
                isFollowed = true
                let hasWaited = await wait(for: .chunk(key, request.at), until: deadline) { state in
                    state.swarms[key]?.isResident(request.at) == false
                }
                if !hasWaited { return .busy(retryAfter: Self.crowded, holders: []) }
                if Task.isCancelled { return .absent(nil) }
            }
        }
    }

    func residency(
        blob: WireID, proof: WireID, for peer: NodeName
    ) async -> (residency: PeerResidency, chunkCount: Int)? {
        state.withLock { state in
            guard let key = state.byID[blob], let swarm = state.swarms[key], swarm.chunkID(0) == proof,
                let residency = PeerResidency(first: 0, bits: swarm.residency)
            else { return nil }
            return (residency, swarm.count)
        }
    }

    /// One answer is over.
    func noteServed(_ served: PeerServed) {
        parts.metrics.cluster.served[served.kind.rawValue, served.outcome.rawValue].increment()
        record(served)
        guard served.kind == .chunks, [.sent, .lost, .unreadable].contains(served.outcome) else { return }
        parts.metrics.cluster.servedBytes.increment(by: served.bytes)
        state.withLock { $0.given[served.peer, default: 0] += served.bytes }
    }

    /// What a trace is told of an answer.
    private func record(_ served: PeerServed) {
        if served.isTraceIgnored { parts.metrics.cluster.ignoredTraces.increment() }
        guard let request = served.request, let own = request.trace, let parent = served.parent else { return }
        let end = SpanRecorder.now
        let (key, manifest) = state.withLock { state -> (BlobKey?, Digest?) in
            let key = state.byID[request.blob]
            return (key, state.images.filter { $0.value.blobs.contains(request.blob) }.keys.min())
        }
        let span = Span(
            id: own.span, parent: parent,
            step: .serve(
                Span.Subject(blob: key?.blob, manifest: manifest, chunk: request.at), peer: served.peer,
                rank: request.rank.rawValue, count: request.count),
            begin: end - served.elapsed, end: end, bytes: served.bytes, result: served.outcome.rawValue,
            isError: [.lost, .unreadable].contains(served.outcome))
        parts.metrics.spansDropped.increment(
            by: parts.spans.add([SpanTracker.Ended(trace: own.trace, spans: [span])]))
    }

    private func endUpload(_ ticket: UInt64, isSent: Bool) {
        let time = now
        state.withLock { state in
            if isSent { state.desk.noteSent(ticket, now: time) }
            state.desk.finish(ticket)
        }
    }

    // MARK: - Complaints

    /// A peer says that we sent wrong bytes: the chunk is hashed on disk, and fetched again when it is damaged.
    func complaint(_ complaint: PeerComplaint, from peer: NodeName) async {
        parts.metrics.cluster.complaints.increment()
        let key = state.withLock { state -> BlobKey? in
            guard let key = state.byID[complaint.blob], state.swarms[key]?.chunkID(complaint.at) == complaint.chunk,
                state.swarms[key]?.isResident(complaint.at) == true
            else { return nil }
            return key
        }
        guard let key, let handle = await parts.pipeline.handle(of: key),
            let checked = try? await parts.gate.verify(handle, first: complaint.at, count: 1)
        else { return }
        let isDamaged = checked.bad.contains(complaint.at)
        parts.metrics.events.note(
            .complaint, "\(peer)",
            "chunk \(complaint.at) of \(key.blob) is " + (isDamaged ? "damaged on this disk" : "good here"))
        parts.logger.warning(
            isDamaged
                ? "a peer was right: a chunk on disk is damaged" : "a peer complained of a chunk that is good here",
            metadata: ["peer": "\(peer)", "blob": "\(key.blob)", "chunk": "\(complaint.at)"])
        guard isDamaged else { return }
        state.withLock { $0.swarms[key]?.clear(complaint.at) }
        if await parts.pipeline.repair(key, [complaint.at]).contains(complaint.at) { noteResident(key, complaint.at) }
    }
}
