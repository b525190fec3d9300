internal import ErofsFormat
import Glibc
internal import LinuxSystem
import Synchronization
internal import Zstandard

/// Says to a build's threads and to the programs it has started that nobody waits for the result any more.
final class Cancellation: Sendable {
    private struct State {
        var isCancelled = false
        /// Programs running now.
        var children: [pid_t] = []
    }

    private let state = Mutex(State())

    /// Ends every running program; threads stop at their next `check`.
    func cancel() {
        state.withLock { state in
            state.isCancelled = true
            // Under the lock, and a child leaves the list before it is reaped: the number cannot be somebody else's.
            for child in state.children { kill(child, SIGKILL) }
        }
    }

    var isCancelled: Bool { state.withLock { $0.isCancelled } }

    func check() throws(ImageBuildError) {
        if isCancelled { throw ImageBuildError(.cancelled, "cancelled") }
    }

    /// Keeps a program that has just been started.
    func add(_ child: pid_t) {
        state.withLock { state in
            state.children.append(child)
            if state.isCancelled { kill(child, SIGKILL) }
        }
    }

    /// Forgets a program that has ended and is not reaped yet.
    func remove(_ child: pid_t) {
        state.withLock { state in state.children.removeAll { $0 == child } }
    }
}

/// Runs blocking work on a thread of its own, never on the cooperative pool; cancelling the task cancels the work.
func onThread<Value: Sendable>(
    _ name: String, _ cancellation: Cancellation, _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
    try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation { continuation in
            do {
                // JSON of deep nesting is decoded on these threads: more stack than a loop needs.
                try Thread.start(name, stackSize: 2 << 20) { continuation.resume(with: Result { try body() }) }
            } catch { continuation.resume(throwing: error) }
        }
    } onCancel: {
        cancellation.cancel()
    }
}

/// Anything thrown inside the module as the module's error.
func asImageBuildError(_ error: any Error) -> ImageBuildError {
    switch error {
    case let error as ImageBuildError: error
    case is CancellationError: ImageBuildError(.cancelled, "cancelled")
    case let error as SystemError:
        ImageBuildError(
            .inputOutput,
            error.errno == ENOSPC ? "no space left; choose another place with --temp-dir" : "file access failed",
            cause: error)
    case let error as ErofsError: ImageBuildError(.invalidImage, "the bootstrap", cause: error)
    case let error as ZstandardError: ImageBuildError(.inputOutput, "compression failed", cause: error)
    default: ImageBuildError(.inputOutput, "failed", cause: error)
    }
}
