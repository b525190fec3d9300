import LinuxSystem

/// A few threads for work that blocks: disk and socket calls never sit on Swift's cooperative pool. Thread-safe.
final class WorkQueue: Sendable {
    private struct State {
        var jobs: [@Sendable () -> Void] = []
        var head = 0
        var isStopped = false
    }

    private let state = Monitor(State())

    /// Starts the threads.
    init(_ name: String, threads: Int) throws(SystemError) {
        let state = self.state
        for number in 0..<threads { try Thread.start("\(name)\(number)") { Self.work(state) } }
    }

    deinit { stop() }

    /// Ends the threads after what is queued.
    func stop() { state.update { $0.isStopped = true } }

    /// Queues work; after `stop` it is dropped.
    func post(_ job: @escaping @Sendable () -> Void) {
        state.update { state in
            if !state.isStopped { state.jobs.append(job) }
        }
    }

    /// Runs `body` on one of the threads.
    func run<Value: Sendable, Failure: Error>(
        _ body: @escaping @Sendable () throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
            let isAccepted = state.update { state in
                guard !state.isStopped else { return false }
                state.jobs.append {
                    do throws(Failure) { continuation.resume(returning: .success(try body())) } catch {
                        continuation.resume(returning: .failure(error))
                    }
                }
                return true
            }
            // While the agent ends its last steps run where they are: there is no thread left to run them.
            if !isAccepted {
                do throws(Failure) { continuation.resume(returning: .success(try body())) } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
        }
        return try result.get()
    }

    private static func work(_ state: Monitor<State>) {
        while true {
            let job: (@Sendable () -> Void)?? = state.wait { state in
                if state.head < state.jobs.count {
                    let job = state.jobs[state.head]
                    state.head += 1
                    if state.head == state.jobs.count {
                        state.jobs.removeAll(keepingCapacity: true)
                        state.head = 0
                    }
                    return .some(job)
                }
                return state.isStopped ? .some(nil) : nil
            }
            guard let job, let job else { return }
            job()
        }
    }
}
