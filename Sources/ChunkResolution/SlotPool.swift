/// The arena's slots and the bytes in them: the room chunks have between the network and the gate's verdict.
///
/// A range takes a slot when the first byte of a chunk comes and waits, on the wire, when there is none. Slots are
/// taken last-in first-out, so that few pages are ever touched. A value; the shell guards it.
package struct SlotPool: Sendable {
    package struct Limits: Sendable, Equatable {
        package var slots = 64
        /// Raw bytes in slots at once: what the arena costs in memory. One chunk always fits, however large.
        package var bytes = 32 << 20
        /// Of these, what read-ahead and background may not take: a reader's chunk finds room at once.
        package var demandReserveBytes = 8 << 20
        package var demandReserveSlots = 16

        package init() {}
    }

    private enum Use: Equatable {
        case free
        /// Bytes are being put into it.
        case filling
        /// The gate was told; its verdict on this connection gives it back.
        case sent(connection: UInt64)
    }

    /// Who had sent what lies in it: the gate's verdict is about that source.
    private var sources: [FetchSource?]

    private let limits: Limits
    private var free: [UInt32]
    private var uses: [Use]
    private var sizes: [Int]
    private var used = 0

    package init(_ limits: Limits = Limits()) {
        self.limits = limits
        free = (0..<UInt32(limits.slots)).reversed()
        uses = [Use](repeating: .free, count: limits.slots)
        sizes = [Int](repeating: 0, count: limits.slots)
        sources = [FetchSource?](repeating: nil, count: limits.slots)
    }

    package var isIdle: Bool { free.count == sizes.count }

    /// A slot for a chunk of `size` bytes; nil when this rank has to wait.
    package mutating func take(_ size: Int, _ rank: FetchRank) -> UInt32? {
        if !isIdle {
            let isReader = rank == .demand
            guard used + size <= limits.bytes - (isReader ? 0 : limits.demandReserveBytes),
                free.count > (isReader ? 0 : limits.demandReserveSlots)
            else { return nil }
        }
        guard let slot = free.popLast() else { return nil }
        uses[Int(slot)] = .filling
        sizes[Int(slot)] = size
        used += size
        return slot
    }

    /// The gate is about to be told of the slot, whose bytes came from `source`.
    package mutating func markSent(_ slot: UInt32, connection: UInt64, from source: FetchSource? = nil) {
        uses[Int(slot)] = .sent(connection: connection)
        sources[Int(slot)] = source
    }

    /// The gate answered on that connection, or could not be told; anything else it may say of a slot is not heeded.
    /// Says who had sent the bytes.
    @discardableResult
    package mutating func giveBack(_ slot: UInt32, connection: UInt64) -> FetchSource? {
        guard Int(slot) < uses.count, uses[Int(slot)] == .sent(connection: connection) else { return nil }
        let source = sources[Int(slot)]
        release(slot)
        return source
    }

    /// The chunk will not be sent.
    package mutating func abandon(_ slot: UInt32) { if uses[Int(slot)] == .filling { release(slot) } }

    /// The connection ended: what was sent on it is answered no more.
    package mutating func reclaim(connection: UInt64) {
        for slot in uses.indices where uses[slot] == .sent(connection: connection) { release(UInt32(slot)) }
    }

    private mutating func release(_ slot: UInt32) {
        uses[Int(slot)] = .free
        sources[Int(slot)] = nil
        used -= sizes[Int(slot)]
        sizes[Int(slot)] = 0
        free.append(slot)
    }
}
