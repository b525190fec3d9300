import Glibc
import LinuxSystem
import TestSupport

/// Threads that each read one piece of a file, so that many reads can block at once.
final class Readers: Sendable {
    enum Outcome: Equatable, Sendable {
        case bytes([UInt8])
        /// errno
        case failed(Int32)
    }

    /// Where each reads, in bytes.
    let offsets: [UInt64]
    private let outcomes: Monitor<[Int: Outcome]>
    /// Bytes a reader asks for.
    static let size = 4096

    /// Starts one reader for each offset. No read-ahead: each read raises its own event.
    init(_ path: String, offsets: [UInt64]) throws {
        self.offsets = offsets
        let outcomes = Monitor<[Int: Outcome]>([:])
        self.outcomes = outcomes
        let file = try File(path: path, flags: O_RDONLY)
        try retrying("posix_fadvise", path) { posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_RANDOM) }
        for (number, offset) in offsets.enumerated() {
            try Thread.start("reader", stackSize: 64 << 10) {
                var buffer = [UInt8](repeating: 0, count: Self.size)
                let count = pread(file.descriptor, &buffer, buffer.count, off_t(offset))
                let outcome: Outcome = count < 0 ? .failed(errno) : .bytes(Array(buffer.prefix(count)))
                outcomes.update { $0[number] = outcome }
            }
        }
    }

    /// How many have returned.
    var done: Int { outcomes.withLock { $0.count } }

    /// All outcomes in the order of the offsets; nil when some still block after `limit`.
    func wait(_ limit: Duration) -> [Outcome]? {
        let milliseconds = Int(limit.components.seconds) * 1000
        let all = outcomes.wait(until: Monotonic.now.adding(milliseconds: milliseconds)) {
            $0.count == offsets.count ? $0 : nil
        }
        return all.map { found in offsets.indices.compactMap { found[$0] } }
    }

    /// What they should have read.
    static func expected(_ original: String, offsets: [UInt64]) throws -> [Outcome] {
        let file = try File(path: original, flags: O_RDONLY)
        return try offsets.map { offset in
            var buffer = [UInt8](repeating: 0, count: size)
            let count = try buffer.withUnsafeMutableBytes { try file.readAll(into: $0, at: offset) }
            return .bytes(Array(buffer.prefix(count)))
        }
    }

    /// `count` offsets of whole blocks, evenly over a file of `fileSize` bytes, so that few share a chunk.
    static func spread(_ count: Int, over fileSize: Int) -> [UInt64] {
        let blocks = fileSize / size
        return (0..<count).map { UInt64($0 * blocks / count * size) }
    }
}
