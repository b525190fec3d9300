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
                hasAsked = true
                parts.pipeline.post(.relay(key, chunks))
            case .wait(let key):
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
        guard served.kind == .chunks, [.sent, .lost, .unreadable].contains(served.outcome) else { return }
        parts.metrics.cluster.servedBytes.increment(by: served.bytes)
        state.withLock { $0.given[served.peer, default: 0] += served.bytes }
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
