import LinuxSystem

/// A file system on which no write can begin (fsfreeze(8)): from `init` until `thaw`, or until the last owner goes.
///
/// A program of its own thaws it after a minute, so that a test that dies leaves no machine where writers hang.
package final class Freeze: Sendable {
    private let path: String
    private let scratch: ScratchDirectory
    private let command: ProcessFixture
    private let watchdog: ProcessFixture
    /// Ends when it can: no signal reaches a write that waits for the thaw.
    private let probes = Monitor<[ProcessFixture]>([])

    /// Begins to freeze what is mounted at `path`. A write that has begun keeps it from ending.
    package init(_ path: String) throws {
        self.path = path
        scratch = try ScratchDirectory("freeze")
        let script = "import os, time; time.sleep(60); os.execvp('fsfreeze', ['fsfreeze', '-u', '\(path)'])"
        watchdog = try ProcessFixture(["python3", "-c", script], logFile: scratch.appending("watchdog.log"))
        command = try ProcessFixture(["fsfreeze", "-f", path], logFile: scratch.appending("log"))
    }

    deinit { thaw() }

    /// Whether it is frozen; throws when it cannot be.
    package func isComplete() throws -> Bool {
        guard let status = command.wait(atMost: .zero) else { return false }
        guard status == 0 else { throw FixtureError("fsfreeze \(path): \(command.log)") }
        return true
    }

    /// Whether a new write waits: before the freeze is complete, when it waits itself for writes that have begun.
    package func holdsWrites() throws -> Bool {
        let probe = try ProcessFixture(["touch", path + "/probe"], logFile: scratch.appending("probe.log"))
        let isHeld = probe.wait(atMost: .milliseconds(300)) == nil
        probes.update { $0.append(probe) }
        return isHeld
    }

    /// Lets writes go on. Nothing happens when it is not frozen.
    package func thaw() {
        _ = try? Command("fsfreeze", ["-u", path]).run()
        watchdog.stop()
    }
}
