internal import ChunkModel
internal import FoundationEssentials
package import Membership
internal import SwiftProtobuf

/// Frames of gossip as bytes: docs/formats/gossip.md. Stateless, safe to use from any thread.
package enum GossipCodec {
    /// Bytes of a frame at most. `Membership` fills frames to 56 KiB of items and a summary or a list of digests.
    package static let maxFrameBytes = 64 * 1024
    /// Nesting of messages: frame, item, content. A newer version may nest a little deeper.
    private static let maxDepth = 8

    /// A frame as read.
    package struct Decoded: Sendable {
        package var frame: GossipFrame
        /// Messages and items that mean nothing here: of a newer version, or with a value beyond its limit. They are
        /// passed over, since a peer may only be passing on what another said.
        package var passedOver: Int
    }

    /// Bytes of a frame. Throws `tooLong` when it does not fit, which no frame of a `Membership` does.
    package static func encode(_ frame: GossipFrame) throws(PeerWireError) -> [UInt8] {
        var wire = WireFrame()
        wire.messages = frame.messages.map(Self.wire)
        wire.items = frame.items.map(Self.wire)
        let bytes: [UInt8]
        do { bytes = try wire.serializedBytes() } catch {
            throw PeerWireError(.malformed, "gossip frame cannot be written", cause: error)
        }
        guard bytes.count <= maxFrameBytes else {
            throw PeerWireError(.tooLong, "gossip frame of \(bytes.count) bytes, limit \(maxFrameBytes)")
        }
        return bytes
    }

    /// Reads a frame. Never traps, whatever the bytes; what it returns keeps the limits of `MembershipLimits`.
    package static func decode(_ bytes: [UInt8]) throws(PeerWireError) -> Decoded {
        guard bytes.count <= maxFrameBytes else {
            throw PeerWireError(.tooLong, "gossip frame of \(bytes.count) bytes, limit \(maxFrameBytes)")
        }
        var options = BinaryDecodingOptions()
        options.messageDepthLimit = maxDepth
        options.discardUnknownFields = true
        let wire: WireFrame
        do { wire = try WireFrame(serializedBytes: bytes, options: options) } catch {
            throw PeerWireError(.malformed, "gossip frame of \(bytes.count) bytes cannot be read", cause: error)
        }
        guard wire.messages.count <= MembershipLimits.maxMessagesPerFrame else {
            throw PeerWireError(
                .tooMany,
                "gossip frame has \(wire.messages.count) messages, limit \(MembershipLimits.maxMessagesPerFrame)")
        }
        guard wire.items.count <= MembershipLimits.maxItemsPerFrame else {
            throw PeerWireError(
                .tooMany, "gossip frame has \(wire.items.count) items, limit \(MembershipLimits.maxItemsPerFrame)")
        }
        var decoded = Decoded(frame: GossipFrame(), passedOver: 0)
        for message in wire.messages {
            if let known = value(message) { decoded.frame.messages.append(known) } else { decoded.passedOver += 1 }
        }
        for item in wire.items {
            if let known = value(item) { decoded.frame.items.append(known) } else { decoded.passedOver += 1 }
        }
        return decoded
    }

    // MARK: - Messages

    private static func wire(_ message: GossipMessage) -> WireMessage {
        var wire = WireMessage()
        switch message {
        case .ping(let sequence): wire.ping = sequence
        case .pingRequest(let sequence, let target):
            wire.pingRequest = .with {
                $0.sequence = sequence
                $0.target = target.text
            }
        case .ack(let sequence): wire.ack = sequence
        case .nack(let sequence): wire.nack = sequence
        case .syncDigest(let root): wire.syncDigest = root
        case .syncBuckets(let digests): wire.syncBuckets = .with { $0.digests = digests }
        case .syncSummary(let buckets, let entries):
            wire.syncSummary = .with {
                $0.buckets = Data(buckets)
                $0.nameHashes = entries.map(\.nameHash)
                $0.incarnations = entries.map(\.incarnation)
                $0.contents = entries.map(\.content)
                $0.gone = entries.map(\.isGone)
            }
        case .syncReply(let wants, let isPartial):
            wire.syncReply = .with {
                $0.wants = wants
                $0.partial = isPartial
            }
        }
        return wire
    }

    private static func value(_ wire: WireMessage) -> GossipMessage? {
        switch wire.kind {
        case .ping(let sequence): return .ping(sequence: sequence)
        case .pingRequest(let request):
            return NodeName(request.target).map { .pingRequest(sequence: request.sequence, target: $0) }
        case .ack(let sequence): return .ack(sequence: sequence)
        case .nack(let sequence): return .nack(sequence: sequence)
        case .syncDigest(let root): return .syncDigest(root: root)
        case .syncBuckets(let buckets):
            guard buckets.digests.count == MembershipLimits.bucketCount else { return nil }
            return .syncBuckets(buckets.digests)
        case .syncSummary(let summary): return value(summary)
        case .syncReply(let reply):
            guard reply.wants.count <= MembershipLimits.maxSummaryEntries else { return nil }
            return .syncReply(wants: reply.wants, isPartial: reply.partial)
        case nil: return nil
        }
    }

    private static func value(_ summary: WireSyncSummary) -> GossipMessage? {
        let count = summary.nameHashes.count
        guard count <= MembershipLimits.maxSummaryEntries, summary.incarnations.count == count,
            summary.contents.count == count, summary.gone.count == count,
            summary.buckets.count <= MembershipLimits.bucketCount
        else { return nil }
        let entries = (0..<count).map { at in
            SummaryEntry(
                nameHash: summary.nameHashes[at], incarnation: summary.incarnations[at],
                content: summary.contents[at], isGone: summary.gone[at])
        }
        return .syncSummary(buckets: Array(summary.buckets), entries: entries)
    }

    // MARK: - Items

    private static func wire(_ item: GossipItem) -> WireItem {
        var wire = WireItem()
        switch item {
        case .record(let record):
            wire.record = Data(record.proof.isEmpty ? SignedRecord(unsigned: record).bytes : record.proof)
        case .announcement(let nameHash, let incarnation):
            wire.announcement = .with {
                $0.nameHash = nameHash
                $0.incarnation = incarnation
            }
        case .suspect(let name, let incarnation, let accuser):
            wire.suspect = accusation(name, incarnation, accuser)
        case .dead(let name, let incarnation, let accuser): wire.dead = accusation(name, incarnation, accuser)
        case .content(let item):
            wire.content = .with {
                $0.node = item.node.text
                $0.blob = Data(item.blob.rawBytes)
                $0.boot = item.version.boot
                $0.counter = item.version.counter
                $0.gone = item.isGone
                $0.payload = Data(item.payload)
            }
        }
        return wire
    }

    private static func accusation(_ name: NodeName, _ incarnation: UInt64, _ accuser: NodeName) -> WireAccusation {
        .with {
            $0.name = name.text
            $0.incarnation = incarnation
            $0.accuser = accuser.text
        }
    }

    private static func value(_ wire: WireItem) -> GossipItem? {
        switch wire.kind {
        case .record(let bytes): return SignedRecord(bytes: Array(bytes))?.record.map { .record($0) }
        case .announcement(let wire):
            return .announcement(nameHash: wire.nameHash, incarnation: wire.incarnation)
        case .suspect(let wire):
            guard let name = NodeName(wire.name), let accuser = NodeName(wire.accuser) else { return nil }
            return .suspect(name, incarnation: wire.incarnation, accuser: accuser)
        case .dead(let wire):
            guard let name = NodeName(wire.name), let accuser = NodeName(wire.accuser) else { return nil }
            return .dead(name, incarnation: wire.incarnation, accuser: accuser)
        case .content(let wire):
            guard let node = NodeName(wire.node), let blob = WireID(rawBytes: wire.blob) else { return nil }
            return ContentItem(
                node: node, blob: blob, version: ContentVersion(boot: wire.boot, counter: wire.counter),
                isGone: wire.gone, payload: Array(wire.payload)
            ).map { .content($0) }
        case nil: return nil
        }
    }
}
