import ChunkModel
import Catalogue

/// Requests of peers that wait for something this node is getting. A value.
struct Waiting {
    /// What is waited for.
    enum Goal: Hashable {
        case chunk(BlobKey, Int)
        /// A part of an image, by its name on the wire.
        case part(WireID)
    }

    struct Waiter {
        let id: UInt64
        let resume: @Sendable () -> Void
    }

    /// Requests that may wait at once.
    static let maxWaiters = 4096

    private var waiters: [Goal: [Waiter]] = [:]
    private var count = 0
    private var next: UInt64 = 1

    /// The number of a new waiter; nil when there are too many.
    mutating func add(_ goal: Goal, _ resume: @escaping @Sendable () -> Void) -> UInt64? {
        guard count < Self.maxWaiters else { return nil }
        count += 1
        next += 1
        waiters[goal, default: []].append(Waiter(id: next, resume: resume))
        return next
    }

    /// Takes out all who wait for it: they are to be resumed, without the lock.
    mutating func take(_ goal: Goal) -> [Waiter] {
        let taken = waiters.removeValue(forKey: goal) ?? []
        count -= taken.count
        return taken
    }

    /// The same for everything of these blobs.
    mutating func take(_ keys: [BlobKey]) -> [Waiter] {
        waiters.keys.filter { if case .chunk(let key, _) = $0 { keys.contains(key) } else { false } }.flatMap {
            take($0)
        }
    }

    /// Takes out one; nil when it was resumed before.
    mutating func take(_ goal: Goal, _ id: UInt64) -> Waiter? {
        guard let at = waiters[goal]?.firstIndex(where: { $0.id == id }) else { return nil }
        count -= 1
        let waiter = waiters[goal]?.remove(at: at)
        if waiters[goal]?.isEmpty == true { waiters[goal] = nil }
        return waiter
    }
}
