import ChunkModel
import ChunkResolution
import ContentIndex
import ControlAPI
import Membership
import PeerTransport
import Settings
import Synchronization

/// What people are told of peers.
extension ClusterNode {
    func peers() -> PeersReply {
        let time = now
        let summaries = state.withLock { state in
            state.membership.members.map { summary($0, state, time) }
        }
        return PeersReply(
            enabled: true, node: own.text, trustDomain: parts.settings.trustDomain,
            certificateExpires: store.current?.notAfter, peers: summaries)
    }

    /// The content index: blobs in it, and bytes of memory.
    var indexSize: (blobs: UInt64, bytes: UInt64) {
        state.withLock { (UInt64($0.index.blobCount), UInt64($0.index.byteCount)) }
    }

    private func summary(_ member: Member, _ state: borrowing ClusterState, _ time: Duration) -> PeerSummary {
        let name = member.record.name
        var summary = PeerSummary(
            name: name.text, state: name == own ? "self" : "\(member.state)", zone: member.record.zone,
            address: member.record.address, version: member.record.version)
        summary.roundTripSeconds = member.roundTrip.map { $0 / .seconds(1) }
        summary.sentBytes = state.given[name] ?? 0
        summary.identity = "spiffe://\(parts.settings.trustDomain)/chunkd/node/\(name)"
        if let status = state.selector.status(of: name, now: time) {
            summary.receivedBytes = status.bytesServed
            summary.requests = status.requests
            summary.failures = status.failed
            summary.throughputBytesPerSecond = status.throughput
            summary.score = status.score
            summary.backOffSeconds = status.backOff.map { $0 / .seconds(1) }
            summary.quarantine = status.quarantineReason
            summary.quarantineSeconds = status.quarantine.map { $0 / .seconds(1) }
        }
        let records =
            name == own ? state.swarms.values.map(\.record) : state.index.records(of: name).map(\.record)
        for record in records {
            switch record.state {
            case .complete: summary.completeBlobs += 1
            case .partial: summary.partialBlobs += 1
            case .registered: summary.registeredBlobs += 1
            case .gone: break
            }
        }
        return summary
    }
}
