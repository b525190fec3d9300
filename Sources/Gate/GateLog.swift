import Glibc
import LinuxSystem

/// Log lines to standard error from a thread of their own: a blocked sink delays nobody, and what does not fit the
/// queue is counted and said.
package final class GateLog: Sendable {
    /// How much a line matters.
    package enum Level: String, Sendable { case info, warning, error }

    private struct Queue {
        var lines: [String] = []
        var dropped = 0
        var stopping = false
        var writing = false
    }

    /// Lines that wait: 1,024 × about 200 bytes.
    private static let capacity = 1024
    private let queue = Monitor(Queue())
    private let format: GateOptions.LogFormat

    package init(_ format: GateOptions.LogFormat?) throws(SystemError) {
        self.format = format ?? (isatty(STDERR_FILENO) == 1 ? .text : .json)
        try Thread.start("log") { [self] in drain() }
    }

    /// Queues a line. `fields` come out in the order given.
    package func log(_ level: Level, _ message: String, _ fields: KeyValuePairs<String, String> = [:]) {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        let line = render(time, level, message, fields)
        queue.update { queue in
            if queue.lines.count < Self.capacity { queue.lines.append(line) } else { queue.dropped += 1 }
        }
    }

    /// Waits, at most a second, until all that was logged is written.
    package func flush() {
        let deadline = Monotonic.now.adding(milliseconds: 1000)
        _ = queue.wait(until: deadline) { $0.lines.isEmpty && !$0.writing ? true : nil }
    }

    private func drain() {
        while true {
            let lines: [String] =
                queue.wait { queue in
                    guard !queue.lines.isEmpty else { return nil }
                    var lines = queue.lines
                    if queue.dropped > 0 { lines.append("chunkgate: \(queue.dropped) log lines dropped\n") }
                    queue.lines = []
                    queue.dropped = 0
                    queue.writing = true
                    return lines
                } ?? []
            for line in lines {
                // Nothing can be done about a broken standard error: there is nowhere to say it.
                _ = line.utf8.withContiguousStorageIfAvailable { write(STDERR_FILENO, $0.baseAddress, $0.count) }
            }
            queue.update { $0.writing = false }
        }
    }

    private func render(
        _ time: timespec, _ level: Level, _ message: String, _ fields: KeyValuePairs<String, String>
    ) -> String {
        let stamp = Self.timestamp(time)
        switch format {
        case .text:
            let rest = fields.map { " \($0.key)=\($0.value.contains(" ") ? Self.quoted($0.value) : $0.value)" }.joined()
            return "\(stamp) \(level.rawValue.uppercased()) chunkgate: \(message)\(rest)\n"
        case .json:
            let rest = fields.map { ",\(Self.quoted($0.key)):\(Self.quoted($0.value))" }.joined()
            return "{\"time\":\"\(stamp)\",\"level\":\"\(level.rawValue)\",\"component\":\"chunkgate\","
                + "\"message\":\(Self.quoted(message))\(rest)}\n"
        }
    }

    /// RFC 3339 in UTC with milliseconds.
    private static func timestamp(_ time: timespec) -> String {
        var seconds = time.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let milliseconds = time.tv_nsec / 1_000_000
        let fraction = String(1000 + milliseconds).dropFirst()
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T"
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)).\(fraction)Z"
    }

    /// A JSON string (RFC 8259, section 7).
    private static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
