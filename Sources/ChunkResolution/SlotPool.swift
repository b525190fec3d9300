/// The arena's slots and the bytes in them. Slots are taken last-in first-out: few pages are ever touched.
struct SlotPool {
    private var free: [UInt32]
    private var bytes: [Int]
    private var used = 0
    private let limits: FetchLimits

    init(_ limits: FetchLimits) {
        self.limits = limits
        free = (0..<UInt32(limits.slots)).reversed()
        bytes = [Int](repeating: 0, count: limits.slots)
    }

    var isIdle: Bool { free.count == bytes.count }

    /// Whether `count` more slots with `size` bytes in them may be taken for this rank. One chunk always fits an idle
    /// pool, however large.
    func admits(_ size: Int, slots count: Int, for rank: FetchRank) -> Bool {
        if isIdle && count <= 1 { return !free.isEmpty }
        let reserve = rank == .demand ? (0, 0) : (limits.demandReserveBytes, limits.demandReserveSlots)
        return used + size <= limits.slotBytes - reserve.0 && count <= free.count - reserve.1
    }

    /// Takes a slot for `size` bytes; `admits` must have said yes.
    mutating func take(_ size: Int) -> UInt32 {
        let slot = free.removeLast()
        bytes[Int(slot)] = size
        used += size
        return slot
    }

    mutating func giveBack(_ slot: UInt32) {
        used -= bytes[Int(slot)]
        bytes[Int(slot)] = 0
        free.append(slot)
    }
}
