import Glibc
import LinuxSystem
import Synchronization

/// Takes log lines without ever blocking and writes them from a thread of its own.
///
/// A full or stuck standard error costs lines, never a reader: lines that find the queue full are dropped and counted,
/// and the count is written as soon as there is room. Thread-safe.
package final class LogSink: Sendable {
    /// Lines waiting at once: 4,096 × about 250 bytes ≈ 1 MiB.
    package static let maxLines = 4096
    /// Longer lines are cut, so that the bound above holds for bytes too (4,096 × 8 KiB = 32 MiB at worst).
    package static let maxLineBytes = 8 << 10

    private struct State {
        var lines: [String] = []
        var dropped: UInt64 = 0
        var droppedInAll: UInt64 = 0
        var writing = false
        var stopped = false
    }

    private let state = Monitor(State())
    private let descriptor: Int32
    private let capacity: Int
    private let droppedLine: @Sendable (UInt64) -> String

    /// Starts the thread. `descriptor` stays the caller's. `droppedLine` formats the notice of dropped lines.
    package init(
        descriptor: Int32, capacity: Int = maxLines, droppedLine: @escaping @Sendable (UInt64) -> String
    ) throws(SystemError) {
        self.descriptor = descriptor
        self.capacity = capacity
        self.droppedLine = droppedLine
        try Thread.start("log") { [self] in drain() }
    }

    /// Queues a line (without its line feed).
    package func write(_ line: String) {
        let cut = line.utf8.count <= Self.maxLineBytes ? line : String(line.utf8.prefix(Self.maxLineBytes - 3)) ?? ""
        let text = cut == line ? line : cut + "…"
        state.update { state in
            guard !state.stopped, state.lines.count < capacity else {
                state.dropped += 1
                state.droppedInAll += 1
                return
            }
            state.lines.append(text)
        }
    }

    /// Lines dropped since the start.
    package var dropped: UInt64 { state.withLock { $0.droppedInAll } }

    /// Waits until everything queued has been written, at most `milliseconds`. For the way out of a program.
    @discardableResult
    package func flush(milliseconds: Int) -> Bool {
        state.wait(until: Monotonic.now.adding(milliseconds: milliseconds)) { state -> Bool? in
            state.lines.isEmpty && !state.writing && state.dropped == 0 ? true : nil
        } ?? false
    }

    /// Ends the thread once what is queued has been written; later lines are dropped.
    package func stop() { state.update { $0.stopped = true } }

    private func drain() {
        while true {
            let batch = state.wait { state -> (lines: [String], dropped: UInt64)? in
                guard !state.lines.isEmpty || state.dropped > 0 || state.stopped else { return nil }
                defer {
                    state.lines.removeAll(keepingCapacity: true)
                    state.dropped = 0
                }
                state.writing = true
                return (state.lines, state.dropped)
            }
            guard let batch, !batch.lines.isEmpty || batch.dropped > 0 else { return }
            var text = ""
            for line in batch.lines { text += line + "\n" }
            if batch.dropped > 0 { text += droppedLine(batch.dropped) + "\n" }
            writeAll(text)
            state.update { $0.writing = false }
        }
    }

    /// Errors end the attempt: there is nowhere to report them.
    private func writeAll(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            var done = 0
            while done < bytes.count {
                let count = Glibc.write(descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done)
                if count > 0 {
                    done += count
                } else if errno == EAGAIN {
                    var poll = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    _ = Glibc.poll(&poll, 1, -1)
                } else if errno != EINTR {
                    return
                }
            }
        }
    }
}
