import ChunkModel

/// Bytes that hash to what the chunk index says: the only thing a backing file is ever written from (invariant I2).
///
/// There is no way to make one but by hashing. It borrows the bytes: they must be private to this process (the
/// sender must not be able to alter them after the check) and outlive the value, which cannot be copied away.
package struct VerifiedChunk: ~Copyable {
    /// The checked bytes.
    package let bytes: UnsafeRawBufferPointer
    /// Their digest, equal to the index entry's.
    package let digest: Digest

    /// Hashes `bytes` and compares size and digest with the index entry.
    package init(checking bytes: UnsafeRawBufferPointer, against entry: ChunkIndex.Entry) throws(ChunkMismatch) {
        guard bytes.count == entry.size else {
            throw .size(expected: entry.size, found: bytes.count)
        }
        let found = SHA256.hash(bytes)
        guard found == entry.digest else { throw .digest(expected: entry.digest, found: found) }
        self.bytes = bytes
        digest = found
    }
}

/// Bytes that are not the chunk they were given for.
package enum ChunkMismatch: Error, Equatable, CustomStringConvertible {
    case size(expected: Int, found: Int)
    case digest(expected: Digest, found: Digest)

    package var description: String {
        switch self {
        case .size(let expected, let found): "chunk has \(found) bytes, expected \(expected)"
        case .digest(let expected, let found): "chunk hashes to \(found), expected \(expected)"
        }
    }
}
