import CCurl
import Glibc
import Synchronization

/// An HTTP/1.1 client: one thread, one libcurl multi handle, idle connections used again.
///
/// Safe from any thread. Redirects are never followed, cookies, netrc and environment proxies never used. Ends its
/// thread when it is released; `shutDown()` waits for that.
package final class TransferClient: Sendable {
    private let mailbox: Mailbox
    private let nextID = Atomic<UInt64>(1)

    /// Starts the transfer thread. Traps when libcurl or a thread cannot be had at all (no memory).
    package init(limits: TransferLimits = TransferLimits()) {
        guard Self.globalInit == CURLE_OK, let multi = curl_multi_init() else { fatalError("libcurl cannot start") }
        mailbox = Mailbox(multi: multi)
        startTransferThread(mailbox: mailbox, limits: limits)
    }

    deinit { mailbox.stop() }

    /// curl_global_init(3), once a process: a static is initialised exactly once, whatever thread comes first.
    private static let globalInit = curl_global_init(Int(CURL_GLOBAL_DEFAULT))

    /// Fails what is waiting or running with `shutDown` and returns when the thread has ended.
    package func shutDown() async {
        mailbox.stop()
        await mailbox.stopped()
    }

    /// A handle to resume or cancel an exchange from elsewhere; pass it to `perform`.
    package func makeControl() -> TransferControl {
        TransferControl(id: nextID.wrappingAdd(1, ordering: .relaxed).oldValue, mailbox: mailbox)
    }

    /// Performs one exchange. Cancelling the task ends it with `cancelled`. A control may serve several exchanges one
    /// after the other, not two at once.
    package func perform(
        _ request: TransferRequest, control: TransferControl? = nil, sink: TransferSink
    ) async throws(TransferError) -> TransferResult {
        let control = control ?? makeControl()
        let result: Result<TransferResult, TransferError> = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let submission = Submission(
                    id: control.id, request: request, sink: sink, submitted: monotonicNanoseconds(),
                    complete: { continuation.resume(returning: $0) })
                if !mailbox.post(.submit(submission)) {
                    continuation.resume(returning: .failure(TransferError(.shutDown, "HTTP client is shut down")))
                    return
                }
                // The handler below may have run before the submission was posted; then this one counts.
                if Task.isCancelled { control.cancel() }
            }
        } onCancel: {
            control.cancel()
        }
        return try result.get()
    }
}

/// Resumes or cancels one exchange. Safe from any thread.
package struct TransferControl: Sendable {
    let id: UInt64
    let mailbox: Mailbox

    /// Offers the piece again that a sink paused on; does nothing when the exchange is not paused or has ended.
    package func resume() { _ = mailbox.post(.resume(id)) }
    /// Ends the exchange with `cancelled`; does nothing when it has ended.
    package func cancel() { _ = mailbox.post(.cancel(id)) }
}
