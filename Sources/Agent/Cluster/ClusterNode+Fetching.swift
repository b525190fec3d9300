import Catalogue
import ChunkModel
import ChunkResolution
import ContentIndex
import ControlAPI
import HTTPTransfer
import LinuxSystem
import Logging
import Membership
import PeerExchange
import PeerTransport
import Synchronization
import Telemetry

/// What this node asks of others: chunks.
extension ClusterNode: PeerFetcher {
    func plan(_ chunks: [(chunk: Int, rank: FetchRank)], of blob: BlobKey, layout: BlobLayout) -> [PeerSelector.Plan] {
        let time = now
        return state.withLock { state in
            guard let swarm = state.swarms[blob] else { return chunks.map { _ in PeerSelector.Plan() } }
            for (chunk, _) in chunks { state.swarms[blob]?.inFlight[chunk] = time }
            return state.selector.plan(chunks, of: swarm.id, layout: layout, index: state.index, now: time)
        }
    }

    func begin() -> PeerHTTP.Handle? { try? client.begin() }

    /// One request as it is sent, and what must be known to learn from its end.
    private struct Asking {
        let request: ChunkRequest
        let endpoint: PeerEndpoint
        let blob: WireID
        let segment: UInt64
        let bytes: Int
    }

    func fetch(
        _ plan: RangePlan, of blob: BlobKey, layout: BlobLayout, trace: TraceContext?, handle: PeerHTTP.Handle,
        sink: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    ) async -> RangeEnd {
        guard case .peer(let name, let isFetch) = plan.source,
            let asking = asking(plan, name, isFetch, blob, layout, trace)
        else { return .unknown }
        let begun = now
        let patience = state.withLock {
            $0.selector.noteStarted(name, bytes: asking.bytes, wait: plan.wait, now: begun)
        }
        let first = Mutex<Duration?>(nil)
        let outcome: PeerSelector.Outcome
        var end: RangeEnd
        do throws(PeerError) {
            let result = try await client.fetch(
                asking.request, from: asking.endpoint, limit: UInt64(asking.bytes), firstByte: patience,
                handle: handle,
                sink: { [self] piece in
                    first.withLock { if $0 == nil { $0 = now } }
                    return sink(piece)
                })
            (outcome, end) = learn(result, asking, begun: begun, first: first.withLock { $0 })
        } catch {
            parts.metrics.noteFetchError("peer", error.reason)
            let hasBegun = first.withLock { $0 != nil }
            outcome = Self.outcome(of: error, silence: hasBegun ? .zero : now - begun)
            end = RangeEnd(
                failure: .transient(retryAfter: nil), word: error.reason, isError: error.code != .cancelled)
        }
        let time = now
        state.withLock {
            $0.selector.noteEnded(
                name, bytes: asking.bytes, of: asking.blob, segment: asking.segment, fetch: isFetch, outcome, now: time)
        }
        return end
    }

    private func asking(
        _ plan: RangePlan, _ name: NodeName, _ isFetch: Bool, _ blob: BlobKey, _ layout: BlobLayout,
        _ trace: TraceContext?
    ) -> Asking? {
        state.withLock { state in
            guard let swarm = state.swarms[blob], let id = swarm.chunkID(plan.chunks.lowerBound),
                let member = state.membership.member(name), let address = PeerAddress(member.record.address)
            else { return nil }
            let rank: PeerRank =
                switch plan.rank {
                case .demand, .relayed: .demand
                case .readAhead, .replay: .ahead
                case .background: .background
                }
            return Asking(
                request: ChunkRequest(
                    chunk: id, blob: swarm.id, at: plan.chunks.lowerBound,
                    count: min(plan.chunks.count, PeerProtocol.maxCount), rank: rank, wait: plan.wait, fetch: isFetch,
                    trace: trace),
                endpoint: PeerEndpoint(name: name, address: address), blob: swarm.id,
                segment: layout.segment(of: plan.chunks.lowerBound),
                bytes: plan.chunks.reduce(0) { $0 + layout.index[$1].size })
        }
    }

    private func learn(
        _ result: ChunkFetchResult, _ asking: Asking, begun: Duration, first: Duration?
    ) -> (PeerSelector.Outcome, RangeEnd) {
        let time = now
        let name = asking.endpoint.name
        func note(_ residency: PeerResidency?) {
            guard let residency, let window = ResidencyWindow(first: residency.first, bits: residency.bits) else {
                return
            }
            state.withLock { $0.index.learn(name, asking.blob, window, now: time) }
        }
        switch result {
        case .delivered(let bytes, let residency):
            note(residency)
            state.withLock { state in
                if residency == nil {
                    state.index.learn(name, asking.blob, chunk: asking.request.at, isResident: true, now: time)
                }
            }
            return (.served(bytes: Int(bytes), firstByte: (first ?? time) - begun, elapsed: time - begun), RangeEnd())
        case .absent(let residency):
            note(residency)
            return (.absent, RangeEnd(failure: .transient(retryAfter: nil), word: "absent"))
        case .busy(let retryAfter, let holders):
            return (
                .busy(retryAfter: retryAfter, holders: holders),
                RangeEnd(failure: .transient(retryAfter: nil), word: "busy")
            )
        case .refused(let reason):
            parts.metrics.noteFetchError("peer", "refused_" + reason)
            return (.refused, RangeEnd(failure: .permanent, word: "refused_" + reason, isError: true))
        }
    }

    private static func outcome(of error: PeerError, silence: Duration) -> PeerSelector.Outcome {
        switch error.code {
        case .cancelled: .cancelled(silence: silence)
        case .timeout: .stalled
        default: .failed
        }
    }

    func complain(to peer: NodeName, of blob: BlobKey, chunk: Int) {
        let time = now
        let told = state.withLock { state -> (PeerComplaint, PeerEndpoint)? in
            state.selector.quarantine(peer, reason: "wrong_bytes", now: time)
            guard let swarm = state.swarms[blob], let id = swarm.chunkID(chunk),
                let member = state.membership.member(peer), let address = PeerAddress(member.record.address)
            else { return nil }
            return (PeerComplaint(chunk: id, blob: swarm.id, at: chunk), PeerEndpoint(name: peer, address: address))
        }
        parts.metrics.cluster.quarantined["wrong_bytes"].increment()
        parts.metrics.events.note(.peerQuarantined, "\(peer)", "sent wrong bytes for chunk \(chunk) of \(blob.blob)")
        guard let told else { return }
        Task { [client] in
            // Whether it hears that or not: it is asked no more.
            try? await client.complain(told.0, to: told.1)
        }
    }

    // MARK: - What is here

    func noteResident(_ blob: BlobKey, _ chunk: Int) {
        let resumed = state.withLock { state in
            state.swarms[blob]?.setResident(chunk)
            return state.waiting.take(.chunk(blob, chunk))
        }
        for waiter in resumed { waiter.resume() }
    }

    func noteFailed(_ blob: BlobKey, _ chunk: Int) {
        let resumed = state.withLock { state in
            state.swarms[blob]?.inFlight[chunk] = nil
            return state.waiting.take(.chunk(blob, chunk))
        }
        for waiter in resumed { waiter.resume() }
    }

    func attached(_ blob: BlobKey, handle: UInt32, residency: [UInt8]) {
        state.withLock { $0.swarms[blob]?.set(residency) }
        guard let connection = parts.gate.current else { return }
        Task { [self] in
            do throws(AgentError) {
                let file = try await parts.gate.blobFile(handle, on: connection)
                state.withLock { $0.swarms[blob]?.file = file }
            } catch {
                // Peers are told "busy"; the next connection to the gate tries again.
                parts.logger.warning("a blob cannot be served to peers", metadata: ["error": "\(error)"])
            }
        }
    }
}
