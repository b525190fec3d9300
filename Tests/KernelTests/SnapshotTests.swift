import ChunkModel
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The directories of container snapshots, on the real gate.
@Suite(.serialized, .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct SnapshotTests {
    let scratch: ScratchDirectory
    let done = GateProtocol.Event.reply(errno: 0, value: 0, message: "")
    let removed = GateProtocol.Event.reply(errno: 0, value: 1, message: "")

    init() throws { scratch = try ScratchDirectory("snapshots") }

    private func path(_ gate: RunningGate, _ id: UInt64, _ part: String = "") -> String {
        gate.state + "/gate/snapshots/\(id)" + (part.isEmpty ? "" : "/" + part)
    }

    private func status(_ path: String) throws -> stat {
        var value = stat()
        try retrying("lstat", path) { lstat(path, &value) }
        return value
    }

    private func errno(_ event: GateProtocol.Event) -> Int32 {
        if case .reply(let errno, _, _) = event { Int32(errno) } else { -1 }
    }

    private func isEmptied(_ gate: RunningGate) -> Bool {
        Wait.until(.seconds(20)) { (try? Directory.names(gate.state + "/gate/trash")) == [] }
    }

    private func expect(_ path: String, _ mode: mode_t, _ uid: uid_t, _ gid: gid_t) throws {
        let found = try status(path)
        #expect(found.st_mode == S_IFDIR | mode, "\(path): \(String(found.st_mode, radix: 8))")
        #expect(found.st_uid == uid && found.st_gid == gid, "\(path): \(found.st_uid):\(found.st_gid)")
    }

    @Test func aSnapshotsDirectoriesAreMadeOnceAndRemovedOnce() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        #expect(try client.ask(.makeSnapshot(id: 7, like: .none)) == done)
        try expect(path(gate, 7), 0o700, 0, 0)
        try expect(path(gate, 7, "fs"), 0o755, 0, 0)
        try expect(path(gate, 7, "work"), 0o711, 0, 0)
        #expect(errno(try client.ask(.makeSnapshot(id: 7, like: .none))) == EEXIST)
        #expect(errno(try client.ask(.makeSnapshot(id: 0, like: .none))) == EINVAL)
        #expect(try client.ask(.removeSnapshot(id: 7)) == removed)
        #expect(!Directory.exists(path(gate, 7)))
        #expect(try client.ask(.removeSnapshot(id: 7)) == done)
        #expect(try client.ask(.makeSnapshot(id: 7, like: .none)) == done, "a number that is free again")
        #expect(isEmptied(gate))
        let counters = try client.counters()
        #expect(counters[.snapshotsMade] == 2)
        #expect(counters[.snapshotsRemoved] == 1)
        #expect(counters[.snapshotMakeErrors] == 1, "number 0")
        #expect(counters[.snapshotTrash] == 0)
        #expect(counters[.selfEvents] == 0)
    }

    @Test func theUpperDirectoryLooksLikeItsModel() throws {
        let tree = try scratch.makeDirectory("tree")
        try File(path: tree + "/file", flags: O_CREAT | O_WRONLY).writeAll([UInt8](repeating: 1, count: 70_000), at: 0)
        try retrying("chown") { chown(tree, 7, 9) }
        try retrying("chmod") { chmod(tree, 0o1751) }
        let image = try GateImage(tree: tree, in: scratch)
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let ofImage = GateProtocol.Request.makeSnapshot(id: 1, like: .image(image.digest))
        #expect(errno(try client.ask(ofImage)) == ENOENT)
        _ = try client.open(image, mount: false)
        #expect(errno(try client.ask(ofImage)) == ENOENT, "not mounted: its directory is not its root")
        _ = try client.open(image)
        #expect(try client.ask(ofImage) == done)
        try expect(path(gate, 1, "fs"), 0o1751, 7, 9)
        try expect(path(gate, 1, "work"), 0o711, 0, 0)
        #expect(try client.ask(.makeSnapshot(id: 2, like: .snapshot(1))) == done)
        try expect(path(gate, 2, "fs"), 0o1751, 7, 9)
        #expect(errno(try client.ask(.makeSnapshot(id: 3, like: .snapshot(44)))) == ENOENT)
        #expect(!Directory.exists(path(gate, 3)))
        #expect(try client.ask(.closeImage(manifest: image.digest)) == done, "nothing holds the mount")
    }

    @Test func usageIsWhatDuSays() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        #expect(try client.ask(.makeSnapshot(id: 1, like: .none)) == done)
        let fs = path(gate, 1, "fs")
        try Directory.create(fs + "/a", mode: 0o755)
        try File(path: fs + "/a/data", flags: O_CREAT | O_WRONLY).writeAll([UInt8](repeating: 7, count: 99_999), at: 0)
        try File(path: fs + "/sparse", flags: O_CREAT | O_WRONLY).truncate(to: 1 << 30)
        for number in 0..<5 { try retrying("link") { link(fs + "/a/data", fs + "/link-\(number)") } }
        try retrying("symlink") { symlink("/usr", fs + "/usr") }
        try retrying("mknod") { mknod(fs + "/whiteout", S_IFCHR, 0) }
        try Directory.create(fs + "/mount", mode: 0o755)
        try Command.run("mount", "-t", "tmpfs", "none", fs + "/mount")
        defer { try? Mount.unmount(fs + "/mount") }
        try Directory.replaceFile(fs + "/mount/elsewhere", [UInt8](repeating: 1, count: 1 << 16))
        sync()
        func du(_ option: String) throws -> UInt64 {
            let text = try Command.run("du", "-s", "-x", option, fs)
            return try #require(UInt64(text.prefix { $0.isNumber }))
        }
        let expected = GateProtocol.Event.snapshotUsage(
            id: 1, bytes: try du("--block-size=1"), inodes: try du("--inodes"))
        #expect(try client.ask(.snapshotUsage(id: 1)) == expected)
        #expect(errno(try client.ask(.snapshotUsage(id: 2))) == ENOENT)
    }

    @Test func whateverContainersLeaveIsDeletedAndNothingElse() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        #expect(try client.ask(.makeSnapshot(id: 1, like: .none)) == done)
        let fs = path(gate, 1, "fs")
        let outside = try scratch.makeDirectory("outside")
        try Directory.replaceFile(outside + "/precious", [1])
        for target in [outside, "/", "../..", outside + "/precious"] {
            try retrying("symlink") { symlink(target, fs + "/link-\(target.count)") }
        }
        try retrying("link") { link(outside + "/precious", fs + "/hard") }
        try retrying("mknod") { mknod(fs + "/whiteout", S_IFCHR, 0) }
        try retrying("mkfifo") { mkfifo(fs + "/fifo", 0) }
        _ = try PacketSocket.listen(path: fs + "/socket", mode: 0o600)
        let odd: [CChar] = [CChar(bitPattern: 0xFE), 10, 32, CChar(bitPattern: 0xFF), 0]
        var at = try Directory.open(fs)
        try retrying("mkdirat") { mkdirat(at.descriptor, odd, 0) }
        for level in 0..<3000 {
            if level % 500 == 250 { try retrying("mknodat") { mknodat(at.descriptor, odd, S_IFREG, 0) } }
            try retrying("mkdirat") { mkdirat(at.descriptor, "deeper", 0o700) }
            at = try Directory.open("deeper", beneath: at)
        }
        for number in 0..<5000 { close(try retrying("open") { openat(at.descriptor, "f\(number)", O_CREAT, 0o600) }) }
        #expect(try client.ask(.removeSnapshot(id: 1)) == removed)
        #expect(isEmptied(gate))
        #expect(try File(path: outside + "/precious", flags: O_RDONLY).contents(limit: 1) == [1])
        #expect(try client.counters()[.snapshotLeftovers] == 0)
    }

    @Test func aTreeThatIsVeryDeepIsMeasured() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        #expect(try client.ask(.makeSnapshot(id: 1, like: .none)) == done)
        var at = try Directory.open(path(gate, 1, "fs"))
        let depth = 5000
        for _ in 0..<depth {
            try retrying("mkdirat") { mkdirat(at.descriptor, "d", 0o755) }
            at = try Directory.open("d", beneath: at)
        }
        guard case .snapshotUsage(1, _, let inodes) = try client.ask(.snapshotUsage(id: 1)) else {
            throw FixtureError("not measured")
        }
        #expect(inodes == UInt64(depth) + 1)
    }

    @Test func whatCannotBeDeletedIsCountedAndTriedAgainAtTheNextStart() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        #expect(try client.ask(.makeSnapshot(id: 1, like: .none)) == done)
        let fs = path(gate, 1, "fs")
        try Directory.create(fs + "/a", mode: 0o755)
        try Directory.replaceFile(fs + "/a/other", [1])
        let file = try File(path: fs + "/a/fast", flags: O_CREAT | O_RDWR)
        let held = "/proc/self/fd/\(file.descriptor)"
        try Command.run("chattr", "+i", fs + "/a/fast")
        defer { _ = try? Command("find", [gate.state, "-name", "fast", "-exec", "chattr", "-i", "{}", ";"]).run() }
        #expect(try client.ask(.removeSnapshot(id: 1)) == removed)
        #expect(Wait.until(.seconds(10)) { (try? client.counters()[.snapshotLeftovers]) == 1 })
        #expect(Wait.until(.seconds(10)) { gate.process.log.contains("removed snapshot not deleted") })
        #expect(try client.ask(.makeSnapshot(id: 1, like: .none)) == done)
        var link = [CChar](repeating: 0, count: 4096)
        let count = try retrying("readlink") { readlink(held, &link, link.count) }
        let place = String(decoding: link[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        #expect(place.hasPrefix(gate.state + "/gate/trash/"))
        #expect(!Directory.exists(place.replacing("/fast", with: "/other")))
        gate.stop()
        try Command.run("chattr", "-i", place)
        // What a stop in the middle of making one leaves goes too.
        try Directory.create(gate.state + "/gate/snapshots/.new-5", mode: 0o700)
        try Directory.create(gate.state + "/gate/snapshots/.new-5/fs", mode: 0o700)
        let again = try RunningGate(scratch)
        let other = try again.connect()
        #expect(isEmptied(again))
        #expect(try other.ask(.listSnapshots(after: 0)) == .snapshots([1]))
        #expect(try Directory.names(gate.state + "/gate/snapshots") == ["1"])
    }

    @Test func listsAreInOrderAndInPages() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        #expect(try client.ask(.listSnapshots(after: 0)) == .snapshots([]))
        for id: UInt64 in [300, 2, 10, 1] { #expect(try client.ask(.makeSnapshot(id: id, like: .none)) == done) }
        for other in ["lost+found", "007", "-3"] {
            try Directory.create(gate.state + "/gate/snapshots/" + other, mode: 0o700)
        }
        #expect(try client.ask(.listSnapshots(after: 0)) == .snapshots([1, 2, 10, 300]))
        #expect(try client.ask(.listSnapshots(after: 2)) == .snapshots([10, 300]))
        let limit = UInt64(GateProtocol.maxListedSnapshots)
        for id in 1001...1000 + 2 * limit { try Directory.create(path(gate, id), mode: 0o700) }
        #expect(try client.ask(.listSnapshots(after: 1000)) == .snapshots(Array(1001...1000 + limit)))
        let rest = Array(1001 + limit...1000 + 2 * limit)
        #expect(try client.ask(.listSnapshots(after: 1000 + limit)) == .snapshots(rest))
        #expect(try client.ask(.listSnapshots(after: 1000 + 2 * limit)) == .snapshots([]))
    }

    @Test func anOverlayOverAnImageWritesIntoItsSnapshot() throws {
        let tree = try scratch.makeDirectory("tree")
        try Directory.replaceFile(tree + "/lower", [UInt8](repeating: 1, count: 70_000))
        let image = try GateImage(tree: tree, in: scratch)
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        #expect(try client.ask(.makeSnapshot(id: 1, like: .image(image.digest))) == done)
        let root = try scratch.makeDirectory("root")
        let options = "lowerdir=\(info.path),upperdir=\(path(gate, 1, "fs")),workdir=\(path(gate, 1, "work"))"
        try Command.run("mount", "-t", "overlay", "overlay", "-o", options, root)
        try Directory.replaceFile(root + "/new", [1])
        try retrying("unlink") { unlink(root + "/lower") }
        #expect(try status(path(gate, 1, "fs/lower")).st_mode & S_IFMT == S_IFCHR, "a whiteout")
        #expect(try File(path: path(gate, 1, "fs/new"), flags: O_RDONLY).contents(limit: 1) == [1])
        try Mount.unmount(root)
        #expect(try client.ask(.removeSnapshot(id: 1)) == removed)
        #expect(isEmptied(gate))
        #expect(try client.counters()[.snapshotLeftovers] == 0)
    }
}
