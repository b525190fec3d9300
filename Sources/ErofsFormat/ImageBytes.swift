/// The bytes of an image, with every access checked: outside is an error, never a trap and never a stray read.
///
/// It borrows the memory: whoever calls must keep it mapped and unchanged while this value is in use.
struct ImageBytes {
    private let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var count: UInt64 { UInt64(bytes.count) }

    /// Whether `count` bytes at `offset` lie inside, without overflow whatever the operands.
    func contains(_ offset: UInt64, _ count: UInt64) -> Bool {
        offset <= self.count && count <= self.count - offset
    }

    /// A little-endian integer. `place` is only evaluated for the error.
    @inline(__always)
    func integer<T: FixedWidthInteger & BitwiseCopyable>(
        at offset: UInt64, as type: T.Type = T.self, _ place: @autoclosure () -> String
    ) throws(ErofsError) -> T {
        let size = T.bitWidth / 8
        guard contains(offset, UInt64(size)) else { throw outside(offset, UInt64(size), place()) }
        return T(littleEndian: bytes.loadUnaligned(fromByteOffset: Int(offset), as: type))
    }

    /// A view of `count` bytes.
    @inline(__always)
    func slice(
        at offset: UInt64, count: UInt64, _ place: @autoclosure () -> String
    ) throws(ErofsError) -> UnsafeRawBufferPointer {
        guard contains(offset, count) else { throw outside(offset, count, place()) }
        return UnsafeRawBufferPointer(rebasing: bytes[Int(offset)..<Int(offset) + Int(count)])
    }

    private func outside(_ offset: UInt64, _ count: UInt64, _ place: String) -> ErofsError {
        ErofsError(.outsideImage, place, "needs \(count) bytes at offset \(offset), the image has \(self.count) bytes")
    }
}
