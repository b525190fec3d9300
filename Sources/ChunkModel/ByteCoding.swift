/// Reads little-endian integers from bytes with every bound checked: a short buffer is nil, never a trap.
package struct ByteReader {
    private let bytes: ArraySlice<UInt8>
    /// Index of the next byte, relative to the start of what was given.
    package private(set) var offset = 0

    package init(_ bytes: ArraySlice<UInt8>) { self.bytes = bytes }
    package init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

    /// Bytes not read yet.
    package var remaining: Int { bytes.count - offset }

    /// Takes `count` bytes, or nil without moving when there are fewer.
    package mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        guard count >= 0, count <= remaining else { return nil }
        let start = bytes.startIndex + offset
        offset += count
        return bytes[start..<start + count]
    }

    /// Takes one little-endian integer, or nil without moving.
    package mutating func integer<T: FixedWidthInteger & UnsignedInteger>(_: T.Type = T.self) -> T? {
        guard let raw = take(T.bitWidth / 8) else { return nil }
        var value: T = 0
        var shift = 0
        for byte in raw {
            value |= T(truncatingIfNeeded: byte) << T(shift)
            shift += 8
        }
        return value
    }

    /// Takes a raw 32-byte digest, or nil without moving.
    package mutating func digest() -> Digest? { take(Digest.byteCount).flatMap { Digest(rawBytes: $0) } }
}

/// Appends little-endian integers to a byte array; the pair of `ByteReader`.
package struct ByteWriter {
    package private(set) var bytes: [UInt8] = []

    package init(capacity: Int = 64) { bytes.reserveCapacity(capacity) }

    package mutating func integer<T: FixedWidthInteger & UnsignedInteger>(_ value: T) {
        for shift in stride(from: 0, to: T.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> T(shift)))
        }
    }

    package mutating func digest(_ value: Digest) { bytes += value.rawBytes }
    package mutating func raw(_ value: some Sequence<UInt8>) { bytes += value }
    /// Appends zeros until the count is `size`; does nothing when it is larger already.
    package mutating func pad(to size: Int) {
        if bytes.count < size { bytes += [UInt8](repeating: 0, count: size - bytes.count) }
    }
}
