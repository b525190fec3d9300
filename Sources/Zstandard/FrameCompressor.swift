internal import CZstd

/// Compresses chunks, each to one zstd frame (RFC 8878) with its content size and without a checksum: chunks are checked by
/// their SHA-256. The same bytes, level and libzstd version give the same frame.
///
/// Keeps its context between chunks. Not thread-safe: one value, one thread.
package struct FrameCompressor: ~Copyable {
    /// A good ratio at a speed near that of SHA-256 on two cores.
    package static let defaultLevel = 3
    /// What zstd documents as ordinary levels; those above 19 need much memory to read.
    package static let levels = 1...19

    private let context: OpaquePointer

    /// Fails only where memory is exhausted, or for a level outside `levels`.
    package init(level: Int = defaultLevel) throws(ZstandardError) {
        guard Self.levels.contains(level) else {
            throw ZstandardError(.library, "level \(level), expected \(Self.levels)")
        }
        guard let context = ZSTD_createCCtx() else { throw ZstandardError(.library, "cannot create a context") }
        self.context = context
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, Int32(level))
        ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 1)
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 0)
    }

    deinit { ZSTD_freeCCtx(context) }

    /// Bytes that a frame of `rawSize` bytes can take at most.
    package static func bound(rawSize: Int) -> Int { ZSTD_compressBound(rawSize) }

    /// Compresses into a buffer of at least `bound(rawSize:)` bytes; returns the bytes written.
    package func compress(
        _ chunk: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(ZstandardError) -> Int {
        let written = ZSTD_compress2(context, output.baseAddress, output.count, chunk.baseAddress, chunk.count)
        guard ZSTD_isError(written) == 0 else { throw ZstandardError(.library, errorName(written)) }
        return written
    }

    /// Compresses into a new array.
    package func compress(_ chunk: UnsafeRawBufferPointer) throws(ZstandardError) -> [UInt8] {
        var failure: ZstandardError?
        let bytes = [UInt8](unsafeUninitializedCapacity: Self.bound(rawSize: chunk.count)) { buffer, count in
            do throws(ZstandardError) {
                count = try compress(chunk, into: UnsafeMutableRawBufferPointer(buffer))
            } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }
}

/// libzstd's words for an error code; a bounded set.
func errorName(_ code: Int) -> String { String(cString: ZSTD_getErrorName(code)) }
