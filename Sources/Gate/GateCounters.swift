import ChunkModel
import Synchronization

/// The gate's counters: one atomic word each, read by chunkd through `stat`.
package final class GateCounters: @unchecked Sendable {
    // @unchecked: every element is an Atomic and the pointer never changes.
    private let values: UnsafeMutablePointer<Atomic<UInt64>>
    private static let size = Int(GateProtocol.Counter.allCases.map(\.rawValue).max() ?? 0) + 1

    package init() {
        values = .allocate(capacity: Self.size)
        for number in 0..<Self.size { (values + number).initialize(to: Atomic(0)) }
    }

    deinit {
        values.deinitialize(count: Self.size)
        values.deallocate()
    }

    /// Adds to a counter.
    @inline(__always)
    package func add(_ counter: GateProtocol.Counter, _ amount: UInt64 = 1) {
        values[Int(counter.rawValue)].wrappingAdd(amount, ordering: .relaxed)
    }

    package subscript(_ counter: GateProtocol.Counter) -> UInt64 {
        values[Int(counter.rawValue)].load(ordering: .relaxed)
    }

    /// All of them.
    package var all: [GateProtocol.Counter: UInt64] {
        var out: [GateProtocol.Counter: UInt64] = [:]
        for counter in GateProtocol.Counter.allCases { out[counter] = self[counter] }
        return out
    }
}
