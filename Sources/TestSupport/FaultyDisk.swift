import Glibc
import LinuxSystem

/// A mounted file system on a disk with a volatile, tearing write cache, whose power can be cut and whose reads and
/// writes can be made to fail. The disk is a program of ours behind FUSE and a loop device, so that the kernel's own
/// block layer, file system and journal see real errors.
///
/// `remove` it when its users have ended; the last owner's end does the same, as far as it then can.
package final class FaultyDisk: Sendable {
    /// What fails with EIO. `write` also means flushes.
    package enum Fault: String, CaseIterable, Sendable { case read, write }

    /// Where the file system keeps its journal. With one of its own on a healthy disk, ext4 lives on when data is lost.
    package enum Journal: Sendable { case inside, onHealthyDisk }

    /// What the power's end found.
    package struct Cut: Sendable {
        /// Writes and flushes carried out since `cutPower`.
        package let commands: Int
        /// Sectors written and not flushed, and those of them that reached the medium.
        package let unflushedSectors: Int
        package let keptSectors: Int
    }

    /// Where the file system is mounted.
    package let path: String
    private let scratch: ScratchDirectory
    private let seed: UInt64
    /// The loop device of a journal of its own.
    private let journal: String?
    private let program: Monitor<ProcessFixture?>

    private var medium: String { scratch.appending("medium") }
    private var file: String { scratch.appending("disk") }
    private var control: String { scratch.appending("control") }

    /// Makes and mounts a file system. `seed` decides which sectors survive a power cut.
    package init(
        _ kind: LoopFileSystem.Kind, size: Int = 0, seed: UInt64 = 1, journal where: Journal = .inside
    ) throws {
        self.seed = seed
        scratch = try ScratchDirectory("disk-\(kind.rawValue)")
        path = try scratch.makeDirectory("mounted")
        _ = try scratch.makeDirectory("control")
        let medium = scratch.appending("medium")
        try File(path: medium, flags: O_CREAT | O_RDWR).truncate(to: UInt64(max(size, kind.smallestSize)))
        _ = try File(path: scratch.appending("disk"), flags: O_CREAT | O_RDWR)
        var arguments = kind.quietly
        switch `where` {
        case .inside: journal = nil
        case .onHealthyDisk:
            let device = try Self.makeJournal(scratch.appending("journal"))
            journal = device
            arguments += ["-b", "4096", "-J", "device=\(device)"]
        }
        program = Monitor(nil)
        do {
            try Command("mkfs." + kind.rawValue, arguments + [medium]).require()
            try start()
        } catch {
            remove()
            throw error
        }
    }

    deinit { remove() }

    private static func makeJournal(_ image: String) throws -> String {
        try File(path: image, flags: O_CREAT | O_RDWR).truncate(to: 8 << 20)
        let device = try Command.run("losetup", "--find", "--show", image).split(separator: "\n").first
        guard let device else { throw FixtureError("losetup names no device") }
        try Command.run("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "journal_dev", String(device))
        return String(device)
    }

    private func start() throws {
        let log = scratch.appending("program.log")
        let started = try ProcessFixture(
            ["python3", "-c", faultyDiskProgram, medium, file, control, "\(seed)"], logFile: log)
        program.update { $0 = started }
        let ready = try Wait.until(.seconds(20)) {
            try started.poll() != nil || MountEntry.all().contains { $0.mountPoint == file }
        }
        guard ready, started.poll() == nil else { throw FixtureError("the disk does not start: \(started.log)") }
        let options = "loop" + (journal.map { ",journal_path=\($0)" } ?? "")
        try Command.run("mount", "-o", options, file, path)
    }

    // MARK: Faults

    /// From now on these fail, and all others succeed.
    package func fail(_ faults: Set<Fault>) throws(SystemError) {
        try set("fail", faults.map(\.rawValue).sorted().joined(separator: " "))
    }

    /// The power lasts for this many writes and flushes more, and then until there is something unflushed to lose; with
    /// 0 it goes with the next.
    package func cutPower(after commands: Int = 0) throws(SystemError) { try set("power", "\(commands)") }

    /// What the cut found; nil while the power is on. A disk that nobody writes to notices nothing.
    package var cut: Cut? {
        let words = TemporaryDirectory.text(of: control + "/off").split(separator: " ").compactMap { Int($0) }
        guard words.count == 3 else { return nil }
        return Cut(commands: words[0], unflushedSectors: words[1], keptSectors: words[2])
    }

    private func set(_ name: String, _ value: String) throws(SystemError) {
        try Directory.replaceFile(control + "/" + name, Array(value.utf8))
    }

    /// Unmounts and mounts again: after a power cut, with the power back and what the medium holds.
    package func remount() throws {
        try Command.run("umount", path)
        try stop()
        for name in try Directory.names(control) { unlink(control + "/" + name) }
        try start()
    }

    // MARK: The end

    /// Ends the program that is the disk. The loop device lets go of it after the unmount, not with it.
    private func stop() throws {
        let file = file
        guard Wait.until(.seconds(10), { umount2(file, 0) == 0 || errno == EINVAL }) else {
            throw FixtureError("the disk at \(file) is still in use")
        }
        program.update { program in
            program?.stop()
            program = nil
        }
    }

    /// Unmounts and removes everything. Call it when those who have files open there have ended.
    package func remove() {
        ScratchDirectory.unmountAll(beneath: path)
        if (try? stop()) == nil { umount2(file, Int32(MNT_DETACH)) }
        program.withLock { $0 }?.stop()
        if let journal { _ = try? Command("losetup", ["--detach", journal]).run() }
    }
}
