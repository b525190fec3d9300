import Glibc
import LinuxSystem

/// A program that chunkctl runs for its user, with standard input, output and error of chunkctl's own.
final class ChildProcess: Sendable {
    private let pid: pid_t
    /// Its exit status once it has ended: from then on the number may be another process's.
    private let status = Monitor<Int32?>(nil)

    /// How long it has after SIGTERM.
    private static let patience = Duration.seconds(10)

    private init(pid: pid_t) { self.pid = pid }

    /// Starts a program, found as a shell finds it.
    static func start(_ arguments: [String]) throws -> ChildProcess {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // What chunkctl ignores or handles itself is not the program's business.
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGINT, SIGTERM, SIGPIPE] { sigaddset(&signals, number) }
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF))
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var pid: pid_t = 0
        let code = posix_spawnp(&pid, arguments[0], nil, &attributes, &words, environ)
        guard code == 0 else {
            throw ToolError("system", "cannot run \(arguments[0]): \(String(cString: strerror(code)))")
        }
        let child = ChildProcess(pid: pid)
        try Thread.start("child") { child.reap() }
        return child
    }

    private func reap() {
        var info = siginfo_t()
        // Not reaped yet, so that its number stays its own until the lock is held.
        while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) < 0, errno == EINTR {}
        status.update { status in
            var raw: Int32 = 0
            while waitpid(pid, &raw, 0) < 0, errno == EINTR {}
            // As shells have it: 128 and the signal's number.
            status = raw & 0x7F == 0 ? raw >> 8 & 0xFF : 128 + raw & 0x7F
        }
    }

    /// Its exit status, 128 and more for a signal, once it has ended. When the task is cancelled it is ended.
    func wait() async -> Int32 {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let status = status
                // A thread, since it may take long. Without one nobody can wait: the recording goes on until interrupted.
                do throws(SystemError) {
                    try Thread.start("wait") { continuation.resume(returning: status.wait { $0 } ?? 0) }
                } catch { continuation.resume(returning: 127) }
            }
        } onCancel: {
            end()
        }
    }

    /// SIGTERM, and SIGKILL when that is not enough.
    private func end() {
        send(SIGTERM)
        Task {
            // Cancelled or not, what follows is harmless once it has ended.
            try? await Task.sleep(for: Self.patience)
            send(SIGKILL)
        }
    }

    private func send(_ number: Int32) { status.withLock { if $0 == nil { kill(pid, number) } } }
}
