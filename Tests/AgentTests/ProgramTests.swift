import ChunkModel
import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The program itself: exit statuses, and what it may do.
@Suite(.serialized, .timeLimit(.minutes(1))) struct ProgramTests {
    private func chunkd(_ arguments: String...) throws -> Command.Output {
        try Command(Programs.path("chunkd"), arguments).run()
    }

    @Test func itSaysWhatItIs() throws {
        let version = try chunkd("--version")
        #expect(version.status == 0 && version.text.hasPrefix("chunkd "))
        let help = try chunkd("--help")
        #expect(help.status == 0 && help.text.contains("--fetch-range-max") && help.text.contains("EXAMPLES"))
    }

    @Test func wrongSettingsAreStatus2WithTheirKey() throws {
        let unit = try chunkd("--fetch-range-max", "8")
        #expect(unit.status == 2 && unit.errors.contains("fetch.rangeMax"))
        let unknown = try chunkd("--no-such-setting", "1")
        #expect(unknown.status == 2 && unknown.errors.contains("--no-such-setting"))
        let file = try chunkd("--config", "/nowhere/chunkd.yaml")
        #expect(file.status == 2 && file.errors.contains("/nowhere/chunkd.yaml"))
    }

    /// A directory another user can reach, with a gate in it.
    private struct Place {
        let directory: TemporaryDirectory
        let gate: FakeGate
        var run: String { directory.path + "/run" }

        init(socketMode: mode_t = 0o666) throws {
            directory = try TemporaryDirectory(prefix: "chunkd-program")
            chmod(directory.path, 0o755)
            try Directory.create(directory.path + "/run", mode: 0o755)
            gate = try FakeGate(path: directory.path + "/run/gate.sock")
            chmod(directory.path + "/run/gate.sock", socketMode)
        }

        func start(_ name: String, user: String = "nobody") throws -> ProcessFixture {
            let state = "\(directory.path)/\(name)"
            // A control socket of its own, in a directory made by the program.
            return try ProcessFixture(
                [
                    Programs.path("chunkd"), "--user", user, "--state-dir", state, "--run-dir", "\(state)-run",
                    "--gate-socket", run + "/gate.sock", "--metrics-address", "off",
                ], logFile: "\(state).log")
        }
    }

    @Test(.enabled(if: geteuid() == 0, "needs root to give something up"))
    func startedAsRootItKeepsNothing() throws {
        let place = try Place()
        let process = try place.start("one")
        defer { process.stop() }
        try #require(Wait.until(.seconds(20)) { place.gate.isConnected || process.poll() != nil }, "\(process.log)")
        try #require(process.poll() == nil, "\(process.log)")
        // Also of every thread: capabilities are a thread's own.
        let threads = try Directory.names("/proc/\(process.pid)/task")
        #expect(threads.count > 1)
        for thread in threads {
            guard let bytes = try? readProcFile("/proc/\(process.pid)/task/\(thread)/status") else { continue }
            let fields = Dictionary(
                String(decoding: bytes, as: UTF8.self).split(separator: "\n").compactMap { line in
                    let parts = line.split(separator: ":", maxSplits: 1)
                    return parts.count == 2
                        ? (String(parts[0]), parts[1].split { $0 == "\t" || $0 == " " }.joined(separator: " ")) : nil
                }, uniquingKeysWith: { first, _ in first })
            for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                #expect(fields[name] == "0000000000000000", "thread \(thread): \(name)")
            }
            #expect(fields["NoNewPrivs"] == "1")
            #expect(fields["Groups"] == "")
            let uids = (fields["Uid"] ?? "0").split(separator: " ")
            #expect(uids.count == 4 && !uids.contains("0"))
        }
        process.signal(SIGTERM)
        #expect(process.wait(atMost: .seconds(15)) == 0, "\(process.log)")
    }

    @Test(.enabled(if: geteuid() == 0, "starts programs as another user"))
    func aSecondOneEndsWithStatus1AndSaysWhy() throws {
        let place = try Place()
        let first = try place.start("one")
        defer { first.stop() }
        try #require(Wait.until(.seconds(20)) { place.gate.isConnected }, "\(first.log)")
        let second = try place.start("two")
        defer { second.stop() }
        #expect(second.wait(atMost: .seconds(20)) == 1, "\(second.log)")
        #expect(second.log.contains("refuses this agent"))
        #expect(first.poll() == nil, "the first goes on")
    }

    @Test(.enabled(if: geteuid() == 0, "starts programs as another user"))
    func aUserThatDoesNotExistOrIsRootIsStatus2() throws {
        #expect(try chunkd("--user", "no-such-user").status == 2)
        #expect(try chunkd("--user", "root").status == 2)
    }
}
