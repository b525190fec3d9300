import Glibc
import LinuxSystem

/// Where two files' bytes part.
struct ContentFailure {
    var place: String
    var expected: String
    var found: String

    /// A call that failed, on either side.
    init(offset: UInt64, _ error: SystemError) {
        place = "at byte \(offset)"
        expected = "success"
        found = "\(error)"
    }

    init(offset: UInt64, expected: UInt8, found: UInt8) {
        place = "at byte \(offset)"
        self.expected = "\(expected)"
        self.found = "\(found)"
    }

    init(offset: UInt64, expectedCount: Int, foundCount: Int) {
        place = "at byte \(offset)"
        expected = "\(expectedCount) bytes"
        found = "\(foundCount) bytes"
    }
}

/// The ways two files are compared byte by byte: the first is right, the second is judged.
enum Contents {
    /// Bytes held at once.
    private static let pieceSize = 1 << 20

    /// Piece by piece from the start, and a read beyond the end gives nothing.
    static func compareWhole(_ a: File, _ b: File, size: UInt64) -> ContentFailure? {
        var offset: UInt64 = 0
        while offset < size {
            let count = Int(min(UInt64(pieceSize), size - offset))
            if let failure = comparePiece(a, b, at: offset, count: count) { return failure }
            offset += UInt64(count)
        }
        return comparePiece(a, b, at: size, count: 4096)
    }

    /// About a dozen pieces of odd sizes at odd places, the last ones around the end of the file.
    static func compareOddPieces(
        _ a: File, _ b: File, size: UInt64, using random: inout SeededGenerator
    ) -> ContentFailure? {
        let counts = [1, 3, 511, 4095, 4096, 4097, 65_537, 200_001]
        for count in counts + counts.shuffled(using: &random).prefix(4) {
            let offset = size == 0 ? 0 : UInt64.random(in: 0..<size, using: &random)
            if let failure = comparePiece(a, b, at: offset, count: count) { return failure }
        }
        return comparePiece(a, b, at: size > 4096 ? size - 4096 : 0, count: 8192)
    }

    /// Through a mapping of the second file, read by the kernel so that an error is EFAULT and no signal.
    static func compareMapped(_ a: File, _ b: File, size: UInt64) -> ContentFailure? {
        guard size > 0 else { return nil }
        guard let map = mmap(nil, Int(size), PROT_READ, MAP_PRIVATE, b.descriptor, 0), map != MAP_FAILED else {
            return ContentFailure(offset: 0, SystemError(errno, "mmap"))
        }
        defer { munmap(map, Int(size)) }
        do throws(SystemError) {
            let copy = try File.memory(name: "mapped")
            var offset: UInt64 = 0
            while offset < size {
                let count = Int(min(UInt64(pieceSize), size - offset))
                let piece = UnsafeRawBufferPointer(start: map + Int(offset), count: count)
                // Not writeAll: EFAULT is an answer here, and a defect there.
                let written = pwrite(copy.descriptor, piece.baseAddress, count, off_t(offset))
                if written != count {
                    return ContentFailure(offset: offset, SystemError(errno, "read of a mapped page"))
                }
                offset += UInt64(count)
            }
            return compareWhole(a, copy, size: size)
        } catch {
            return ContentFailure(offset: 0, error)
        }
    }

    private static func comparePiece(_ a: File, _ b: File, at offset: UInt64, count: Int) -> ContentFailure? {
        do throws(SystemError) {
            let expected = try read(a, at: offset, count: count)
            let found = try read(b, at: offset, count: count)
            if expected == found { return nil }
            guard expected.count == found.count else {
                return ContentFailure(offset: offset, expectedCount: expected.count, foundCount: found.count)
            }
            for (index, pair) in zip(expected, found).enumerated() where pair.0 != pair.1 {
                return ContentFailure(offset: offset + UInt64(index), expected: pair.0, found: pair.1)
            }
            return nil
        } catch {
            return ContentFailure(offset: offset, error)
        }
    }

    private static func read(_ file: File, at offset: UInt64, count: Int) throws(SystemError) -> [UInt8] {
        var failure: SystemError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            do throws(SystemError) {
                used = try file.readAll(into: UnsafeMutableRawBufferPointer(buffer), at: offset)
            } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }
}
