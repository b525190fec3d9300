package import ChunkModel

/// What a node says of itself, signed by it. Immutable, and shared by reference because a view of 10,000 members is
/// mostly these.
///
/// Records of one name are ordered by incarnation alone. A process starts with an incarnation higher than any before
/// (the wall clock in milliseconds; if the clock went back it learns of the old record when it joins and goes above
/// it), which is also its boot id. It raises its incarnation to refute an accusation or to change its record.
///
/// Immutable class, safe to use from any thread.
package final class NodeRecord: Sendable {
    package let name: NodeName
    /// The incarnation with which this process began. What was published under another boot is void.
    package let boot: UInt64
    package let incarnation: UInt64
    /// `ip:port`, advice: whoever answers there proves its name by its certificate.
    package let address: String
    /// Failure and cost domain, may be empty.
    package let zone: String
    /// The program's version.
    package let version: String
    /// Its owner said goodbye.
    package let hasLeft: Bool
    /// Signature and certificate, opaque here. The shell verifies it before a record is handed in.
    package let proof: [UInt8]

    /// A hash of the name that is the same on all nodes: the bucket of anti-entropy and the index of the table.
    let nameHash: UInt64

    /// Nil when a limit is exceeded, when the incarnation is before the boot or not below
    /// `MembershipLimits.maxIncarnation`.
    package init?(
        name: NodeName, boot: UInt64, incarnation: UInt64, address: String, zone: String = "", version: String = "",
        hasLeft: Bool = false, proof: [UInt8] = []
    ) {
        guard boot <= incarnation, incarnation < MembershipLimits.maxIncarnation,
            address.utf8.count <= MembershipLimits.maxAddressBytes,
            zone.utf8.count <= MembershipLimits.maxZoneBytes,
            version.utf8.count <= MembershipLimits.maxVersionBytes,
            proof.count <= MembershipLimits.maxProofBytes
        else { return nil }
        self.name = name
        self.boot = boot
        self.incarnation = incarnation
        self.address = address
        self.zone = zone
        self.version = version
        self.hasLeft = hasLeft
        self.proof = proof
        nameHash = StableHash.name(name)
    }

    /// This record with a proof, as a signer gives it back. Nil when the proof is too long.
    package func signed(proof: [UInt8]) -> NodeRecord? {
        NodeRecord(
            name: name, boot: boot, incarnation: incarnation, address: address, zone: zone, version: version,
            hasLeft: hasLeft, proof: proof)
    }
}

extension NodeRecord: Equatable, CustomStringConvertible {
    package static func == (a: NodeRecord, b: NodeRecord) -> Bool {
        a === b
            || (a.name == b.name && a.boot == b.boot && a.incarnation == b.incarnation && a.address == b.address
                && a.zone == b.zone && a.version == b.version && a.hasLeft == b.hasLeft && a.proof == b.proof)
    }

    package var description: String { "\(name)@\(incarnation)" }
}

/// What this node believes of a member.
package enum MemberState: UInt8, Sendable, CaseIterable {
    case alive
    /// Accused of not answering; it has some time to refute that.
    case suspect
    /// The time passed. Kept for a while, so that stale news do not revive it and it is looked for after a partition.
    case dead
    /// Said goodbye.
    case left
}

/// One member as this node sees it.
package struct Member: Equatable, Sendable {
    package let record: NodeRecord
    package let state: MemberState
    /// When it got this state or record, on the caller's clock.
    package let since: Duration
    /// Smoothed time from probe to answer; nil before the first.
    package let roundTrip: Duration?
}

/// How new a statement about content is. Only a version of the node's current boot counts.
package struct ContentVersion: Hashable, Comparable, Sendable {
    package let boot: UInt64
    package let counter: UInt32

    package init(boot: UInt64, counter: UInt32) {
        self.boot = boot
        self.counter = counter
    }

    package static func < (a: ContentVersion, b: ContentVersion) -> Bool {
        (a.boot, a.counter) < (b.boot, b.counter)
    }
}

/// What one node says it has of one blob. The payload means nothing here (docs/formats/content.md).
package struct ContentItem: Equatable, Sendable {
    package let node: NodeName
    package let blob: WireID
    package let version: ContentVersion
    /// The node has it no more; kept for a while so that stale news do not revive it.
    package let isGone: Bool
    /// At most `MembershipLimits.maxContentPayload` bytes.
    package let payload: [UInt8]

    /// Nil when the payload is too long.
    package init?(node: NodeName, blob: WireID, version: ContentVersion, isGone: Bool = false, payload: [UInt8]) {
        guard payload.count <= MembershipLimits.maxContentPayload else { return nil }
        self.node = node
        self.blob = blob
        self.version = version
        self.isGone = isGone
        self.payload = payload
    }
}

/// Hashes that all nodes compute alike: part of the protocol (docs/formats/gossip.md, "Digests").
enum StableHash {
    /// FNV-1a (64 bit) of the name, mixed so that its top bits are as good as the others.
    static func name(_ name: NodeName) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return SplitMix64.mix(hash)
    }

    /// What a living member adds to its bucket.
    static func member(_ record: NodeRecord) -> UInt64 {
        SplitMix64.mix(record.nameHash ^ SplitMix64.mix(record.incarnation))
    }

    /// What one content item of a living member adds to its bucket.
    static func content(_ nameHash: UInt64, _ blob: WireID, counter: UInt32) -> UInt64 {
        let words = blob.bigEndianWords
        return SplitMix64.mix(nameHash ^ SplitMix64.mix(words.0 ^ SplitMix64.mix(words.1 ^ UInt64(counter))))
    }

    static func bucket(_ nameHash: UInt64) -> Int { Int(nameHash >> 56) }
}
