import ChunkModel
import Membership
import PeerWire

let gossipFuzzTargets: [FuzzTarget] = [
    FuzzTarget(name: "gossip-frame", run: fuzzGossipFrame),
    FuzzTarget(name: "signed-record", run: fuzzSignedRecord),
]

/// A frame that is understood is handled too: the state machine must stand whatever the codec lets through.
@Sendable private func fuzzGossipFrame(_ bytes: [UInt8]) {
    guard let decoded = try? GossipCodec.decode(bytes) else { return }
    let frame = decoded.frame
    require(frame.items.count <= MembershipLimits.maxItemsPerFrame, "\(frame.items.count) items")
    require(frame.messages.count <= MembershipLimits.maxMessagesPerFrame, "\(frame.messages.count) messages")
    if let again = try? GossipCodec.encode(frame) {
        require((try? GossipCodec.decode(again))?.frame == frame, "writing and reading changes the frame")
    }
    guard let name = NodeName("own"), let peer = NodeName("peer"),
        let own = NodeRecord(name: name, boot: 1, incarnation: 1, address: "own:1"),
        let other = NodeRecord(name: peer, boot: 1, incarnation: 1, address: "peer:1")
    else { fatalError("records within their limits") }
    var membership = Membership(
        configuration: MembershipConfiguration(), own: own, known: [other], seed: 1, now: .zero)
    for second in 0..<4 {
        let now = Duration.seconds(second)
        for directive in membership.handle(.received(frame, from: peer), now: now) {
            if case .send(let frame, _) = directive {
                require((try? GossipCodec.encode(frame)) != nil, "a frame that cannot be written")
            }
        }
        require(membership.nextDeadline > now, "a deadline that has passed")
    }
}

@Sendable private func fuzzSignedRecord(_ bytes: [UInt8]) {
    guard let signed = SignedRecord(bytes: bytes) else { return }
    require(signed.bytes == bytes, "the bytes of a record change")
    guard let record = signed.record else { return }
    require(record.proof == bytes, "the proof is not what was signed")
    require(record.boot <= record.incarnation, "an incarnation before its boot")
    // What is signed again says the same.
    let body = SignedRecord.body(of: record)
    let again = SignedRecord(body: body, signature: signed.signature, certificate: signed.certificate)
    require(again.record?.name == record.name, "writing and reading changes the record")
}
