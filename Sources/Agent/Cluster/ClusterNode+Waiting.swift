import Synchronization

/// Requests of peers that wait.
extension ClusterNode {
    /// When there are too many that wait, this one is to come again after so long.
    static let crowded = Duration.seconds(1)

    /// Waits until the goal was reached or given up, or the time is up; not at all unless `isWorthIt` still. False: too many
    /// wait already, so coming back at once would be no better.
    func wait(
        for goal: Waiting.Goal, until deadline: Duration, ifStill isWorthIt: @Sendable (borrowing ClusterState) -> Bool
    ) async -> Bool {
        let waiter = Mutex<(id: UInt64, timer: Task<Void, Never>)?>(nil)
        let isOver = Mutex(false)
        let isCrowded = Mutex(false)
        await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                let resume: @Sendable () -> Void = {
                    let isFirst = isOver.withLock { isOver in
                        defer { isOver = true }
                        return !isOver
                    }
                    if isFirst { continuation.resume() }
                }
                let (isWanted, id) = state.withLock { state -> (Bool, UInt64?) in
                    isWorthIt(state) ? (true, state.waiting.add(goal, resume)) : (false, nil)
                }
                guard let id else {
                    isCrowded.withLock { $0 = isWanted }
                    return resume()
                }
                let left = max(.zero, deadline - now)
                let timer = Task { [weak self] in
                    // Cut short when the wait is over: nobody is there to be given up then.
                    try? await Task.sleep(for: left)
                    self?.giveUp(goal, id)
                }
                waiter.withLock { $0 = (id, timer) }
                if Task.isCancelled { giveUp(goal, id) }
            }
        } onCancel: {
            if let id = waiter.withLock({ $0?.id }) { giveUp(goal, id) }
        }
        waiter.withLock { $0 }?.timer.cancel()
        return !isCrowded.withLock { $0 }
    }

    private func giveUp(_ goal: Waiting.Goal, _ id: UInt64) {
        state.withLock { $0.waiting.take(goal, id) }?.resume()
    }
}
