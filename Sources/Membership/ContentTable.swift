internal import ChunkModel

/// The content items of all members, by slot. Blob ids are kept once, items in 40 bytes each.
struct ContentTable {
    /// A statement of the member's present boot.
    struct Value: Equatable {
        var counter: UInt32
        var isGone: Bool
        var payload: Payload
    }

    /// Up to 23 bytes beside their count, without an allocation.
    struct Payload: Equatable {
        private var a: UInt64 = 0
        private var b: UInt64 = 0
        private var c: UInt64 = 0

        init(_ bytes: [UInt8]) {
            for (number, byte) in bytes.prefix(MembershipLimits.maxContentPayload).enumerated() {
                let bits = UInt64(byte) << UInt64(number % 8 * 8)
                if number < 8 { a |= bits } else if number < 16 { b |= bits } else { c |= bits }
            }
            c |= UInt64(min(bytes.count, MembershipLimits.maxContentPayload)) << 56
        }

        var bytes: [UInt8] {
            (0..<Int(c >> 56)).map { number in
                let word = number < 8 ? a : number < 16 ? b : c
                return UInt8(truncatingIfNeeded: word >> UInt64(number % 8 * 8))
            }
        }
    }

    private struct Entry {
        let blob: UInt32
        var value: Value
    }

    /// By slot; as long as the highest slot that ever had content.
    private var items: [[Entry]] = []
    private var blobs = BlobNames()
    /// When the gone ones went, oldest first.
    private var gone: [(time: Duration, slot: Int, blob: WireID, counter: UInt32)] = []
    private(set) var count = 0

    func value(_ slot: Int, _ blob: WireID) -> Value? {
        guard slot < items.count, !items[slot].isEmpty, let number = blobs.find(blob) else { return nil }
        return items[slot].first { $0.blob == number }?.value
    }

    /// False when the member or the table has all it may have.
    mutating func set(_ slot: Int, _ blob: WireID, _ value: Value, now: Duration) -> Bool {
        while items.count <= slot { items.append([]) }
        if let number = blobs.find(blob), let at = items[slot].firstIndex(where: { $0.blob == number }) {
            items[slot][at].value = value
        } else {
            guard items[slot].count < MembershipLimits.maxContentPerNode, count < MembershipLimits.maxContentItems
            else { return false }
            items[slot].append(Entry(blob: blobs.retain(blob), value: value))
            count += 1
        }
        if value.isGone { gone.append((now, slot, blob, value.counter)) }
        return true
    }

    /// All items of a member, in the order they came.
    func all(_ slot: Int) -> [(blob: WireID, value: Value)] {
        guard slot < items.count else { return [] }
        return items[slot].compactMap { entry in blobs[entry.blob].map { ($0, entry.value) } }
    }

    /// The sum of the hashes of what a member has.
    func digest(_ slot: Int, _ nameHash: UInt64) -> UInt64 {
        guard slot < items.count else { return 0 }
        var sum: UInt64 = 0
        for entry in items[slot] where !entry.value.isGone {
            if let blob = blobs[entry.blob] {
                sum &+= StableHash.content(nameHash, blob, counter: entry.value.counter)
            }
        }
        return sum
    }

    mutating func removeAll(of slot: Int) {
        guard slot < items.count, !items[slot].isEmpty else { return }
        for entry in items[slot] { blobs.release(entry.blob) }
        count -= items[slot].count
        items[slot] = []
    }

    mutating func forget(goneBefore time: Duration) {
        var done = 0
        while done < gone.count, gone[done].time < time {
            let (_, slot, blob, counter) = gone[done]
            done += 1
            guard let number = blobs.find(blob), let at = items[slot].firstIndex(where: { $0.blob == number }),
                items[slot][at].value.isGone, items[slot][at].value.counter == counter
            else { continue }
            items[slot].remove(at: at)
            blobs.release(number)
            count -= 1
        }
        if done > 0 { gone.removeFirst(done) }
    }
}

/// Blob ids under small numbers, counted.
struct BlobNames {
    private var ids: [WireID?] = []
    private var uses: [UInt32] = []
    private var numbers: [WireID: UInt32] = [:]
    private var free: [UInt32] = []

    func find(_ id: WireID) -> UInt32? { numbers[id] }

    subscript(number: UInt32) -> WireID? { ids[Int(number)] }

    mutating func retain(_ id: WireID) -> UInt32 {
        if let number = numbers[id] {
            uses[Int(number)] += 1
            return number
        }
        let number: UInt32
        if let reused = free.popLast() {
            number = reused
            ids[Int(number)] = id
            uses[Int(number)] = 1
        } else {
            number = UInt32(ids.count)
            ids.append(id)
            uses.append(1)
        }
        numbers[id] = number
        return number
    }

    mutating func release(_ number: UInt32) {
        uses[Int(number)] -= 1
        guard uses[Int(number)] == 0 else { return }
        if let id = ids[Int(number)].take() { numbers[id] = nil }
        free.append(number)
    }
}
