import Glibc
import LinuxSystem
import TestSupport

/// What /proc says of a process (proc(5)).
struct ProcessStatus {
    let pid: pid_t
    private let fields: [String: String]

    /// nil when there is no such process.
    init?(_ pid: pid_t) {
        guard pid > 0, let bytes = try? readProcFile("/proc/\(pid)/status") else { return nil }
        self.pid = pid
        var fields: [String: String] = [:]
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { continue }
            fields[String(parts[0])] = parts[1].split { $0 == "\t" || $0 == " " }.joined(separator: " ")
        }
        self.fields = fields
    }

    /// A field's text, empty when absent: `CapEff` → `0000000000000000`.
    subscript(_ name: String) -> String { fields[name] ?? "" }

    var children: [pid_t] {
        guard let bytes = try? readProcFile("/proc/\(pid)/task/\(pid)/children") else { return [] }
        return String(decoding: bytes, as: UTF8.self).split(separator: " ").compactMap { pid_t($0) }
    }

    /// Inodes of its open sockets.
    func socketInodes() throws -> Set<String> {
        var found: Set<String> = []
        let directory = BytePath("/proc/\(pid)/fd")
        for name in try directory.entries() {
            guard let target = try? directory.appending(name).readLink() else { continue }
            let text = String(decoding: target, as: UTF8.self)
            if text.hasPrefix("socket:[") { found.insert(String(text.dropFirst(8).dropLast())) }
        }
        return found
    }

    /// Of its sockets, those listed in one of /proc/PID/net's tables; the inode is a word of each line.
    func sockets(inTable name: String) throws -> [String] {
        let inodes = try socketInodes()
        guard access("/proc/\(pid)/net/\(name)", F_OK) == 0 else { return [] }
        return String(decoding: try readProcFile("/proc/\(pid)/net/\(name)"), as: UTF8.self).split(separator: "\n")
            .filter { line in line.split(separator: " ").contains { inodes.contains(String($0)) } }.map(String.init)
    }
}
