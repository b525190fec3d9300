import Glibc
@testable import LinuxSystem
import TestSupport
import Testing

@Suite struct TreeWalkTests {
    /// Notes what a walk meets.
    private struct Notes: TreeVisitor {
        var met: [EntryName] = []
        var left: [EntryName] = []
        var failures: [SystemError] = []
        var deepest = 0

        mutating func visit(_ name: EntryName, isDirectory: Bool, in directory: Int32, depth: Int) -> Bool {
            met.append(name)
            deepest = max(deepest, depth)
            return isDirectory
        }
        mutating func leave(_ name: EntryName, in directory: Int32) {
            var status = stat()
            // What was left is an entry of the directory the walk says it is.
            if fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 { left.append(name) }
        }
        mutating func failed(_ error: SystemError) { failures.append(error) }
    }

    private func name(_ text: String) -> EntryName { Array(text.utf8CString) }
    private func sorted(_ names: [EntryName]) -> [EntryName] { names.sorted { $0.lexicographicallyPrecedes($1) } }
    private func openDescriptors() throws -> Int { try Directory.names("/proc/self/fd").count }

    @Test func everyNameIsMetOnceWhateverItsBytesAndNoLinkIsFollowed() throws {
        let scratch = try ScratchDirectory("walk")
        let root = try scratch.makeDirectory("root")
        let outside = try scratch.makeDirectory("outside")
        try Directory.replaceFile(outside + "/secret", [1])
        let directory = try Directory.open(root)
        let odd: EntryName = [CChar(bitPattern: 0xFF), 10, CChar(bitPattern: 0x80), 0]
        let long = name(String(repeating: "x", count: 255))
        for directoryName in [odd, long, name("plain")] {
            try retrying("mkdirat") { mkdirat(directory.descriptor, directoryName, 0o755) }
        }
        try retrying("symlink") { symlink(outside, root + "/plain/link") }
        try retrying("mkfifo") { mkfifo(root + "/plain/fifo", 0o600) }
        var notes = Notes()
        try TreeWalk.walk(directory, &notes)
        #expect(sorted(notes.met) == sorted([odd, long, name("plain"), name("link"), name("fifo")]))
        #expect(sorted(notes.left) == sorted([odd, long, name("plain")]))
        #expect(notes.failures == [])
    }

    @Test func deepTreesAreWalkedWithFewDescriptorsAndEverythingBesideTheWayIsMet() throws {
        let scratch = try ScratchDirectory("deep")
        let depth = 3000
        var at = try Directory.open(scratch.path)
        for _ in 0..<depth {
            for side in ["a", "z"] { try retrying("mkdirat") { mkdirat(at.descriptor, side, 0o755) } }
            try retrying("mkdirat") { mkdirat(at.descriptor, "m", 0o755) }
            at = try Directory.open("m", beneath: at)
        }
        let before = try openDescriptors()
        struct Most: TreeVisitor {
            var notes = Notes()
            var most = 0
            mutating func visit(_ name: EntryName, isDirectory: Bool, in directory: Int32, depth: Int) -> Bool {
                if depth % 100 == 0 { most = max(most, (try? Directory.names("/proc/self/fd").count) ?? .max) }
                return notes.visit(name, isDirectory: isDirectory, in: directory, depth: depth)
            }
            mutating func leave(_ name: EntryName, in directory: Int32) { notes.leave(name, in: directory) }
            mutating func failed(_ error: SystemError) { notes.failed(error) }
        }
        var most = Most()
        try TreeWalk.walk(try Directory.open(scratch.path), &most)
        #expect(most.notes.met.count == 3 * depth)
        #expect(most.notes.left.count == 3 * depth)
        #expect(most.notes.deepest == depth - 1)
        #expect(most.notes.failures == [])
        #expect(most.most < before + 2 * TreeWalk.maxOpen)
    }

    @Test func aTreeThatIsMovedAwayMeanwhileEndsTheWalk() throws {
        let scratch = try ScratchDirectory("moved")
        var at = try Directory.open(try scratch.makeDirectory("root"))
        for _ in 0..<TreeWalk.maxOpen * 2 {
            try retrying("mkdirat") { mkdirat(at.descriptor, "d", 0o755) }
            at = try Directory.open("d", beneath: at)
        }
        struct Mover: TreeVisitor {
            let scratch: String
            var moved = false
            mutating func visit(_ name: EntryName, isDirectory: Bool, in directory: Int32, depth: Int) -> Bool {
                if depth == TreeWalk.maxOpen + 8 {
                    moved = rename(scratch + "/root/d/d/d", scratch + "/elsewhere") == 0
                }
                return isDirectory
            }
            mutating func leave(_ name: EntryName, in directory: Int32) {}
            mutating func failed(_ error: SystemError) {}
        }
        var mover = Mover(scratch: scratch.path)
        let error = #expect(throws: SystemError.self) {
            try TreeWalk.walk(try Directory.open(scratch.appending("root")), &mover)
        }
        #expect(mover.moved)
        #expect(error?.errno == ESTALE)
    }
}
