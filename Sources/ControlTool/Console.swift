import ArgumentParser
import ControlAPI
import Glibc
import Synchronization

/// How results are printed.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
    case table, json
}

/// Standard output and error of a command. Progress and hints go to standard error, results to standard output.
enum Console {
    /// Prints a result: JSON as documented, or the table `text` makes of it.
    static func show(_ value: some Encodable, as format: OutputFormat, text: () -> String) throws {
        switch format {
        case .json: write(String(decoding: try ControlJSON.encode(value, pretty: true), as: UTF8.self))
        case .table: write(text())
        }
    }

    /// Shows an answer or, `again`, one every two seconds until the command is interrupted.
    @discardableResult
    static func show<Reply: Encodable>(
        again: Bool, as format: OutputFormat, _ ask: () async throws -> Reply, text: (Reply) -> String
    ) async throws -> Reply {
        while true {
            let reply = try await ask()
            if again, format == .table { clear() }
            try show(reply, as: format) { text(reply) }
            guard again else { return reply }
            try await Task.sleep(for: .seconds(2))
        }
    }

    static func write(_ text: String) { put(text + "\n", to: STDOUT_FILENO) }
    static func note(_ text: String) { put(text + "\n", to: STDERR_FILENO) }

    /// Starts over at the top of a terminal's screen: CSI H, CSI J.
    static func clear() {
        if isTerminal(STDOUT_FILENO) { put("\u{1B}[H\u{1B}[J", to: STDOUT_FILENO) }
    }

    static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// A closed pipe (`chunkctl … | head`) ends quietly: nobody is left to tell.
    static func put(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var done = 0
            while done < bytes.count, let base = bytes.baseAddress {
                let count = Glibc.write(descriptor, base + done, bytes.count - done)
                if count < 0, errno == EINTR { continue }
                if count <= 0 { return }
                done += count
            }
        }
    }
}

/// Shows how far something is: one line drawn over on a terminal, a plain line every few seconds elsewhere.
final class ProgressLine: Sendable {
    private struct State {
        var last: ContinuousClock.Instant?
        var drawn = false
    }

    private let state = Mutex(State())
    private let terminal = Console.isTerminal(STDERR_FILENO)
    private let enabled: Bool

    /// With `-o json` nothing is shown off a terminal: programs read the result.
    init(_ format: OutputFormat) { enabled = format == .table || Console.isTerminal(STDERR_FILENO) }

    func show(_ text: String) {
        guard enabled else { return }
        let interval: Duration = terminal ? .milliseconds(100) : .seconds(5)
        let now = ContinuousClock.now
        state.withLock { state in
            if let last = state.last, now - last < interval { return }
            state.last = now
            state.drawn = terminal
            // CSI K: the rest of a longer line before.
            Console.put(terminal ? "\r\(text)\u{1B}[K" : text + "\n", to: STDERR_FILENO)
        }
    }

    /// Leaves the drawn line behind.
    func end() {
        state.withLock { state in
            if state.drawn { Console.put("\r\u{1B}[K", to: STDERR_FILENO) }
            state.drawn = false
        }
    }
}

extension ProgressReport {
    /// `fetch 35% 358 MiB of 1 GiB`.
    var line: String {
        "\(phase) \(Table.percent(doneChunks, of: totalChunks)) \(Table.bytes(doneBytes)) of \(Table.bytes(totalBytes))"
    }
}
