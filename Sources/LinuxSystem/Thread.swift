import CLinux
import Glibc

/// A plain POSIX thread: chunkgate has no cooperative pool to block, chunkd must not block its own.
package struct Thread: Sendable {
    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    // pthread_t is an integer on Linux; it names the thread for join.
    private let handle: pthread_t

    /// Starts `body` on a new thread. `name` is cut at 15 bytes (pthread_setname_np(3)).
    @discardableResult
    package static func start(
        _ name: String, stackSize: Int = 256 << 10, _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) -> Thread {
        var handle = pthread_t()
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setstacksize(&attributes, stackSize)
        let start = Unmanaged.passRetained(Start(name: name, body: body))
        let code = pthread_create(&handle, &attributes, threadMain, start.toOpaque())
        if code != 0 {
            start.release()
            throw SystemError(code, "pthread_create", name)
        }
        return Thread(handle: handle)
    }

    /// Waits for the thread's end. Call once.
    package func join() { pthread_join(handle, nil) }

    // A global @convention(c)-compatible function: a closure written in an isolated scope would trap on this thread.
    private static let threadMain: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = { raw in
        guard let raw else { return nil }
        let start = Unmanaged<Start>.fromOpaque(raw).takeRetainedValue()
        _ = clinux_set_thread_name(String(start.name.prefix(15)))
        start.body()
        return nil
    }
}

/// A mutex with a condition over a value: the shell around a state machine that threads wait on.
package final class Monitor<Value>: @unchecked Sendable {
    // @unchecked: `value` is touched only between lock and unlock of `mutex`.
    private var value: Value
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    package init(_ value: sending Value) {
        self.value = value
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Runs `body` with the value locked.
    package func withLock<Result>(_ body: (inout Value) -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body(&value)
    }

    /// Runs `body` with the value locked, then wakes all waiters.
    package func update<Result>(_ body: (inout Value) -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer {
            pthread_cond_broadcast(condition)
            pthread_mutex_unlock(mutex)
        }
        return body(&value)
    }

    /// Waits until `body` returns a value, or until `deadline` (monotonic; nil waits without bound): then nil.
    package func wait<Result>(until deadline: Monotonic? = nil, _ body: (inout Value) -> Result?) -> Result? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&value) { return result }
            guard let deadline else {
                pthread_cond_wait(condition, mutex)
                continue
            }
            var time = timespec(
                tv_sec: Int(deadline.nanoseconds / 1_000_000_000), tv_nsec: Int(deadline.nanoseconds % 1_000_000_000))
            if pthread_cond_timedwait(condition, mutex, &time) == ETIMEDOUT { return body(&value) }
        }
    }
}

/// A point on CLOCK_MONOTONIC, in nanoseconds: deadlines never follow the wall clock.
package struct Monotonic: Comparable, Sendable {
    package let nanoseconds: UInt64

    package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    package static var now: Monotonic {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Monotonic(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    package static func < (a: Monotonic, b: Monotonic) -> Bool { a.nanoseconds < b.nanoseconds }

    /// This point plus `milliseconds`.
    package func adding(milliseconds: Int) -> Monotonic {
        Monotonic(nanoseconds: nanoseconds + UInt64(milliseconds) * 1_000_000)
    }

    /// Milliseconds from `earlier` to this; 0 when it is not earlier.
    package func milliseconds(since earlier: Monotonic) -> Int {
        earlier < self ? Int((nanoseconds - earlier.nanoseconds) / 1_000_000) : 0
    }
}
