import Glibc
import LinuxSystem
import OCISpec

/// What people know a process by, read from /proc: nil where this process may not look, or is in another pid namespace.
struct ProcessName: Equatable, Sendable {
    /// Name of its program, at most 15 bytes (proc_pid_comm(5)).
    var command: String?
    /// Id of its container.
    var container: String?

    /// Bytes of a cgroup file: paths are at most 4 KiB, and unified hierarchies have one line.
    private static let maxCgroup = 8 << 10

    /// Blocks for a moment.
    init(pid: UInt32) {
        command = Self.text("/proc/\(pid)/comm", limit: 64).map { String($0.prefix { !$0.isNewline }) }
        container = Self.text("/proc/\(pid)/cgroup", limit: Self.maxCgroup).flatMap(ContainerCgroup.container)
    }

    private static func text(_ path: String, limit: Int) -> String? {
        // A process that has gone meanwhile has no name.
        guard let bytes = try? File(path: path, flags: O_RDONLY).bytes(at: 0, count: limit) else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }
}
