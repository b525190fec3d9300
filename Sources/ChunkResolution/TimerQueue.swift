/// A binary heap of values by time; equal times leave in the order they came. Entries are never removed early: the
/// owner checks on arrival whether they still mean something.
struct TimerQueue<Value> {
    private var heap: [(time: Duration, serial: UInt64, value: Value)] = []
    private var serial: UInt64 = 0

    /// The earliest time, or nil.
    var next: Duration? { heap.first?.time }
    var count: Int { heap.count }

    mutating func add(_ value: Value, at time: Duration) {
        serial += 1
        heap.append((time, serial, value))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard isBefore(child, parent) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    /// Takes the earliest value that is due.
    mutating func popDue(_ now: Duration) -> Value? {
        guard let first = heap.first, first.time <= now else { return nil }
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [parent * 2 + 1, parent * 2 + 2] where child < heap.count && isBefore(child, least) {
                least = child
            }
            if least == parent { break }
            heap.swapAt(least, parent)
            parent = least
        }
        return first.value
    }

    mutating func removeAll() { heap.removeAll() }

    private func isBefore(_ a: Int, _ b: Int) -> Bool {
        heap[a].time == heap[b].time ? heap[a].serial < heap[b].serial : heap[a].time < heap[b].time
    }
}
