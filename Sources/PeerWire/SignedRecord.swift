internal import ChunkModel
internal import FoundationEssentials
package import Membership
internal import SwiftProtobuf

/// A member's record as its owner signed it: the proof of a `NodeRecord`. The bytes are passed on as they came, so that
/// a field of a newer version survives nodes that do not know it, and the signature holds.
///
/// Nothing is verified here: that needs the trust of the connection, and is the shell's.
package struct SignedRecord: Equatable, Sendable {
    /// What the signature is over: a `Record` of gossip.proto.
    package let body: [UInt8]
    package let signature: [UInt8]
    /// The owner's leaf certificate, DER.
    package let certificate: [UInt8]
    /// All of it as it goes over the wire.
    package let bytes: [UInt8]

    /// The bytes that the owner of a record must sign.
    package static func body(of record: NodeRecord) -> [UInt8] {
        let wire = WireRecord.with {
            $0.name = record.name.text
            $0.boot = record.boot
            $0.incarnation = record.incarnation
            $0.address = record.address
            $0.zone = record.zone
            $0.version = record.version
            $0.left = record.hasLeft
        }
        return bytes(wire)
    }

    /// Puts the parts together. Give `bytes` to `NodeRecord.signed(proof:)`.
    package init(body: [UInt8], signature: [UInt8], certificate: [UInt8]) {
        self.body = body
        self.signature = signature
        self.certificate = certificate
        bytes = Self.bytes(
            WireSignedRecord.with {
                $0.body = Data(body)
                $0.signature = Data(signature)
                $0.certificate = Data(certificate)
            })
    }

    /// A record without a signature, which no node accepts from another.
    init(unsigned record: NodeRecord) {
        self.init(body: Self.body(of: record), signature: [], certificate: [])
    }

    /// Reads the proof of a record; nil when it is too long or not one.
    package init?(bytes: [UInt8]) {
        guard bytes.count <= MembershipLimits.maxProofBytes,
            let wire = try? WireSignedRecord(serializedBytes: bytes)
        else { return nil }
        body = Array(wire.body)
        signature = Array(wire.signature)
        certificate = Array(wire.certificate)
        self.bytes = bytes
    }

    /// The record the body says, with this as its proof; nil when the body is none or breaks a limit.
    package var record: NodeRecord? {
        guard let wire = try? WireRecord(serializedBytes: body), let name = NodeName(wire.name) else { return nil }
        return NodeRecord(
            name: name, boot: wire.boot, incarnation: wire.incarnation, address: wire.address, zone: wire.zone,
            version: wire.version, hasLeft: wire.left, proof: bytes)
    }

    private static func bytes(_ message: some SwiftProtobuf.Message) -> [UInt8] {
        // Fails only for required fields and strings that are no UTF-8; proto3 and Swift have neither.
        (try? message.serializedBytes()) ?? []
    }
}
