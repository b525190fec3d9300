import Glibc

/// Runs other programs to their end. Blocks the calling thread.
package enum Program {
    /// Where system programs are, beside PATH: a user's PATH often lacks the sbin directories.
    package static let directories = [
        "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin",
    ]
    /// Bytes of a program's output that are kept: its end, where the reason stands.
    package static let maxOutput = 4096

    /// How a program ended.
    package struct Outcome: Sendable {
        /// As waitpid(2) gives it; 0 is success.
        package let status: Int32
        /// The end of both its streams in one line, made safe for a terminal.
        package let output: String

        /// `ended with status 1` or `was ended by signal 9`.
        package var how: String {
            status & 0x7F == 0 ? "ended with status \(status >> 8 & 0xFF)" : "was ended by signal \(status & 0x7F)"
        }
    }

    /// The program's path, or nil when it is not installed.
    package static func find(_ name: String) -> String? {
        let own = getenv("PATH").map { String(cString: $0) } ?? ""
        return (own.split(separator: ":").map(String.init) + directories).lazy.map { $0 + "/" + name }
            .first { access($0, X_OK) == 0 }
    }

    /// Starts `path` with `arguments` (without its own name) in a small, fixed environment and waits for its end. There
    /// is no deadline: `started` is told the process id, which stays the program's until `ended` returns, so that
    /// somebody else may kill it.
    package static func run(
        _ path: String, _ arguments: [String], started: (pid_t) -> Void = { _ in }, ended: (pid_t) -> Void = { _ in }
    ) throws(SystemError) -> Outcome {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        let output = try File.memory(name: name)
        let child = try spawn(path, [name] + arguments, output)
        started(child)
        var info = siginfo_t()
        // WNOWAIT: the number stays the child's until `ended` has heard of it.
        while waitid(P_PID, id_t(child), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
        ended(child)
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        return Outcome(status: status, output: shown(output))
    }

    private static func spawn(_ path: String, _ words: [String], _ output: File) throws(SystemError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        // Both streams into one memory file: a pipe that nobody reads would block the program.
        posix_spawn_file_actions_adddup2(&actions, output.descriptor, 1)
        posix_spawn_file_actions_adddup2(&actions, output.descriptor, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // Signals that this program blocks or ignores mean what they usually do to the child.
        var all = sigset_t()
        sigfillset(&all)
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))
        // A small environment: SOURCE_DATE_EPOCH or a locale must not change what is made.
        let environment = ["LC_ALL=C", "TZ=UTC", "HOME=/", "PATH=" + directories.joined(separator: ":")]
        let arguments = words.map { strdup($0) } + [nil]
        let variables = environment.map { strdup($0) } + [nil]
        defer { for pointer in arguments + variables { free(pointer) } }
        var child = pid_t()
        let code = posix_spawn(&child, path, &actions, &attributes, arguments, variables)
        guard code == 0 else { throw SystemError(code, "posix_spawn", path) }
        return child
    }

    private static func shown(_ output: File) -> String {
        guard let size = try? output.size() else { return "" }
        let count = min(Int(size), maxOutput)
        guard let bytes = try? output.bytes(at: size - UInt64(count), count: count) else { return "" }
        let text = bytes.map { $0 == 10 || (32...126).contains($0) ? $0 : UInt8(ascii: " ") }
        return String(decoding: text, as: UTF8.self).split(separator: "\n")
            .map { $0.split(separator: " ").joined(separator: " ") }.filter { !$0.isEmpty }.joined(separator: "; ")
    }
}
