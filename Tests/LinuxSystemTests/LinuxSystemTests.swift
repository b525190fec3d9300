import Glibc
@testable import LinuxSystem
import TestSupport
import Testing

@Suite struct LinuxSystemTests {
    @Test func mountLinesParseWithTheirEscapes() throws {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/ro\\134ot rw,errors=continue"
        let entry = try #require(MountEntry(line: line))
        #expect(entry.id == 36)
        #expect(entry.device == "98:0")
        #expect(entry.mountPoint == "/mnt 2")
        #expect(entry.type == "ext3")
        #expect(entry.source == "/dev/ro\\ot")
        #expect(MountEntry(line: "36 35 98:0 / /x rw,noatime - tmpfs none rw")?.type == "tmpfs")
        for bad in ["", "1 2 3", "a b c d e f g - h i", "36 35 98:0 /mnt1 /mnt2 rw master:1 ext3 /dev/root rw x"] {
            #expect(MountEntry(line: bad) == nil, "\(bad)")
        }
        #expect(try MountEntry.all().contains { $0.mountPoint == "/" })
    }

    @Test func onlyExecutableFileMappingsAreProgramText() {
        let text = "7f10-7f20 r-xp 00000000 00:1f 7 /usr/bin/x"
        #expect(ProgramText.textRange(text) == 0x7f10..<0x7f20)
        for other in [
            "7f10-7f20 rw-p 00000000 00:1f 7 /usr/bin/x", "7f10-7f20 r--p 00000000 00:1f 7 /usr/bin/x",
            "7f10-7f20 r-xp 00000000 00:00 0 [vdso]", "7f10-7f20 r-xp 00000000 00:00 0", "7f20-7f10 r-xp 0 0 0 /x", "",
        ] { #expect(ProgramText.textRange(other) == nil, "\(other)") }
        ProgramText.release()
    }

    @Test func errorsNameTheCallThePlaceAndTheErrno() {
        #expect(throws: SystemError(ENOENT, "open", "/does/not/exist")) {
            try File(path: "/does/not/exist", flags: O_RDONLY)
        }
        #expect("\(SystemError(ENOSPC, "pwrite", "x"))".contains("ENOSPC"))
    }

    @Test func nothingIsOpenedThroughASymbolicLinkOrAbove() throws {
        let scratch = try ScratchDirectory("beneath")
        let inner = try scratch.makeDirectory("inner")
        try Directory.replaceFile(scratch.appending("secret"), [1])
        try retrying("symlink") { symlink("../secret", inner + "/link") }
        let directory = try Directory.open(inner)
        for name in ["link", "../secret", "/etc/passwd"] {
            #expect(throws: SystemError.self, "\(name)") { try File(beneath: directory, name, flags: O_RDONLY) }
        }
    }

    @Test func aFileLargerThanItsLimitIsNotRead() throws {
        let file = try File.memory(name: "big", size: 4097)
        #expect(throws: SystemError.self) { try file.contents(limit: 4096) }
        #expect(try file.contents(limit: 4097).count == 4097)
    }

    @Test func packetsKeepTheirBoundsAndTheirDescriptors() throws {
        let (a, b) = try PacketSocket.pair()
        let memory = try File.memory(name: "shared", size: 16)
        try a.send([1, 2, 3], descriptors: [memory])
        try a.send([4])
        let first = try #require(try b.receive(limit: 16, maxDescriptors: 2))
        #expect(first.bytes == [1, 2, 3])
        #expect(try first.descriptors.map { try $0.size() } == [16])
        #expect(try b.receive(limit: 16)?.bytes == [4])
        try a.send([UInt8](repeating: 0, count: 17))
        #expect(throws: SystemError.self) { try b.receive(limit: 16) }
        a.shutdown()
        #expect(try b.receive(limit: 16) == nil)
    }

    @Test func aMonitorWakesItsWaiterAndKeepsItsDeadline() throws {
        let monitor = Monitor(0)
        let thread = try Thread.start("adder") { monitor.update { $0 = 7 } }
        #expect(monitor.wait(until: .now.adding(milliseconds: 5000)) { $0 == 7 ? true : nil } == true)
        thread.join()
        let before = Monotonic.now
        #expect(monitor.wait(until: before.adding(milliseconds: 30)) { _ -> Bool? in nil } == nil)
        #expect(Monotonic.now.milliseconds(since: before) >= 30)
    }

    @Test func replacedFilesAreWholeAndDirectoriesGoFlat() throws {
        let scratch = try ScratchDirectory("replace")
        let path = scratch.appending("dir")
        try Directory.create(path, mode: 0o700)
        try Directory.create(path, mode: 0o700)
        try Directory.replaceFile(path + "/a", Array("one".utf8))
        try Directory.replaceFile(path + "/a", Array("two".utf8))
        try Directory.create(path + "/empty", mode: 0o700)
        #expect(try Directory.names(path) == ["a", "empty"])
        #expect(try File(path: path + "/a", flags: O_RDONLY).contents(limit: 10) == Array("two".utf8))
        try Directory.removeFlat(path)
        #expect(!Directory.exists(path))
        try Directory.removeFlat(path)
    }
}
