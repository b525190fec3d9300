/// The seek table of a zstd blob: where each frame lies, and so each chunk.
///
/// Format: Zstandard Seekable Format 0.1.0, without per-frame checksums (chunks have SHA-256 digests). It is a skippable
/// frame at the blob's end, so `zstd -d` passes over it. A decoded table always holds: at most `Limits.maxChunksPerBlob`
/// frames, none empty, none larger than `maxFrameSize`. Value type, safe on any thread.
package struct SeekTable: Equatable, Sendable {
    /// One frame, that is one chunk.
    package struct Frame: Equatable, Sendable {
        /// Bytes in the blob.
        package let storedSize: UInt32
        /// Bytes of the chunk.
        package let rawSize: UInt32

        package init(storedSize: UInt32, rawSize: UInt32) {
            self.storedSize = storedSize
            self.rawSize = rawSize
        }
    }

    /// Why bytes are not a seek table chunkd accepts, or not that of a chunk index. `reason` fits a metric label.
    package enum Invalid: Error, Equatable, CustomStringConvertible {
        case wrongSize(expected: Int, found: Int)
        case badMagic
        case checksums
        case reservedBits(UInt8)
        case tooManyFrames(Int)
        case emptyFrame(Int)
        case frameTooLarge(frame: Int, storedSize: UInt32, rawSize: UInt32)
        case wrongFrameCount(expected: Int, found: Int)
        case wrongRawSize(frame: Int, expected: Int, found: UInt32)
        case wrongBlobSize(expected: UInt64, found: UInt64)

        package var reason: String {
            switch self {
            case .wrongSize: "size"
            case .badMagic: "magic"
            case .checksums, .reservedBits: "descriptor"
            case .tooManyFrames, .frameTooLarge: "limit"
            case .emptyFrame, .wrongFrameCount, .wrongRawSize: "frames"
            case .wrongBlobSize: "blob_size"
            }
        }

        package var description: String {
            switch self {
            case .wrongSize(let expected, let found): "seek table: expected \(expected) bytes, found \(found)"
            case .badMagic: "no zstd seek table at the end of the blob"
            case .checksums: "seek table has per-frame checksums, expected none"
            case .reservedBits(let bits): "seek table has reserved bits 0x\(String(bits, radix: 16)) set"
            case .tooManyFrames(let count): "seek table has \(count) frames, limit \(Limits.maxChunksPerBlob)"
            case .emptyFrame(let frame): "frame \(frame) of the seek table is empty"
            case .frameTooLarge(let frame, let stored, let raw): "frame \(frame): \(stored) bytes stored, \(raw) raw"
            case .wrongFrameCount(let expected, let found): "seek table has \(found) frames, expected \(expected)"
            case .wrongRawSize(let frame, let expected, let found):
                "frame \(frame) has \(found) raw bytes, its chunk \(expected)"
            case .wrongBlobSize(let expected, let found):
                "frames and table end at \(expected), the blob has \(found) bytes"
            }
        }
    }

    /// Bytes of a stored frame: the largest chunk, zstd's bound on growth (1/256, and 64 KiB below 128 KiB), framing.
    package static let maxFrameSize = UInt32(Limits.maxChunkSize + Limits.maxChunkSize >> 8 + 64 << 10)

    package let frames: [Frame]
    /// Where each frame starts in the blob, and after the last one the table.
    private let starts: [UInt64]

    /// Checks and keeps frames in order.
    package init(frames: [Frame]) throws(Invalid) {
        guard frames.count <= Limits.maxChunksPerBlob else { throw .tooManyFrames(frames.count) }
        var starts: [UInt64] = [0]
        starts.reserveCapacity(frames.count + 1)
        var end: UInt64 = 0
        for (number, frame) in frames.enumerated() {
            guard frame.storedSize > 0, frame.rawSize > 0 else { throw .emptyFrame(number) }
            guard frame.storedSize <= Self.maxFrameSize, frame.rawSize <= Limits.maxChunkSize else {
                throw .frameTooLarge(frame: number, storedSize: frame.storedSize, rawSize: frame.rawSize)
            }
            end += UInt64(frame.storedSize)
            starts.append(end)
        }
        self.frames = frames
        self.starts = starts
    }

    /// The byte range of a frame in the blob; traps outside `frames.indices` (a programmer error).
    package func storedRange(ofFrame number: Int) -> Range<UInt64> { starts[number]..<starts[number + 1] }

    /// The byte range of several adjacent frames.
    package func storedRange(ofFrames numbers: Range<Int>) -> Range<UInt64> {
        starts[numbers.lowerBound]..<starts[numbers.upperBound]
    }

    /// Bytes of the whole blob that this table describes.
    package var blobSize: UInt64 { (starts.last ?? 0) + UInt64(Self.encodedSize(frames: frames.count)) }

    /// Checks that frame i is chunk i, and that frames and table fill a blob of `blobSize` bytes exactly.
    package func check(against index: ChunkIndex, blobSize found: UInt64) throws(Invalid) {
        guard frames.count == index.count else { throw .wrongFrameCount(expected: index.count, found: frames.count) }
        for number in frames.indices where Int(frames[number].rawSize) != index[number].size {
            throw .wrongRawSize(frame: number, expected: index[number].size, found: frames[number].rawSize)
        }
        guard blobSize == found else { throw .wrongBlobSize(expected: blobSize, found: found) }
    }
}

// MARK: - Coding

extension SeekTable {
    private static let skippableMagic: UInt32 = 0x184D_2A5E
    private static let footerMagic: UInt32 = 0x8F92_EAB1
    private static let headerSize = 8
    private static let entrySize = 8
    private static let footerSize = 9
    private static let checksumFlag: UInt8 = 0x80
    private static let reservedMask: UInt8 = 0x7C

    /// Bytes of the table with its skippable frame's header: what a reader asks for from the end of the blob.
    package static func encodedSize(frames: Int) -> Int { headerSize + frames * entrySize + footerSize }

    /// Decodes a table given whole, from its skippable frame's magic to the end of the blob. Never traps.
    package init(decoding bytes: [UInt8]) throws(Invalid) {
        let framing = Self.headerSize + Self.footerSize
        guard bytes.count >= framing else { throw .wrongSize(expected: framing, found: bytes.count) }
        var footer = ByteReader(bytes[(bytes.count - Self.footerSize)...])
        guard let count = footer.integer(UInt32.self), let descriptor = footer.integer(UInt8.self),
            footer.integer(UInt32.self) == Self.footerMagic
        else { throw .badMagic }
        guard descriptor & Self.checksumFlag == 0 else { throw .checksums }
        guard descriptor & Self.reservedMask == 0 else { throw .reservedBits(descriptor & Self.reservedMask) }
        guard count <= Limits.maxChunksPerBlob else { throw .tooManyFrames(Int(count)) }
        let size = Self.encodedSize(frames: Int(count))
        guard bytes.count == size else { throw .wrongSize(expected: size, found: bytes.count) }
        var reader = ByteReader(bytes)
        guard reader.integer(UInt32.self) == Self.skippableMagic,
            reader.integer(UInt32.self) == UInt32(size - Self.headerSize)
        else { throw .badMagic }
        var frames: [Frame] = []
        frames.reserveCapacity(Int(count))
        for _ in 0..<count {
            guard let stored = reader.integer(UInt32.self), let raw = reader.integer(UInt32.self) else {
                throw .wrongSize(expected: size, found: bytes.count)
            }
            frames.append(Frame(storedSize: stored, rawSize: raw))
        }
        try self.init(frames: frames)
    }

    /// The table as it stands at the end of the blob.
    package func encoded() -> [UInt8] {
        let size = Self.encodedSize(frames: frames.count)
        var out = ByteWriter(capacity: size)
        out.integer(Self.skippableMagic)
        out.integer(UInt32(size - Self.headerSize))
        for frame in frames {
            out.integer(frame.storedSize)
            out.integer(frame.rawSize)
        }
        out.integer(UInt32(frames.count))
        out.integer(UInt8(0))
        out.integer(Self.footerMagic)
        return out.bytes
    }
}
