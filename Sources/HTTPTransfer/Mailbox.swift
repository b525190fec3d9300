import CCurl
import Glibc
import Synchronization

/// What other threads ask of the transfer thread.
enum TransferCommand: Sendable {
    case submit(Submission)
    case resume(UInt64)
    case cancel(UInt64)
}

/// One exchange on its way to the transfer thread.
struct Submission: Sendable {
    let id: UInt64
    let request: TransferRequest
    let sink: TransferSink
    let submitted: UInt64
    /// Called exactly once, on the transfer thread or, when that has ended, on the caller's.
    let complete: @Sendable (Result<TransferResult, TransferError>) -> Void
}

/// Commands for the transfer thread, and the means to wake it. Safe from any thread.
final class Mailbox: Sendable {
    private struct State {
        var commands: [TransferCommand] = []
        var isStopping = false
        /// False once the thread has taken its last commands and frees the multi handle.
        var isOpen = true
        var stopWaiters: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())
    /// Unsafe only in name: other threads call nothing but curl_multi_wakeup(3), which is documented as thread-safe,
    /// and only under the lock while `isOpen` says that the handle lives.
    nonisolated(unsafe) let multi: UnsafeMutableRawPointer

    init(multi: UnsafeMutableRawPointer) { self.multi = multi }

    /// Hands a command over; false when the thread has ended.
    func post(_ command: TransferCommand) -> Bool {
        state.withLock { state in
            guard state.isOpen, !state.isStopping else { return false }
            state.commands.append(command)
            // One wake-up is enough for any number of commands taken together.
            if state.commands.count == 1 { curl_multi_wakeup(multi) }
            return true
        }
    }

    /// Asks the thread to end.
    func stop() {
        state.withLock { state in
            guard state.isOpen, !state.isStopping else { return }
            state.isStopping = true
            curl_multi_wakeup(multi)
        }
    }

    /// Waits until the thread has ended and every exchange is answered.
    func stopped() async {
        await withCheckedContinuation { (waiter: CheckedContinuation<Void, Never>) in
            let isDone = state.withLock { state in
                if state.isOpen { state.stopWaiters.append(waiter) }
                return !state.isOpen
            }
            if isDone { waiter.resume() }
        }
    }

    /// Takes all commands. Transfer thread only.
    func take() -> (commands: [TransferCommand], isStopping: Bool) {
        state.withLock { state in
            defer { state.commands = [] }
            return (state.commands, state.isStopping)
        }
    }

    /// Closes the mailbox: from here on `post` says false and the multi handle may be freed. Transfer thread only.
    func close() {
        let waiters = state.withLock { state in
            state.isOpen = false
            defer { state.stopWaiters = [] }
            return state.stopWaiters
        }
        for waiter in waiters { waiter.resume() }
    }
}

/// Nanoseconds on CLOCK_MONOTONIC.
func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
