/// CRC-32C (Castagnoli, RFC 3720 appendix B.4), for torn and flipped state files and the EROFS superblock.
/// Not an integrity check against an adversary: chunks are checked by SHA-256.
package enum CRC32C {
    private static let table: [UInt32] = (0..<256).map { index in
        var value = UInt32(index)
        for _ in 0..<8 { value = value & 1 == 1 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
        return value
    }

    /// The raw register after `bytes`, starting from `seed`, without the final inversion (EROFS stores this form).
    package static func register(_ bytes: some Sequence<UInt8>, seed: UInt32 = 0xFFFF_FFFF) -> UInt32 {
        var value = seed
        for byte in bytes { value = value >> 8 ^ table[Int((value ^ UInt32(byte)) & 0xFF)] }
        return value
    }

    /// The usual checksum: inverted at both ends.
    package static func checksum(_ bytes: some Sequence<UInt8>) -> UInt32 { ~register(bytes) }
}
