package import ChunkModel

/// What is sent between two nodes at once. The sender's name is not in it: the connection's certificate says it.
package struct GossipFrame: Equatable, Sendable {
    package var messages: [GossipMessage]
    /// News, about anybody.
    package var items: [GossipItem]

    package init(messages: [GossipMessage] = [], items: [GossipItem] = []) {
        self.messages = messages
        self.items = items
    }
}

/// The part of a frame that is meant for its receiver alone.
package enum GossipMessage: Equatable, Sendable {
    /// Are you there? (SWIM section 3.1)
    case ping(sequence: UInt32)
    /// Ask that member for me: it does not answer me.
    case pingRequest(sequence: UInt32, target: NodeName)
    /// I am, or whom you asked me to ask is.
    case ack(sequence: UInt32)
    /// I am, but whom you asked me to ask does not answer (Lifeguard, section III.B).
    case nack(sequence: UInt32)
    /// Anti-entropy, step 1: the digest of all I know. No answer means: the same here.
    case syncDigest(root: UInt64)
    /// Step 2: mine is another; these are my buckets' digests.
    case syncBuckets([UInt64])
    /// Step 3: in these buckets, which differ, I know this.
    case syncSummary(buckets: [UInt8], entries: [SummaryEntry])
    /// Step 4 and 5: the items of this frame are what you lack; I want these members (by hash of the name). `isPartial`:
    /// there is more.
    case syncReply(wants: [UInt64], isPartial: Bool)
}

extension GossipMessage {
    /// At least as many bytes as the message takes in an encoded frame; `PeerWire` has a test that says so.
    package var byteBound: Int {
        switch self {
        case .ping, .ack, .nack, .syncDigest: 16
        case .pingRequest(_, let target): target.text.utf8.count + 16
        case .syncBuckets(let digests): digests.count * 8 + 16
        case .syncSummary(let buckets, let entries): buckets.count + entries.count * 29 + 32
        case .syncReply(let wants, _): wants.count * 8 + 16
        }
    }
}

/// One member in an anti-entropy summary.
package struct SummaryEntry: Equatable, Sendable {
    package let nameHash: UInt64
    package let incarnation: UInt64
    /// The sum of the hashes of its content items.
    package let content: UInt64
    /// It is dead or has left, for the sender.
    package let isGone: Bool

    package init(nameHash: UInt64, incarnation: UInt64, content: UInt64, isGone: Bool) {
        self.nameHash = nameHash
        self.incarnation = incarnation
        self.content = content
        self.isGone = isGone
    }
}

/// A piece of news.
package enum GossipItem: Equatable, Sendable {
    /// A record signed by its owner: it lives, or (`hasLeft`) it said goodbye.
    case record(NodeRecord)
    /// There is a record of this incarnation of the member whose name has this hash; it is sent to whoever wants it.
    case announcement(nameHash: UInt64, incarnation: UInt64)
    /// `accuser` had no answer from this incarnation of it. Not signed: advice.
    case suspect(NodeName, incarnation: UInt64, accuser: NodeName)
    /// Nobody refuted that in time. Not signed: advice.
    case dead(NodeName, incarnation: UInt64, accuser: NodeName)
    case content(ContentItem)

    /// At least as many bytes as the item takes in an encoded frame; `PeerWire` has a test that says so.
    package var byteBound: Int {
        switch self {
        case .record(let record):
            // The proof has all the fields; without one they are written (seven tags with lengths or varints).
            record.proof.isEmpty
                ? record.name.text.utf8.count + record.address.utf8.count + record.zone.utf8.count
                    + record.version.utf8.count + 64
                : record.proof.count + 8
        case .announcement: 24
        case .suspect(let name, _, let accuser), .dead(let name, _, let accuser):
            name.text.utf8.count + accuser.text.utf8.count + 24
        case .content(let item): item.node.text.utf8.count + WireID.byteCount + item.payload.count + 34
        }
    }
}

/// Where a frame goes. A shell that knows the name must find exactly that name in the peer's certificate.
package struct Destination: Hashable, Sendable {
    /// Nil for a seed, whose name is not known yet.
    package let name: NodeName?
    /// `ip:port`; nil when only the name is known, so that the frame can only be the answer to a request of that peer.
    package let address: String?

    package init(name: NodeName?, address: String?) {
        self.name = name
        self.address = address
    }
}
