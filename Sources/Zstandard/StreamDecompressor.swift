internal import CZstd

/// Decompresses a zstd stream of any number of frames piece by piece, as ordinary image layers come.
///
/// Memory is bounded by the window (`maxWindowLog`), output by `limit`. Not thread-safe: one value, one thread.
package struct StreamDecompressor: ~Copyable {
    /// Largest window: 128 MiB, what `zstd -d` takes without being asked.
    package static let maxWindowLog: Int32 = 27

    private let context: OpaquePointer
    private let limit: UInt64
    private var output: [UInt8]
    /// Bytes decompressed so far.
    package private(set) var produced: UInt64 = 0
    /// Whether what was fed so far ends with a frame.
    package private(set) var isAtFrameEnd = true

    /// `limit`: bytes of output at which the stream is refused.
    package init(limit: UInt64) throws(ZstandardError) {
        guard let context = ZSTD_createDCtx() else { throw ZstandardError(.library, "cannot create a context") }
        ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, Self.maxWindowLog)
        self.context = context
        self.limit = limit
        output = [UInt8](repeating: 0, count: ZSTD_DStreamOutSize())
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Takes the next bytes and hands what they decompress to in pieces of at most 128 KiB.
    package mutating func feed<Failure: Error>(
        _ bytes: UnsafeRawBufferPointer, _ take: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws {
        var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
        var isFull = false
        while input.pos < input.size || isFull {
            let (state, written) = output.withUnsafeMutableBytes { buffer in
                var target = ZSTD_outBuffer(dst: buffer.baseAddress, size: buffer.count, pos: 0)
                return (ZSTD_decompressStream(context, &target, &input), target.pos)
            }
            guard ZSTD_isError(state) == 0 else { throw ZstandardError(.badFrame, errorName(state)) }
            isAtFrameEnd = state == 0
            // A full buffer may leave more inside libzstd, but not at a frame's end.
            isFull = written == output.count && !isAtFrameEnd
            produced += UInt64(written)
            guard produced <= limit else { throw ZstandardError(.limitExceeded, "more than \(limit) bytes of output") }
            try output.withUnsafeBytes { try take(UnsafeRawBufferPointer(rebasing: $0[..<written])) }
        }
    }
}
