import Glibc
import LinuxSystem
import Synchronization

/// Which events have been read and not answered, in memory that survives the process: docs/formats/journal.md.
///
/// One 64-byte slot an event descriptor number, in a memfd the keeper holds. A slot is written right after the event
/// is read and cleared after it is answered and before its descriptor is closed, so a number in use has one writer. A
/// successor adopts what it finds. Only process death matters here, so plain stores in program order are enough.
package final class AccessJournal: @unchecked Sendable {
    // @unchecked: each slot has one writer at a time, the thread that owns the event with that number.

    /// The file behind it, for the keeper.
    package let file: File
    private let base: UnsafeMutableRawPointer
    /// Descriptor numbers 0..<capacity can be recorded.
    package let capacity: Int

    private static let slotSize = 64

    /// An event that was read and not answered.
    package struct Record: Equatable, Sendable {
        package var descriptor: Int32
        package var shard: Int
        package var device: UInt64
        package var inode: UInt64
        package var range: Range<UInt64>
        package init(descriptor: Int32, shard: Int, device: UInt64, inode: UInt64, range: Range<UInt64>) {
            self.descriptor = descriptor
            self.shard = shard
            self.device = device
            self.inode = inode
            self.range = range
        }
    }

    /// Maps `file`, made by `create` here or in a predecessor.
    package init(file: File) throws(SystemError) {
        let size = Int(try file.size())
        let map = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor, 0)
        guard let map, map != MAP_FAILED else { throw SystemError(errno, "mmap", "access journal") }
        self.file = file
        base = map
        capacity = size / Self.slotSize
    }

    deinit { munmap(base, capacity * Self.slotSize) }

    /// An empty journal for descriptor numbers below `capacity` (RLIMIT_NOFILE). Pages are only used when touched.
    package static func create(capacity: Int) throws(SystemError) -> AccessJournal {
        try AccessJournal(file: try File.memory(name: "chunkgate-journal", size: capacity * slotSize))
    }

    private func slot(_ descriptor: Int32) -> UnsafeMutableRawPointer {
        precondition(descriptor >= 0 && Int(descriptor) < capacity, "descriptor \(descriptor) past RLIMIT_NOFILE")
        return base + Int(descriptor) * Self.slotSize
    }

    private func state(_ descriptor: Int32) -> UnsafeMutablePointer<Atomic<UInt32>> {
        slot(descriptor).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// Writes the slot of `record.descriptor`; the state word last.
    package func record(_ record: Record) {
        let at = slot(record.descriptor)
        at.storeBytes(of: UInt32(record.shard), toByteOffset: 4, as: UInt32.self)
        at.storeBytes(of: record.device, toByteOffset: 8, as: UInt64.self)
        at.storeBytes(of: record.inode, toByteOffset: 16, as: UInt64.self)
        at.storeBytes(of: record.range.lowerBound, toByteOffset: 24, as: UInt64.self)
        at.storeBytes(of: record.range.upperBound, toByteOffset: 32, as: UInt64.self)
        state(record.descriptor).pointee.store(1, ordering: .releasing)
    }

    /// The event with this number is answered.
    package func clear(_ descriptor: Int32) { state(descriptor).pointee.store(0, ordering: .releasing) }

    /// All events that were not answered, by number. Read by system call: looking through the mapping would make every
    /// page of a mostly empty file real.
    package func pending() throws(SystemError) -> [Record] {
        var reader = try file.contents(limit: capacity * Self.slotSize)[...]
        var out: [Record] = []
        for number in 0..<Int32(capacity) {
            let slot = reader.prefix(Self.slotSize)
            reader = reader.dropFirst(Self.slotSize)
            let record: Record? = slot.withUnsafeBytes { raw in
                guard raw.loadUnaligned(as: UInt32.self) == 1 else { return nil }
                let start = raw.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
                return Record(
                    descriptor: number, shard: Int(raw.loadUnaligned(fromByteOffset: 4, as: UInt32.self)),
                    device: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
                    inode: raw.loadUnaligned(fromByteOffset: 16, as: UInt64.self),
                    range: start..<max(start, raw.loadUnaligned(fromByteOffset: 32, as: UInt64.self)))
            }
            if let record { out.append(record) }
        }
        return out
    }
}
