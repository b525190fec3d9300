import Glibc
import LinuxSystem
import Logging
import Synchronization

/// swift-log for our programs: lines go to a `LogSink`, the level can change while running.
///
/// Thread-safe. One per process; `bootstrap` installs it.
package final class Log: Sendable {
    private let sink: LogSink
    private let format: LogLineFormat
    private let level: Mutex<Logger.Level>
    private let now: @Sendable () -> Int64

    /// - Parameter format: nil chooses text when `descriptor` is a terminal, JSON otherwise.
    /// - Parameter now: nanoseconds since 1970.
    package init(
        descriptor: Int32 = STDERR_FILENO, format: LogLineFormat? = nil, level: Logger.Level = .info,
        capacity: Int = LogSink.maxLines, now: @escaping @Sendable () -> Int64 = Log.wallClock
    ) throws(SystemError) {
        let chosen = format ?? (isatty(descriptor) == 1 ? .text : .json)
        self.format = chosen
        self.level = Mutex(level)
        self.now = now
        sink = try LogSink(descriptor: descriptor, capacity: capacity) { count in
            LogLine(
                unixNanoseconds: now(), level: .warning, logger: "log", message: "log lines dropped",
                metadata: [("count", String(count))]
            ).formatted(chosen)
        }
    }

    /// Makes every `Logger` made from now on write here. Once a process.
    package func bootstrap() { LoggingSystem.bootstrap { label in self.handler(label) } }

    /// A logger that writes here, without `bootstrap`.
    package func logger(_ label: String) -> Logger { Logger(label: label) { _ in self.handler(label) } }

    /// Changes the least level that is written, for all loggers without one of their own.
    package func set(level new: Logger.Level) { level.withLock { $0 = new } }

    /// Lines dropped because standard error was too slow: `chunkd_log_dropped_total`.
    package var dropped: UInt64 { sink.dropped }

    /// Waits for queued lines, at most `milliseconds`.
    @discardableResult
    package func flush(milliseconds: Int = 1000) -> Bool { sink.flush(milliseconds: milliseconds) }

    /// Ends the writing thread after what is queued.
    package func stop() { sink.stop() }

    /// CLOCK_REALTIME in nanoseconds since 1970.
    package static let wallClock: @Sendable () -> Int64 = {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }

    private func handler(_ label: String) -> Handler { Handler(log: self, label: label) }

    fileprivate func write(_ event: LogEvent, label: String, metadata: Logger.Metadata) {
        let merged = event.metadata.map { metadata.merging($0) { _, new in new } } ?? metadata
        let line = LogLine(
            unixNanoseconds: now(), level: event.level, logger: label, message: "\(event.message)",
            metadata: merged.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") })
        sink.write(line.formatted(format))
    }

    private struct Handler: LogHandler {
        let log: Log
        let label: String
        var metadata: Logger.Metadata = [:]
        var metadataProvider: Logger.MetadataProvider?
        private var ownLevel: Logger.Level?

        init(log: Log, label: String) {
            self.log = log
            self.label = label
        }

        var logLevel: Logger.Level {
            get { ownLevel ?? log.level.withLock { $0 } }
            set { ownLevel = newValue }
        }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) { log.write(event, label: label, metadata: metadata) }
    }
}
