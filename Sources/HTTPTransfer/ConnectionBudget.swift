/// Who may start: at most a fixed number of exchanges at once per origin and priority, the rest wait in order.
///
/// The two priorities of an origin have separate budgets, so on-demand exchanges never wait for prefetch ones. Pure
/// value; the transfer thread owns it. Work per call is O(1) but for `remove`, which is O(waiting in the lane).
struct ConnectionBudget {
    /// One origin at one priority.
    struct Lane: Hashable {
        let origin: String
        let priority: TransferPriority
    }

    private struct State {
        var active = 0
        /// Waiting ids from `head` on; the consumed front is cut off when it is the larger half.
        var waiting: [UInt64] = []
        var head = 0

        var isIdle: Bool { active == 0 && head == waiting.count }

        mutating func popFirst() -> UInt64? {
            guard head < waiting.count else { return nil }
            defer {
                head += 1
                if head > 32, head * 2 > waiting.count {
                    waiting.removeFirst(head)
                    head = 0
                }
            }
            return waiting[head]
        }
    }

    private let limits: TransferLimits
    private var lanes: [Lane: State] = [:]
    /// Ids waiting in all lanes.
    private(set) var waitingCount = 0

    init(limits: TransferLimits) { self.limits = limits }

    /// True when no exchange runs or waits.
    var isIdle: Bool { lanes.isEmpty }

    /// Puts an id at the end of its lane; false when `maxQueued` ids wait already.
    mutating func enqueue(_ id: UInt64, _ lane: Lane) -> Bool {
        guard waitingCount < limits.maxQueued else { return false }
        lanes[lane, default: State()].waiting.append(id)
        waitingCount += 1
        return true
    }

    /// Takes the next id of a lane that may start now, and counts it as running; nil when none waits or the budget is
    /// used up.
    mutating func start(_ lane: Lane) -> UInt64? {
        guard var state = lanes[lane], state.active < limits.budget(lane.priority), let id = state.popFirst() else {
            return nil
        }
        state.active += 1
        waitingCount -= 1
        lanes[lane] = state
        return id
    }

    /// A running exchange of the lane has ended.
    mutating func finish(_ lane: Lane) {
        guard var state = lanes[lane], state.active > 0 else { return }
        state.active -= 1
        lanes[lane] = state.isIdle ? nil : state
    }

    /// Takes a waiting id out; false when it does not wait (it runs, or has ended).
    mutating func remove(_ id: UInt64, _ lane: Lane) -> Bool {
        guard var state = lanes[lane], let index = state.waiting[state.head...].firstIndex(of: id) else {
            return false
        }
        state.waiting.remove(at: index)
        waitingCount -= 1
        lanes[lane] = state.isIdle ? nil : state
        return true
    }
}
