internal import CZstd

/// Decompresses one frame into a buffer of exactly the size that the chunk index promises.
///
/// Hostile input costs at most that buffer: libzstd never writes past it, a frame that says or holds another size is
/// refused, and a single-pass decode needs no window. Keeps its context (about 100 KiB) between frames. Not thread-safe:
/// one value, one thread.
package struct FrameDecompressor: ~Copyable {
    private let context: OpaquePointer

    /// Fails only where memory is exhausted.
    package init() throws(ZstandardError) {
        guard let context = ZSTD_createDCtx() else { throw ZstandardError(.library, "cannot create a context") }
        self.context = context
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Decompresses `frame`, which must be exactly one zstd frame, into `output`, which it must fill exactly.
    /// After an error the output holds rubbish.
    package func decompress(
        _ frame: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(ZstandardError) {
        // A skippable frame, or a second frame behind the first, would hide in what libzstd reads as one sequence.
        let size = ZSTD_findFrameCompressedSize(frame.baseAddress, frame.count)
        guard ZSTD_isError(size) == 0 else { throw ZstandardError(.badFrame, errorName(size)) }
        guard size == frame.count else {
            throw ZstandardError(.badFrame, "frame of \(size) bytes, expected \(frame.count)")
        }
        let content = ZSTD_getFrameContentSize(frame.baseAddress, frame.count)
        guard content == UInt64(output.count) else {
            // The two top values are ZSTD_CONTENTSIZE_UNKNOWN and _ERROR.
            let found = content > .max - 2 ? "an unknown size" : "\(content) bytes"
            throw ZstandardError(.wrongSize, "frame says \(found), expected \(output.count) bytes")
        }
        let written = ZSTD_decompressDCtx(context, output.baseAddress, output.count, frame.baseAddress, frame.count)
        guard ZSTD_isError(written) == 0 else { throw ZstandardError(.badFrame, errorName(written)) }
        guard written == output.count else {
            throw ZstandardError(.wrongSize, "frame holds \(written) bytes, expected \(output.count)")
        }
    }
}
