import Glibc
internal import LinuxSystem

/// Runs the programs that building rests on. Blocks the calling thread: only from `onThread`.
enum Tool {
    /// Bytes of a program's output that an error shows: its end, where the reason stands.
    static let maxShownOutput = 4096
    /// Where system programs are, beside PATH: a user's PATH often lacks the sbin directories.
    private static let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

    /// Runs a program to its end; its output is shown when it fails. There is no deadline (a tree may be large), but
    /// cancelling ends it.
    ///
    /// - Parameter package: the Debian package that has it, for the error.
    static func run(
        _ name: String, _ arguments: [String], package: String, _ cancellation: Cancellation
    ) throws(ImageBuildError) {
        try cancellation.check()
        let path = try find(name, package)
        let output: File
        let child: pid_t
        do throws(SystemError) {
            output = try File.memory(name: name)
            child = try spawn(path, [name] + arguments, output)
        } catch { throw ImageBuildError(.tool, "cannot start \(path)", cause: error) }
        cancellation.add(child)
        let status = wait(child, cancellation)
        try cancellation.check()
        guard status == 0 else {
            let how =
                status & 0x7F == 0 ? "ended with status \(status >> 8 & 0xFF)" : "was ended by signal \(status & 0x7F)"
            throw ImageBuildError(.tool, "\(name) \(how): \(shown(output))")
        }
    }

    private static func find(_ name: String, _ package: String) throws(ImageBuildError) -> String {
        let own = getenv("PATH").map { String(cString: $0) } ?? ""
        for directory in own.split(separator: ":").map(String.init) + directories {
            let path = directory + "/" + name
            if access(path, X_OK) == 0 { return path }
        }
        throw ImageBuildError(.tool, "\(name) is not installed; it is in the Debian package \(package)")
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
        // A small environment: SOURCE_DATE_EPOCH or a locale must not change what is built.
        let environment = ["LC_ALL=C", "TZ=UTC", "HOME=/", "PATH=" + directories.joined(separator: ":")]
        let arguments = words.map { strdup($0) } + [nil]
        let variables = environment.map { strdup($0) } + [nil]
        defer { for pointer in arguments + variables { free(pointer) } }
        var child = pid_t()
        let code = posix_spawn(&child, path, &actions, &attributes, arguments, variables)
        guard code == 0 else { throw SystemError(code, "posix_spawn", path) }
        return child
    }

    /// Waits for the end; the status as waitpid(2) gives it.
    private static func wait(_ child: pid_t, _ cancellation: Cancellation) -> Int32 {
        var info = siginfo_t()
        // WNOWAIT: the number stays the child's until the cancellation has forgotten it.
        while waitid(P_PID, id_t(child), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
        cancellation.remove(child)
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        return status
    }

    /// The end of what the program printed, made safe for a terminal.
    private static func shown(_ output: File) -> String {
        guard let size = try? output.size() else { return "" }
        let count = min(Int(size), maxShownOutput)
        var bytes = [UInt8](repeating: 0, count: count)
        let read = bytes.withUnsafeMutableBytes { (try? output.readAll(into: $0, at: size - UInt64(count))) ?? 0 }
        let text = bytes[..<read].map {
            $0 == 10 ? UInt8(ascii: "\n") : (32...126).contains($0) ? $0 : UInt8(ascii: " ")
        }
        let lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
            .map { $0.split(separator: " ").joined(separator: " ") }.filter { !$0.isEmpty }
        return lines.joined(separator: "; ")
    }
}
