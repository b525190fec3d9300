import ChunkModel
import Membership
import PeerWire
import Testing

@Suite struct GossipCodecTests {
    private static func node(_ text: String) throws -> NodeName { try #require(NodeName(text)) }

    private static func hex(_ bytes: [UInt8]) -> String {
        bytes.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }

    private static func bytes(_ hex: String) -> [UInt8] {
        var out: [UInt8] = []
        var rest = hex.filter { !$0.isWhitespace }[...]
        while let byte = UInt8(rest.prefix(2), radix: 16), rest.count >= 2 {
            out.append(byte)
            rest = rest.dropFirst(2)
        }
        return out
    }

    @Test(arguments: 0..<200) func aFrameComesBackAsItWas(_ run: Int) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var frames = RandomFrames(seed: seed)
        let frame = try frames.frame()
        let decoded = try GossipCodec.decode(try GossipCodec.encode(frame))
        #expect(decoded.frame == frame)
        #expect(decoded.passedOver == 0)
    }

    /// `Membership` fills its frames by this bound.
    @Test func noItemIsLongerThanItsBound() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var frames = RandomFrames(seed: seed)
        for _ in 0..<2_000 {
            let item = try frames.item()
            let size = try GossipCodec.encode(GossipFrame(items: [item])).count
            #expect(size <= item.byteBound, "\(item)")
            // Nor is the bound so far away that frames go half empty.
            #expect(item.byteBound <= size + 40, "\(item)")
        }
    }

    @Test func theLargestMessagesFitBesideAFullLoadOfItems() throws {
        let entry = SummaryEntry(
            nameHash: .max, incarnation: MembershipLimits.maxIncarnation - 1, content: .max, isGone: true)
        let summary = GossipMessage.syncSummary(
            buckets: (0...255).map { UInt8($0) },
            entries: [SummaryEntry](repeating: entry, count: MembershipLimits.maxSummaryEntries))
        let size = try GossipCodec.encode(GossipFrame(messages: [summary])).count
        #expect(size <= summary.byteBound)
        // A summary travels with piggybacked news only.
        #expect(size + MembershipConfiguration().piggybackBytes <= GossipCodec.maxFrameBytes)
        let wants = GossipMessage.syncReply(
            wants: [UInt64](repeating: .max, count: MembershipLimits.maxWants), isPartial: true)
        let reply = try GossipCodec.encode(GossipFrame(messages: [wants])).count
        #expect(reply + MembershipLimits.maxItemBytesPerFrame <= GossipCodec.maxFrameBytes)
    }

    @Test func noMessageIsLongerThanItsBound() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var frames = RandomFrames(seed: seed)
        for _ in 0..<500 {
            let message = try frames.message()
            // Incarnations are checked in records, not in summaries: what is built here has none above the limit.
            if case .syncSummary(_, let entries) = message,
                entries.contains(where: { $0.incarnation >= MembershipLimits.maxIncarnation })
            {
                continue
            }
            let size = try GossipCodec.encode(GossipFrame(messages: [message])).count
            #expect(size <= message.byteBound, "\(message)")
        }
    }

    // Golden bytes, field by field: what version 1 says on the wire.

    @Test func aPingIsSevenBytes() throws {
        let frame = GossipFrame(messages: [.ping(sequence: 0x0102_0304)])
        #expect(
            Self.hex(try GossipCodec.encode(frame))
                == "0a05"  // field 1, message of 5 bytes
                + "0d04030201")  // field 1, fixed32, little endian
    }

    @Test func anAccusation() throws {
        let frame = GossipFrame(items: [
            .suspect(try Self.node("ab"), incarnation: 300, accuser: try Self.node("c"))
        ])
        #expect(
            Self.hex(try GossipCodec.encode(frame))
                == "120c"  // field 2, item of 12 bytes
                + "120a"  // field 2 (suspect), 10 bytes
                + "0a026162"  // field 1, "ab"
                + "10ac02"  // field 2, varint 300
                + "1a0163")  // field 3, "c"
    }

    @Test func aContentItem() throws {
        let blob = try #require(WireID(rawBytes: [UInt8](repeating: 0xEE, count: 32)))
        let item = try #require(
            ContentItem(
                node: try Self.node("n"), blob: blob, version: ContentVersion(boot: 5, counter: 6),
                isGone: true, payload: [9]))
        #expect(
            Self.hex(try GossipCodec.encode(GossipFrame(items: [.content(item)])))
                == "1230" + "222e"  // item, field 4 (content)
                + "0a016e"  // field 1, "n"
                + "1220" + String(repeating: "ee", count: 32)  // field 2
                + "1805" + "2006" + "2801"  // boot, counter, gone
                + "320109")  // field 6, payload
    }

    @Test func aRecordIsItsOwnersBytes() throws {
        let record = try #require(
            NodeRecord(
                name: try Self.node("n"), boot: 1, incarnation: 2, address: "a:1", zone: "z", version: "v",
                hasLeft: true))
        #expect(
            Self.hex(SignedRecord.body(of: record))
                == "0a016e" + "1001" + "1802" + "2203613a31" + "2a017a" + "320176" + "3801")
        let signed = SignedRecord(body: SignedRecord.body(of: record), signature: [1, 2], certificate: [3])
        #expect(Self.hex(signed.bytes).hasSuffix("12020102" + "1a0103"))
        #expect(SignedRecord(bytes: signed.bytes) == signed)
        #expect(signed.record == record.signed(proof: signed.bytes))
    }

    // Versions N and N + 1.

    @Test func whatANewerVersionAddsIsPassedOver() throws {
        // A message and an item of kinds 99, an unknown field of the frame, and a ping with an unknown field beside it.
        let newer = Self.bytes("0a03 9a0600" + "1203 9a0600" + "9a0603 616263" + "0a08 0d01000000 9a0600")
        let decoded = try GossipCodec.decode(newer)
        #expect(decoded.frame == GossipFrame(messages: [.ping(sequence: 1)]))
        #expect(decoded.passedOver == 2)
    }

    @Test func aRecordWithFieldsOfANewerVersionIsPassedOnUnchanged() throws {
        let record = try #require(
            NodeRecord(name: try Self.node("n"), boot: 1, incarnation: 2, address: "a:1"))
        let body = SignedRecord.body(of: record) + Self.bytes("9a0603616263")
        let signed = SignedRecord(body: body, signature: [7], certificate: [8])
        // Something unknown beside body, signature and certificate, too.
        let proof = signed.bytes + Self.bytes("9a0600")
        let item = try #require(record.signed(proof: proof))
        let once = try GossipCodec.encode(GossipFrame(items: [.record(item)]))
        let read = try GossipCodec.decode(once)
        #expect(try GossipCodec.encode(read.frame) == once)
        guard case .record(let again)? = read.frame.items.first else {
            Issue.record("no record")
            return
        }
        #expect(again.proof == proof)
        #expect(SignedRecord(bytes: again.proof)?.body == body)
    }

    // Limits.

    @Test func aFrameBeyondItsLimitIsRefused() throws {
        let long = [UInt8](repeating: 0, count: GossipCodec.maxFrameBytes + 1)
        let error = #expect(throws: PeerWireError.self) { try GossipCodec.decode(long) }
        #expect(error?.code == .tooLong)
        let record = try #require(
            NodeRecord(
                name: try Self.node("n"), boot: 1, incarnation: 2, address: "a:1",
                proof: [UInt8](repeating: 1, count: 4_000)))
        let frame = GossipFrame(items: [GossipItem](repeating: .record(record), count: 17))
        #expect(throws: PeerWireError.self) { try GossipCodec.encode(frame) }
    }

    @Test func tooManyMessagesOrItemsAreRefused() throws {
        let ping = Self.bytes("0a05 0d01000000")
        let messages = (0...MembershipLimits.maxMessagesPerFrame).flatMap { _ in ping }
        #expect(throws: PeerWireError.self) { try GossipCodec.decode(messages) }
        #expect(try GossipCodec.decode(Array(messages.dropLast(ping.count))).frame.messages.count == 64)
        let empty = Self.bytes("1200")
        let items = (0...MembershipLimits.maxItemsPerFrame).flatMap { _ in empty }
        let error = #expect(throws: PeerWireError.self) { try GossipCodec.decode(items) }
        #expect(error?.reason == "too_many")
    }

    @Test func valuesBeyondTheirLimitsArePassedOver() throws {
        let name = "0a02 6121"  // "a!"
        #expect(try GossipCodec.decode(Self.bytes("1206 1204" + name)).passedOver == 1)
        // A blob id of 31 bytes.
        let short = "2224" + "0a016e" + "121f" + String(repeating: "ee", count: 31)
        #expect(try GossipCodec.decode(Self.bytes("1226" + short)).passedOver == 1)
        // A record whose incarnation is before its boot, one that is empty, one that is none.
        for body in ["0a016e 1003 1802", "", "ff"] {
            let signed = SignedRecord(body: Self.bytes(body), signature: [], certificate: [])
            let item = [0x0A, UInt8(signed.bytes.count)] + signed.bytes
            let decoded = try GossipCodec.decode([0x12, UInt8(item.count)] + item)
            #expect(decoded.frame.items.isEmpty && decoded.passedOver == 1, "\(body)")
        }
        // Lists of different lengths in a summary.
        #expect(try GossipCodec.decode(Self.bytes("0a0c 3a0a 1208 0000000000000000")).passedOver == 1)
    }

    @Test func garbageIsAnErrorAndNeverATrap() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var frames = RandomFrames(seed: seed)
        var refused = 0
        for _ in 0..<3_000 {
            var bytes = try GossipCodec.encode(try frames.frame())
            for _ in 0..<Int.random(in: 1...6, using: &frames.random) where !bytes.isEmpty {
                let at = Int.random(in: 0..<bytes.count, using: &frames.random)
                switch Int.random(in: 0...2, using: &frames.random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &frames.random)
                case 1: bytes.remove(at: at)
                default: bytes.removeLast(bytes.count - at)
                }
            }
            do {
                let decoded = try GossipCodec.decode(bytes)
                // What is understood can be said again and is understood again. The proof of a record may have grown by
                // what was left out of it, so a long one may not fit any more.
                if let again = try? GossipCodec.encode(decoded.frame) {
                    #expect(try GossipCodec.decode(again).frame == decoded.frame)
                }
            } catch { refused += 1 }
        }
        #expect((1..<3_000).contains(refused))
    }
}
