import Foundation
import Glibc
import Logging
import Synchronization
import Telemetry
import Testing

/// Both ends of a pipe: the log writes into one, the test reads the other.
private final class Pipe: Sendable {
    let reading: Int32
    let writing: Int32

    init() throws {
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        reading = ends[0]
        writing = ends[1]
    }

    deinit {
        close(reading)
        close(writing)
    }

    /// What has been written so far, without waiting for more.
    func contents() -> String {
        var out: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        var poll = pollfd(fd: reading, events: Int16(POLLIN), revents: 0)
        while Glibc.poll(&poll, 1, 0) == 1, poll.revents & Int16(POLLIN) != 0 {
            let count = read(reading, &buffer, buffer.count)
            if count <= 0 { break }
            out += buffer[..<count]
        }
        return String(decoding: out, as: UTF8.self)
    }
}

private let moment: @Sendable () -> Int64 = { 1_767_323_045_678_901_234 }

@Suite struct LogTests {
    @Test func textLinesAreForPeople() throws {
        let pipe = try Pipe()
        let log = try Log(descriptor: pipe.writing, format: .text, now: moment)
        var logger = log.logger("agent")
        logger[metadataKey: "image"] = "sha256:ab"
        logger.info("mounted", metadata: ["path": "/a b", "empty": "", "quote": "x\"y"])
        logger.debug("not shown")
        #expect(log.flush())
        #expect(
            pipe.contents()
                == "2026-01-02T03:04:05.678Z info mounted empty=\"\" image=sha256:ab path=\"/a b\" quote=\"x\\\"y\"\n")
        log.stop()
    }

    @Test func jsonLinesAreWhatIsWrittenWhereThereIsNoTerminal() throws {
        let pipe = try Pipe()
        let log = try Log(descriptor: pipe.writing, level: .debug, now: moment)
        log.logger("agent").debug("a \"b\"\n\u{1}ü", metadata: ["level": "mine", "n": "1"])
        #expect(log.flush())
        let line = pipe.contents()
        #expect(
            line == "{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"debug\",\"logger\":\"agent\","
                + "\"message\":\"a \\\"b\\\"\\n\\u0001ü\",\"meta.level\":\"mine\",\"n\":\"1\"}\n")
        let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: String]
        #expect(object?["message"] == "a \"b\"\n\u{1}ü")
        log.stop()
    }

    @Test func aForeignTextCannotForgeALine() throws {
        let pipe = try Pipe()
        let log = try Log(descriptor: pipe.writing, format: .text, now: moment)
        log.logger("x").info("evil\n2026 info fine", metadata: ["a": "b\u{1b}[31m\nc"])
        #expect(log.flush())
        let text = pipe.contents()
        #expect(text.filter { $0 == "\n" }.count == 1)
        #expect(!text.contains("\u{1b}"))
        log.stop()
    }

    @Test func theLevelChangesWhileRunning() throws {
        let pipe = try Pipe()
        let log = try Log(descriptor: pipe.writing, format: .text, level: .warning, now: moment)
        let logger = log.logger("x")
        logger.info("one")
        log.set(level: .info)
        logger.info("two")
        #expect(log.flush())
        #expect(pipe.contents().hasSuffix("info two\n"))
        log.stop()
    }

    @Test func aStuckSinkNeverBlocksAndDropsAreCounted() throws {
        let pipe = try Pipe()
        // The pipe is full from the start: its reader is stuck. 1032 is F_GETPIPE_SZ, a macro of <linux/fcntl.h>.
        let size = try #require(Int(exactly: fcntl(pipe.writing, 1032)))
        let filler = [UInt8](repeating: UInt8(ascii: "."), count: size)
        try #require(write(pipe.writing, filler, size) == size)
        let log = try Log(descriptor: pipe.writing, format: .text, capacity: 10, now: moment)
        let logger = log.logger("x")
        let started = ContinuousClock.now
        for number in 0..<1000 { logger.info("line \(number)") }
        #expect(ContinuousClock.now - started < .seconds(5))
        // The writer may have taken one batch (up to 10) out of the queue before it got stuck.
        #expect((980...990).contains(log.dropped), "\(log.dropped) dropped")
        #expect(!log.flush(milliseconds: 50))
        var text = pipe.contents()
        #expect(log.flush(milliseconds: 10_000))
        text += pipe.contents()
        #expect(text.contains("warning log lines dropped count="))
        #expect(text.contains("info line 0\n"))
        log.stop()
    }
}
