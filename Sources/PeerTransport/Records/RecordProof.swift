import ChunkModel

/// What travels beside a member record and proves whose it is: a signature and the certificate chain of its maker, leaf
/// first. docs/formats/identity.md, "Signed records".
///
/// `u8` version, `u8` number of certificates, each `u16` length and DER, `u16` length and signature; little-endian.
struct RecordProof {
    static let version: UInt8 = 1
    /// Five certificates of a KiB each and an RSA-4096 signature of 512 bytes, with room.
    static let maxBytes = 8192

    let chain: [[UInt8]]
    let signature: [UInt8]

    init(chain: [[UInt8]], signature: [UInt8]) {
        self.chain = chain
        self.signature = signature
    }

    /// Decodes a proof; nothing may follow it.
    init(_ bytes: [UInt8]) throws(IdentityError) {
        guard bytes.count <= Self.maxBytes else {
            throw IdentityError(.malformedProof, "proof has \(bytes.count) bytes, limit \(Self.maxBytes)")
        }
        var reader = ByteReader(bytes[...])
        guard let version = reader.integer(UInt8.self) else { throw Self.short }
        guard version == Self.version else {
            throw IdentityError(.malformedProof, "proof has version \(version), expected \(Self.version)")
        }
        guard let count = reader.integer(UInt8.self) else { throw Self.short }
        guard (1...Certificate.maxChain).contains(Int(count)) else {
            throw IdentityError(
                .malformedProof, "proof has \(count) certificates, expected 1 to \(Certificate.maxChain)")
        }
        var chain: [[UInt8]] = []
        for _ in 0..<count { chain.append(try Self.part(&reader)) }
        signature = try Self.part(&reader)
        guard reader.remaining == 0 else { throw IdentityError(.malformedProof, "bytes after the proof") }
        self.chain = chain
    }

    private static var short: IdentityError { IdentityError(.malformedProof, "proof ends early") }

    private static func part(_ reader: inout ByteReader) throws(IdentityError) -> [UInt8] {
        guard let length = reader.integer(UInt16.self), let part = reader.take(Int(length)) else { throw short }
        return Array(part)
    }

    /// The proof as bytes; nil when it would be longer than a reader takes.
    var bytes: [UInt8]? {
        var out = ByteWriter(capacity: 1024)
        out.integer(Self.version)
        out.integer(UInt8(clamping: chain.count))
        for part in chain + [signature] {
            guard let length = UInt16(exactly: part.count) else { return nil }
            out.integer(length)
            out.raw(part)
        }
        return out.bytes.count <= Self.maxBytes ? out.bytes : nil
    }
}
