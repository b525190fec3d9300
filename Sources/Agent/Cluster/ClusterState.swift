import Catalogue
import ChunkModel
import ChunkResolution
import ContentIndex
import Membership

/// Everything about peers that is decided under one lock: the four state machines and what they share.
struct ClusterState {
    var membership: Membership
    var index = ContentIndex()
    var selector: PeerSelector
    var desk = UploadDesk()
    var swarms: [BlobKey: Swarm] = [:]
    /// By the name on the wire; images with the same blob and policy share one.
    var byID: [WireID: BlobKey] = [:]
    var waiting = Waiting()
    /// Images that are shared, or are about to be, by manifest.
    var images: [Digest: SharedImage] = [:]
    /// Ordinary images that went through the mirror and are shared, by their names on the wire.
    var wholes: [WireID: WholeImage] = [:]
    /// Bytes given to and had from each peer since the start.
    var given: [NodeName: UInt64] = [:]
    var isLeaving = false
    var ownVersion: UInt64 = 0

    /// Takes what the membership says of others into the index; returns what is left for the shell to do.
    mutating func take(_ event: Membership.Event, now: Duration) -> [Membership.Directive] {
        membership.handle(event, now: now).filter { directive in
            switch directive {
            case .changed(let member):
                if member.record.name != selector.own { noteMember(member, now) }
                return true
            case .forgotten(let name): index.forget(name, now: now)
            case .content(let item): note(item, now)
            case .contentVoid(let name): index.void(name)
            case .send, .sign, .conflict, .departed: return true
            }
            return false
        }
    }

    private mutating func noteMember(_ member: Member, _ now: Duration) {
        switch member.state {
        case .alive, .suspect: index.setMember(member.record.name, zone: member.record.zone, now: now)
        case .dead, .left: index.forget(member.record.name, now: now)
        }
    }

    private mutating func note(_ item: ContentItem, _ now: Duration) {
        let version = UInt64(item.version.counter)
        if item.isGone {
            _ = index.apply(item.node, item.blob, version: version, ContentRecord(.gone), now: now)
        } else {
            // What is malformed or too much is left out: advice.
            _ = index.apply(item.node, item.blob, version: version, payload: item.payload, now: now)
        }
    }

    /// What is here, for the own view: gossip brings only what others say.
    mutating func noteOwn(_ blob: WireID, _ record: ContentRecord, now: Duration) {
        ownVersion += 1
        _ = index.apply(selector.own, blob, version: ownVersion, record, now: now)
    }

    /// Puts a change of our own into gossip.
    mutating func publish(_ key: BlobKey, now: Duration) -> [Membership.Directive] {
        guard let swarm = swarms[key] else { return [] }
        swarms[key]?.announced = swarm.residentCount
        return take(.publish(blob: swarm.id, isGone: false, payload: swarm.record.payload), now: now)
    }
}
