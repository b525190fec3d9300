import FoundationEssentials
import Glibc
import LinuxSystem
import Synchronization

/// What a fixture could not do. Tests fail with its text.
package struct FixtureError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// A directory under `$TMPDIR` or /tmp that is removed with everything in it when the value is released.
package final class TemporaryDirectory: Sendable {
    package let path: String

    package init(prefix: String = "chunkd-test") throws {
        let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(base)/\(prefix)-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp in \(base): errno \(errno)") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Writes a file below the directory, making directories on the way; its path.
    @discardableResult
    package func write(_ name: String, _ bytes: some Sequence<UInt8>, mode: mode_t = 0o644) throws -> String {
        let file = path + "/" + name
        for index in file.indices where file[index] == "/" && index > file.startIndex {
            mkdir(String(file[..<index]), 0o755)
        }
        let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw FixtureError("open \(file): errno \(errno)") }
        defer { close(descriptor) }
        let content = Array(bytes)
        guard Glibc.write(descriptor, content, content.count) == content.count else {
            throw FixtureError("write \(file): errno \(errno)")
        }
        return file
    }

    @discardableResult
    package func write(_ name: String, _ text: String, mode: mode_t = 0o644) throws -> String {
        try write(name, text.utf8, mode: mode)
    }

    /// The whole of a file as text, empty when it cannot be read.
    package static func text(of file: String) -> String {
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var out: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { return String(decoding: out, as: UTF8.self) }
            out += buffer[..<count]
        }
    }
}

/// A child process, ended by its pid when the value is released.
package final class ProcessFixture: Sendable {
    package let pid: pid_t
    /// Where its standard output and standard error go.
    package let logFile: String
    private let exitStatus = Mutex<Int32?>(nil)

    /// Starts a program, found in PATH, with its output in `logFile`.
    package init(
        _ command: [String], environment: [String: String] = [:], directory: String = "/", logFile: String
    ) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, logFile, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        // Sockets of the test must not live on in the child. Closing what is not open is no error here.
        for descriptor in Int32(3)..<256 { posix_spawn_file_actions_addclose(&actions, descriptor) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // A test thread may have signals blocked; the child must not inherit that, or SIGTERM would be lost.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))

        var merged = ["PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"]
        merged.merge(environment) { $1 }
        let command = ["env", "-C", directory] + command
        var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = merged.map { strdup("\($0)=\($1)") } + [nil]
        defer { for pointer in arguments + variables { free(pointer) } }
        var child: pid_t = 0
        let code = posix_spawnp(&child, command[0], &actions, &attributes, &arguments, &variables)
        guard code == 0 else { throw FixtureError("cannot start \(command): errno \(code)") }
        pid = child
        self.logFile = logFile
    }

    deinit { stop() }

    /// The exit status as waitpid(2) gives it, or nil while it runs.
    package func poll() -> Int32? {
        exitStatus.withLock { status in
            if status == nil {
                var raw: Int32 = 0
                if waitpid(pid, &raw, WNOHANG) == pid { status = raw }
            }
            return status
        }
    }

    /// Waits for the end, at most so long; the exit code (128 + signal when it was killed), or nil when it still runs.
    package func wait(atMost limit: Duration) -> Int32? {
        var status: Int32?
        _ = Wait.until(limit) {
            status = poll()
            return status != nil
        }
        return status.map { $0 & 0x7F == 0 ? $0 >> 8 & 0xFF : 128 + ($0 & 0x7F) }
    }

    /// Whether any process is gone, or dead and not yet waited for by whoever inherited it.
    package static func hasEnded(_ pid: pid_t) -> Bool {
        guard let stat = try? readProcFile("/proc/\(pid)/stat") else { return true }
        // PID (NAME) STATE …; the first thread may have ended before the others, which still have files open.
        let isDead = String(decoding: stat, as: UTF8.self).split(separator: ")").last?.hasPrefix(" Z") ?? true
        return isDead && ((try? Directory.names("/proc/\(pid)/task"))?.count ?? 0) <= 1
    }

    /// SIGTERM, and SIGKILL when that has not ended it within two seconds. Does nothing when it has ended.
    package func stop() {
        guard poll() == nil else { return }
        kill(pid, SIGTERM)
        guard wait(atMost: .seconds(2)) == nil else { return }
        kill(pid, SIGKILL)
        _ = wait(atMost: .seconds(5))
    }

    package func signal(_ number: Int32) { if poll() == nil { kill(pid, number) } }

    package var log: String { TemporaryDirectory.text(of: logFile) }

    /// Waits until something accepts connections on 127.0.0.1:`port`; throws with the log when the process ends first.
    package func waitForPort(_ port: UInt16, atMost limit: Duration = .seconds(20)) throws {
        let isReady = Wait.until(limit) { poll() != nil || Ports.accepts(port) }
        guard isReady, poll() == nil else {
            throw FixtureError("process \(pid) does not listen on \(port): \(log.suffix(2000))")
        }
    }

    /// Runs a program to its end and returns its output (both streams); throws when it fails or takes too long.
    @discardableResult
    package static func run(
        _ command: [String], directory: String = "/", atMost limit: Duration = .seconds(60)
    ) throws -> String {
        let scratch = try TemporaryDirectory(prefix: "chunkd-run")
        let process = try ProcessFixture(command, directory: directory, logFile: scratch.path + "/out")
        let status = process.wait(atMost: limit)
        guard status == 0 else {
            let why = status.map { "exit \($0)" } ?? "still running after \(limit)"
            throw FixtureError("\(command.joined(separator: " ")): \(why): \(process.log.suffix(2000))")
        }
        return process.log
    }
}

/// TCP ports on 127.0.0.1.
package enum Ports {
    /// A port nobody listens on now. Somebody else may take it before you do: start again then.
    package static func free() throws -> UInt16 {
        for _ in 0..<range.count {
            let port = next.withLock { next in
                next = next == range.upperBound ? range.lowerBound : next + 1
                return next
            }
            if try isFree(port) { return port }
        }
        throw FixtureError("no free port in \(range)")
    }

    /// Below those that the kernel gives to outgoing connections (ip_local_port_range, 32768 and up): such a port would be
    /// somebody's now and then by the time that the server binds it.
    private static let range: ClosedRange<UInt16> = 20_000...32_000
    /// The last one given out. Another process of tests begins elsewhere.
    private static let next = Mutex(UInt16.random(in: range))

    private static func isFree(_ port: UInt16) throws -> Bool {
        try withSocket { descriptor in
            var address = loopback(port)
            return withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                }
            }
        }
    }

    /// Whether a connection to the port succeeds.
    package static func accepts(_ port: UInt16) -> Bool {
        let isOpen = try? withSocket { descriptor in
            var address = loopback(port)
            return withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                }
            }
        }
        return isOpen ?? false
    }

    private static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    private static func withSocket<T>(_ body: (Int32) throws -> T) throws -> T {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw FixtureError("socket: errno \(errno)") }
        defer { close(descriptor) }
        return try body(descriptor)
    }
}

/// Bounded waiting for a condition of the outside world that nothing announces.
package enum Wait {
    /// Asks every 10 ms; false when the condition did not come true in time.
    package static func until(_ limit: Duration, _ condition: () throws -> Bool) rethrows -> Bool {
        let clock = ContinuousClock()
        let end = clock.now + limit
        while true {
            if try condition() { return true }
            guard clock.now < end else { return false }
            usleep(10_000)
        }
    }

    /// The same for asynchronous tests, without holding a thread of the cooperative pool.
    package static func eventually(_ limit: Duration, _ condition: () async throws -> Bool) async rethrows -> Bool {
        let clock = ContinuousClock()
        let end = clock.now + limit
        while try await !condition() {
            guard clock.now < end, (try? await Task.sleep(for: .milliseconds(10))) != nil else { return false }
        }
        return true
    }
}
