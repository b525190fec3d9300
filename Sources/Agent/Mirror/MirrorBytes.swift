import LinuxSystem
import Mirror
import NIOCore
import Synchronization

/// A range of a blob, read in slices as they are there and as they are taken.
final class MirrorBytes: MirrorBody {
    /// Read and sent at once.
    private static let sliceBytes: UInt64 = 256 << 10

    private let end: UInt64
    private let disk: WorkQueue
    /// The file that has the byte at an offset, and where what it has ends; nil when it will never be had.
    private let place: @Sendable (UInt64) async -> (file: File, end: UInt64)?
    private let offset: Mutex<UInt64>

    init(
        _ range: Range<UInt64>, _ disk: WorkQueue,
        place: @escaping @Sendable (UInt64) async -> (file: File, end: UInt64)?
    ) {
        end = range.upperBound
        self.disk = disk
        self.place = place
        offset = Mutex(range.lowerBound)
    }

    func next() async -> ByteBuffer? {
        let from = offset.withLock { $0 }
        guard let (file, there) = await place(from), from < there else { return nil }
        let count = Int(min(Self.sliceBytes, min(there, end) - from))
        // Unreadable: the connection is cut, and whoever asked goes on at the registry.
        let read = await disk.run { try? file.bytes(at: from, count: count) }
        guard let bytes = read, !bytes.isEmpty else { return nil }
        offset.withLock { $0 += UInt64(bytes.count) }
        return ByteBuffer(bytes: bytes)
    }
}
