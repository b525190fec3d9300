import Dispatch
import Glibc

/// Interrupts from the terminal end long work in order: its temporary files go, the programs it started end.
enum Interrupts {
    private static let numbers = [SIGINT, SIGTERM]

    /// Waits for `task`, which SIGINT or SIGTERM cancels.
    static func cancelling<Value: Sendable>(_ task: Task<Value, any Error>) async throws -> Value {
        let sources = sources { task.cancel() }
        defer { for source in sources { source.cancel() } }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    /// Returns when SIGINT or SIGTERM has come, or the task is cancelled.
    static func first() async {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
        let sources = sources { continuation.yield() }
        defer { for source in sources { source.cancel() } }
        for await _ in stream { return }
    }

    private static func sources(_ body: @escaping @Sendable () -> Void) -> [any DispatchSourceSignal] {
        numbers.map { number in
            // The default action would end the process before the source could tell.
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler(handler: body)
            source.resume()
            return source
        }
    }
}
