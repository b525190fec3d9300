import FoundationEssentials
import Glibc
import OCISpec

/// Runs `docker-credential-NAME get` (github.com/docker/docker-credential-helpers, "Development"): the registry on its
/// standard input, JSON on its standard output.
enum CredentialHelper {
    static let maxOutput = 65_536

    private struct Answer: Decodable {
        let username: String
        let secret: String

        private enum CodingKeys: String, CodingKey {
            case username = "Username"
            case secret = "Secret"
        }
    }

    /// The credential, or nil when the helper has none. The program is looked for in `directory`, or in PATH. Blocks up
    /// to `timeout`, then the helper is killed.
    static func get(
        _ name: String, registry: String, directory: String?, timeout: Duration
    ) throws(RegistryError) -> RegistryCredential? {
        let isName =
            (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy { unit in
                (48...57).contains(unit) || (65...90).contains(unit) || (97...122).contains(unit)
                    || "._-".utf8.contains(unit)
            }
        guard isName else {
            throw RegistryError(.credentials, "credential helper name \(OCISpecError.quote(name)) is not a plain name")
        }
        let program = (directory.map { $0 + "/" } ?? "") + "docker-credential-" + name
        let (status, output) = try run(program, input: Array(registry.utf8), timeout: timeout)
        guard status == 0 else {
            // The text is the helpers' documented way to say "none" (credentials/error.go).
            let text = String(decoding: output.prefix(200), as: UTF8.self)
            if text.contains("credentials not found") { return nil }
            throw RegistryError(.credentials, "\(program) failed for \(registry): \(OCISpecError.quote(text))")
        }
        guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(output)) else {
            throw RegistryError(.credentials, "\(program) did not answer with Username and Secret")
        }
        if answer.secret.isEmpty { return nil }
        return answer.username == "<token>"
            ? .identityToken(answer.secret) : .password(username: answer.username, password: answer.secret)
    }

    private static func run(
        _ program: String, input: [UInt8], timeout: Duration
    ) throws(RegistryError) -> (status: Int32, output: [UInt8]) {
        // A socket pair for each stream: unlike pipes they are made close-on-exec in one step.
        guard let standardInput = Pair(), let standardOutput = Pair() else {
            throw RegistryError(.credentials, "no descriptors for \(program): errno \(errno)")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, standardInput.theirs, 0)
        posix_spawn_file_actions_adddup2(&actions, standardOutput.theirs, 1)
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(program), strdup("get"), nil]
        defer { for argument in arguments { free(argument) } }
        var child: pid_t = 0
        let code = posix_spawnp(&child, program, &actions, nil, &arguments, environ)
        guard code == 0 else { throw RegistryError(.credentials, "cannot run \(program): errno \(code)") }
        standardInput.closeTheirs()
        standardOutput.closeTheirs()
        // The registry's name fits any socket buffer, so this does not block; MSG_NOSIGNAL when it has ended already.
        _ = input.withUnsafeBytes { send(standardInput.ours, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        shutdown(standardInput.ours, Int32(SHUT_WR))
        let output = collect(standardOutput.ours, timeout: timeout)
        if output == nil { kill(child, SIGKILL) }
        var status: Int32 = 0
        // Ends at once or soon: its output has ended, or it was killed. One that closes its output and stays is killed.
        if !reap(child, &status, within: .seconds(2)) {
            kill(child, SIGKILL)
            while waitpid(child, &status, 0) < 0 && errno == EINTR {}
        }
        guard let output else {
            throw RegistryError(
                .credentials, "\(program) took longer than \(timeout) or wrote more than \(maxOutput) bytes")
        }
        return (status, output)
    }

    private static func reap(_ child: pid_t, _ status: inout Int32, within limit: Duration) -> Bool {
        let end = ContinuousClock.now + limit
        while ContinuousClock.now < end {
            if waitpid(child, &status, WNOHANG) != 0 { return true }
            usleep(2_000)
        }
        return false
    }

    /// Everything up to the end of the stream; nil on time-out, error or too much.
    private static func collect(_ descriptor: Int32, timeout: Duration) -> [UInt8]? {
        let end = ContinuousClock.now + timeout
        var out: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let (seconds, attoseconds) = (end - ContinuousClock.now).components
            let left = seconds >= 1_000_000 ? 1_000_000_000 : seconds * 1000 + attoseconds / 1_000_000_000_000_000
            guard left > 0 else { return nil }
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, Int32(left)) > 0 else { continue }
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0, out.count + count <= maxOutput else { return nil }
            if count == 0 { return out }
            out += buffer[..<count]
        }
    }

    /// A connected pair of sockets, closed when the value is released.
    private final class Pair {
        let ours: Int32
        private(set) var theirs: Int32

        init?() {
            var both: [Int32] = [-1, -1]
            let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            guard socketpair(AF_UNIX, kind, 0, &both) == 0 else { return nil }
            (ours, theirs) = (both[0], both[1])
        }

        func closeTheirs() {
            close(theirs)
            theirs = -1
        }

        deinit {
            close(ours)
            if theirs >= 0 { close(theirs) }
        }
    }
}
