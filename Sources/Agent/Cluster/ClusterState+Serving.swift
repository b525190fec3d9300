import Catalogue
import ChunkModel
import ChunkResolution
import ContentIndex
import LinuxSystem
import PeerExchange

/// What a peer's request for chunks is given.
extension ClusterState {
    enum Look {
        case answer(ChunkAnswer)
        /// Send these bytes, then say how it ended by the desk's ticket.
        case serve(ticket: UInt64, ChunkBytes, residency: PeerResidency?)
        /// On its way, or now asked for.
        case wait(BlobKey)
        case get(BlobKey, [Int])
    }

    /// Decides on a request. `hasAsked`: what it lacks was asked for on its behalf; `mayWait`: its time is not over.
    mutating func look(_ request: ChunkRequest, _ peer: NodeName, hasAsked: Bool, mayWait: Bool, now: Duration) -> Look
    {
        guard !isLeaving else { return .answer(.refused(.leaving)) }
        // Unknown blob, number or id: all look the same to who may not know.
        guard let key = byID[request.blob], let swarm = swarms[key], let id = swarm.chunkID(request.at),
            id == request.chunk
        else { return .answer(.absent(nil)) }
        if swarm.isResident(request.at) {
            // The gate's descriptor comes a moment after the connection to it; nothing here says when.
            guard let file = swarm.file else { return .answer(.busy(retryAfter: .zero, holders: [])) }
            return serve(request, peer, swarm, file, now)
        }
        let isInFlight = swarm.isInFlight(request.at, now)
        let segment = swarm.layout.segment(of: request.at)
        if request.fetch, mayWait, !hasAsked, !isInFlight,
            ContentIndex.mayAsk(peer, selector.own, request.blob, segment: segment)
        {
            let end = min(request.at + request.count, swarm.count)
            return .get(key, (request.at..<end).filter { !swarm.isResident($0) })
        }
        if mayWait, hasAsked || isInFlight { return .wait(key) }
        // Still at it: who heard "absent" would pass this node over and ask the registry once more.
        if request.fetch, isInFlight { return .answer(.busy(retryAfter: .zero, holders: [])) }
        return .answer(.absent(swarm.window(around: request.at)))
    }

    private mutating func serve(
        _ request: ChunkRequest, _ peer: NodeName, _ swarm: Swarm, _ file: File, _ now: Duration
    ) -> Look {
        let rank: FetchRank =
            switch request.rank {
            case .demand: .demand
            case .ahead: .readAhead
            case .background: .background
            }
        let segment = swarm.layout.segment(of: request.at)
        switch desk.ask(peer, request.blob, segment: segment, rank: rank, now: now) {
        case .busy(let retryAfter, let holders): return .answer(.busy(retryAfter: retryAfter, holders: holders))
        case .serve(let ticket):
            let bytes = swarm.layout.rawRange(of: swarm.run(from: request.at, limit: request.count))
            return .serve(
                ticket: ticket, ChunkBytes(file: file, range: bytes), residency: swarm.window(around: request.at))
        }
    }
}
