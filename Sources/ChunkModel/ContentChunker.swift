/// Cuts a blob into chunks by its content, on 4 KiB boundaries.
///
/// Whether a chunk may end after a block depends on that block's bytes, the chunk's size so far and edges. So
/// an insertion or removal of whole blocks moves no cut behind the first one that both versions share, and unchanged
/// data keeps its digests. EROFS places every file on a block boundary, therefore this holds from image to image.
///
/// Sizes are normalised as in FastCDC (Xia et al., USENIX ATC 2016, section 3.4): a cut is half as likely per block before
/// the average as after it, which keeps chunks near the average without forced cuts. With the defaults the mean on random
/// data is 126 blocks (503 KiB). Runs of zeros are cut by the maximum.
///
/// Edges are where the caller knows files to begin and end: each ends a chunk, whatever its size, so
/// that who reads a file gets no neighbour's bytes, and the file has the same chunks wherever it lies.
///
/// Feed bytes in order with `feed`, then call `finish`. Memory is one block. Use a value on one thread. The hash and the
/// rules are frozen: docs/formats/image.md, tests with fixed vectors.
package struct ContentChunker {
    /// Chunk sizes in bytes.
    package struct Parameters: Equatable, Sendable {
        package let min: Int
        package let average: Int
        package let max: Int

        /// nil unless 4096 ≤ min ≤ average ≤ max ≤ `Limits.maxChunkSize`, min and max are multiples of 4096 and average
        /// is 4096 times a power of two (so that its masks are exact).
        package init?(min: Int, average: Int, max: Int) {
            let block = Limits.blockSize
            guard min >= block, min <= average, average <= max, max <= Limits.maxChunkSize, min % block == 0,
                max % block == 0, average % block == 0, (average / block).nonzeroBitCount == 1
            else { return nil }
            self.init(unchecked: min, average, max)
        }

        private init(unchecked min: Int, _ average: Int, _ max: Int) {
            self.min = min
            self.average = average
            self.max = max
        }

        package static let defaultMin = 128 << 10
        package static let defaultAverage = 512 << 10
        package static let defaultMax = 1 << 20
        package static let standard = Parameters(unchecked: defaultMin, defaultAverage, defaultMax)
    }

    package let parameters: Parameters
    /// A cut before the average needs this many leading zero bits, one less after it.
    private let hardBits: Int
    /// Bytes fed so far.
    package private(set) var offset: UInt64 = 0
    /// Where the chunk in hand starts.
    private var start: UInt64 = 0
    /// A block that has begun, when what was fed ended inside it.
    private var partial: [UInt8] = []
    /// Where chunks end in any case, the next one last.
    private var edges: [UInt64]

    /// - Parameter edges: offsets where chunks end in any case, ascending, multiples of 4096 above 0.
    package init(_ parameters: Parameters = .standard, edges: [UInt64] = []) {
        self.parameters = parameters
        self.edges = edges.reversed()
        hardBits = (parameters.average / Limits.blockSize).trailingZeroBitCount
        partial.reserveCapacity(Limits.blockSize)
    }

    /// Takes the next bytes and calls `cut` with the end offset, in the whole stream, of each chunk that they complete.
    package mutating func feed(_ bytes: UnsafeRawBufferPointer, cut: (UInt64) -> Void) {
        var rest = bytes[...]
        if !partial.isEmpty {
            let wanted = rest.prefix(Limits.blockSize - partial.count)
            partial.append(contentsOf: wanted)
            rest = rest.dropFirst(wanted.count)
            guard partial.count == Limits.blockSize else { return }
            let hash = partial.withUnsafeBytes { Self.hash(block: $0) }
            partial.removeAll(keepingCapacity: true)
            take(hash, cut)
        }
        while rest.count >= Limits.blockSize {
            take(Self.hash(block: UnsafeRawBufferPointer(rebasing: rest.prefix(Limits.blockSize))), cut)
            rest = rest.dropFirst(Limits.blockSize)
        }
        partial.append(contentsOf: rest)
    }

    /// The end of the last chunk, when there is data after the last cut. Call once, at the end.
    package mutating func finish() -> UInt64? {
        offset += UInt64(partial.count)
        partial = []
        guard offset > start else { return nil }
        start = offset
        return offset
    }

    /// Decides whether the chunk ends after the block just hashed.
    private mutating func take(_ hash: UInt64, _ cut: (UInt64) -> Void) {
        offset += UInt64(Limits.blockSize)
        let size = Int(offset - start)
        let ends =
            if isEdge() || size >= parameters.max { true } else if size < parameters.min || isNearEdge { false } else {
                hash.leadingZeroBitCount >= (size < parameters.average ? hardBits : hardBits - 1)
            }
        guard ends else { return }
        start = offset
        cut(offset)
    }

    /// Whether the block just taken ends at an edge.
    private mutating func isEdge() -> Bool {
        guard edges.last == offset else { return false }
        edges.removeLast()
        return true
    }

    /// Whether a cut here would leave a chunk below the minimum before the next edge.
    private var isNearEdge: Bool { edges.last.map { $0 - offset < UInt64(parameters.min) } ?? false }

    /// The frozen 64-bit hash of one 4 KiB block.
    ///
    /// Four lanes take the block's 512 little-endian words in turn (word i goes to lane i mod 4); each is xored in,
    /// multiplied and rotated. The lanes are then folded and mixed with the finaliser of splitmix64 (Steele et al., OOPSLA
    /// 2014). It needs good top bits and speed; it is no protection against somebody who chooses the data, and needs none:
    /// a bad cut only makes a chunk of another size.
    package static func hash(block: UnsafeRawBufferPointer) -> UInt64 {
        precondition(block.count == Limits.blockSize)
        var a: UInt64 = 0x243F_6A88_85A3_08D3  // the first 256 bits of pi's fraction
        var b: UInt64 = 0x1319_8A2E_0370_7344
        var c: UInt64 = 0xA409_3822_299F_31D0
        var d: UInt64 = 0x082E_FA98_EC4E_6C89
        var at = 0
        while at < Limits.blockSize {
            a = step(a, block, at)
            b = step(b, block, at + 8)
            c = step(c, block, at + 16)
            d = step(d, block, at + 24)
            at += 32
        }
        var value = finish(a)
        value = finish(value ^ b)
        value = finish(value ^ c)
        // Inverted so that a block of zeros, the commonest of all, starts with a one bit: no sizes cut runs of zeros early.
        return ~finish(value ^ d)
    }

    @inline(__always)
    private static func step(_ lane: UInt64, _ block: UnsafeRawBufferPointer, _ at: Int) -> UInt64 {
        let word = UInt64(littleEndian: block.loadUnaligned(fromByteOffset: at, as: UInt64.self))
        let product = (lane ^ word) &* 0x9E37_79B9_7F4A_7C15  // 2^64 over the golden ratio
        return product << 29 | product >> 35
    }

    @inline(__always)
    private static func finish(_ input: UInt64) -> UInt64 {
        var value = input
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
