/// Things to happen, by virtual time; those of the same time in the order they were added. A binary heap of small keys
/// over a slab of payloads, so that large payloads do not move.
struct EventHeap<Payload> {
    private struct Key {
        let time: Int64
        let sequence: UInt64
        let slot: Int
        func isBefore(_ other: Key) -> Bool { (time, sequence) < (other.time, other.sequence) }
    }

    private var keys: [Key] = []
    private var slab: [Payload?] = []
    private var free: [Int] = []
    private var sequence: UInt64 = 0

    var count: Int { keys.count }

    /// When the first one happens, in nanoseconds; nil when there is none.
    var firstTime: Int64? { keys.first?.time }

    mutating func add(_ payload: Payload, at time: Int64) {
        let slot: Int
        if let reused = free.popLast() {
            slab[reused] = payload
            slot = reused
        } else {
            slab.append(payload)
            slot = slab.count - 1
        }
        var at = keys.count
        let key = Key(time: time, sequence: sequence, slot: slot)
        sequence += 1
        keys.append(key)
        while at > 0 {
            let parent = (at - 1) / 2
            guard key.isBefore(keys[parent]) else { break }
            keys[at] = keys[parent]
            at = parent
        }
        keys[at] = key
    }

    mutating func removeFirst() -> (time: Int64, payload: Payload)? {
        guard let first = keys.first, let last = keys.popLast() else { return nil }
        if !keys.isEmpty { sink(last) }
        guard let payload = slab[first.slot].take() else { return nil }
        free.append(first.slot)
        return (first.time, payload)
    }

    /// Puts a key at the root and lets it sink to its place.
    private mutating func sink(_ key: Key) {
        var at = 0
        while true {
            var child = 2 * at + 1
            guard child < keys.count else { break }
            if child + 1 < keys.count, keys[child + 1].isBefore(keys[child]) { child += 1 }
            guard keys[child].isBefore(key) else { break }
            keys[at] = keys[child]
            at = child
        }
        keys[at] = key
    }
}
