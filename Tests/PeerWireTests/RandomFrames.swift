import ChunkModel
import Membership
import PeerWire
import Testing

/// Frames of every kind of content, from a seed.
struct RandomFrames {
    var random: SplitMix64

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    mutating func name() throws -> NodeName {
        let count = Int.random(in: 1...NodeName.maxByteCount, using: &random)
        let text = (0..<count).map { _ in "abcdefghijklmnopqrstuvwxyz0123456789".randomElement(using: &random) ?? "a" }
        return try #require(NodeName(String(text)))
    }

    /// Small numbers, large ones, and the largest.
    mutating func number() -> UInt64 {
        switch Int.random(in: 0...2, using: &random) {
        case 0: UInt64.random(in: 0...300, using: &random)
        case 1: random.next()
        default: UInt64.max
        }
    }

    mutating func bytes(_ range: ClosedRange<Int>) -> [UInt8] {
        (0..<Int.random(in: range, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    /// A record as its owner would sign it; without a proof one time in four.
    mutating func record() throws -> NodeRecord {
        let incarnation = number() % MembershipLimits.maxIncarnation
        let record = try #require(
            NodeRecord(
                name: try name(), boot: incarnation / 2, incarnation: incarnation,
                address: String(repeating: "1", count: Int.random(in: 0...64, using: &random)),
                zone: String(repeating: "z", count: Int.random(in: 0...63, using: &random)),
                version: String(repeating: "v", count: Int.random(in: 0...32, using: &random)),
                hasLeft: Bool.random(using: &random)))
        let proof = SignedRecord(
            body: SignedRecord.body(of: record),
            signature: Int.random(in: 0...3, using: &random) == 0 ? [] : bytes(70...72), certificate: bytes(0...900))
        return try #require(record.signed(proof: proof.bytes))
    }

    mutating func item() throws -> GossipItem {
        switch Int.random(in: 0...4, using: &random) {
        case 0: return .record(try record())
        case 3: return .announcement(nameHash: number(), incarnation: number())
        case 1: return .suspect(try name(), incarnation: number(), accuser: try name())
        case 2: return .dead(try name(), incarnation: number(), accuser: try name())
        default:
            let blob = try #require(WireID(rawBytes: bytes(32...32)))
            let version = ContentVersion(boot: number(), counter: UInt32(truncatingIfNeeded: number()))
            return .content(
                try #require(
                    ContentItem(
                        node: try name(), blob: blob, version: version, isGone: Bool.random(using: &random),
                        payload: bytes(0...MembershipLimits.maxContentPayload))))
        }
    }

    mutating func message() throws -> GossipMessage {
        let sequence = UInt32(truncatingIfNeeded: number())
        switch Int.random(in: 0...7, using: &random) {
        case 0: return .ping(sequence: sequence)
        case 1: return .pingRequest(sequence: sequence, target: try name())
        case 2: return .ack(sequence: sequence)
        case 3: return .nack(sequence: sequence)
        case 4: return .syncDigest(root: number())
        case 5: return .syncBuckets((0..<MembershipLimits.bucketCount).map { _ in number() })
        case 6:
            let entries = (0..<Int.random(in: 0...50, using: &random)).map { _ in
                SummaryEntry(
                    nameHash: number(), incarnation: number(), content: number(),
                    isGone: Bool.random(using: &random))
            }
            return .syncSummary(buckets: bytes(0...256), entries: entries)
        default:
            let wants = (0..<Int.random(in: 0...50, using: &random)).map { _ in number() }
            return .syncReply(wants: wants, isPartial: Bool.random(using: &random))
        }
    }

    mutating func frame() throws -> GossipFrame {
        GossipFrame(
            messages: try (0..<Int.random(in: 0...5, using: &random)).map { _ in try message() },
            items: try (0..<Int.random(in: 0...10, using: &random)).map { _ in try item() })
    }
}
