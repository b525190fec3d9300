import Glibc
import LinuxSystem
import TestSupport
import Testing

@Suite("Commands and waits are bounded, scratch directories leave nothing")
struct CommandTests {
    @Test("status, output and errors come back")
    func output() throws {
        let output = try Command("sh", ["-c", "echo out; echo err >&2; exit 7"]).run()
        #expect(output.status == 7)
        #expect(output.text == "out\n")
        #expect(output.errors == "err\n")
        #expect(try Command("sh", ["-c", "kill -TERM $$"]).run().status == 128 + SIGTERM)
        #expect(throws: FixtureError.self) { try Command.run("false") }
        #expect(throws: FixtureError.self) { try Command.run("/no/such/program") }
    }

    @Test("a program that does not end is killed", .timeLimit(.minutes(1)))
    func limit() throws {
        var command = Command("sh", ["-c", "exec sleep 600"])
        command.limit = .milliseconds(200)
        #expect(throws: FixtureError.self) { try command.run() }
    }

    @Test("a wait ends at its bound")
    func wait() {
        var looks = 0
        #expect(
            !Wait.until(.milliseconds(30)) {
                looks += 1; return false
            })
        #expect(looks > 1)
        #expect(Wait.until(.seconds(30)) { true })
    }

    @Test("a scratch directory goes with its owner", .enabled(if: geteuid() == 0, "mounting needs root"))
    func scratch() throws {
        var path = ""
        do {
            let loop = try LoopFileSystem(.ext4, size: 16 << 20)
            path = loop.path
            let file = try File(path: loop.path + "/file", flags: O_CREAT | O_RDWR)
            #expect(try file.fileSystem() == .ext4)
            #expect(try loop.availableBytes() < 16 << 20)
        }
        #expect(access(path, F_OK) != 0)
        #expect(try !MountEntry.all().contains { $0.mountPoint == path })
    }
}
