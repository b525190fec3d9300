import Catalogue
import ChunkModel
import ChunkResolution
import ContentIndex
import ControlAPI
import Membership
import Synchronization

/// Where chunks would come from, for people who ask.
extension ClusterNode {
    /// Nodes named in an answer.
    static let maxExplained = 64

    /// Adds what peers are about to a blob: who has it, and who would be asked for its chunk. Nothing when the blob is not
    /// shared. `registry` is said last.
    func explain(_ key: BlobKey, chunk: Int?, registry: ExplainedSource, _ reply: inout ExplainedBlob) {
        let time = now
        state.withLock { state in
            guard let swarm = state.swarms[key], swarm.count > 0 else { return }
            let absent = (0..<swarm.count).first { !swarm.isResident($0) }
            let chunk = min(chunk ?? absent ?? 0, swarm.count - 1)
            let segment = swarm.layout.segment(of: chunk)
            let standings = state.index.standings(of: swarm.id).filter { $0.name != own }
            reply.residentChunks = UInt64(swarm.residentCount)
            reply.sharing = swarm.key == nil ? "public" : "manifest"
            reply.wireID = swarm.id.hex
            reply.trackers = state.index.trackers(of: swarm.id).map(\.text)
            reply.interestedNodes = UInt64(standings.count)
            reply.chunk = UInt64(chunk)
            reply.chunkDigest = swarm.layout.index[chunk].digest
            reply.chunkBytes = UInt64(swarm.layout.index[chunk].size)
            reply.segment = segment
            reply.holders = standings.prefix(Self.maxExplained).map { name, record in
                ExplainedHolder(
                    node: name.text, zone: state.membership.member(name)?.record.zone ?? "", state: "\(record.state)",
                    likelihood: record.probability(ofChunk: chunk, of: swarm.count),
                    passedOver: Self.passedOver(name, state, time))
            }
            if swarm.isResident(chunk) {
                reply.sources.append(ExplainedSource("disk", why: "it is resident: a reader is not held up"))
            }
            // A copy: looking must not change what is decided.
            var selector = state.selector
            let plan = selector.plan(
                [(chunk, .demand)], of: swarm.id, layout: swarm.layout, index: state.index, now: time)
            reply.sources += (plan.first?.sources ?? []).map { Self.why($0, segment, standings, state) }
            reply.sources.append(registry)
            reply.sources += (plan.first?.lastResort ?? []).map { Self.why($0, segment, standings, state) }
        }
    }

    private static func passedOver(_ name: NodeName, _ state: borrowing ClusterState, _ now: Duration) -> String? {
        guard let status = state.selector.status(of: name, now: now) else { return nil }
        if let reason = status.quarantineReason { return "quarantined: \(reason)" }
        return status.backOff.map { "\(status.failed) failures, for \(Int($0 / .seconds(1)) + 1) s" }
    }

    private static func why(
        _ source: FetchSource, _ segment: UInt64, _ standings: [(name: NodeName, record: ContentRecord)],
        _ state: borrowing ClusterState
    ) -> ExplainedSource {
        guard case .peer(let name, let fetch) = source else { return ExplainedSource("\(source)", why: "") }
        if fetch {
            return ExplainedSource(
                name.text, why: "next above this node in the tree of segment \(segment): gets it for those below")
        }
        let zone = state.index.isSameZone(name, state.selector.own) ? ", same zone" : ""
        let says = standings.first { $0.name == name }.map { "\($0.record.state)" } ?? "named by another"
        return ExplainedSource(name.text, why: "has it (\(says)\(zone))")
    }
}
