import ChunkModel
import Glibc
import LinuxSystem
import Synchronization

/// Trees that were removed and wait to be deleted, in a directory of their own. A thread of its own deletes them: a
/// container may have left millions of files. What a stop leaves is deleted after the next start.
final class SnapshotTrash: Sendable {
    private let directory: File
    private let path: String
    private let counters: GateCounters
    private let log: GateLog
    private let lane = Lane("snapshot-trash", capacity: 1 << 16)
    private let next = Atomic<UInt64>(0)
    /// Tells names of this process from those of earlier ones.
    private let prefix: String

    init(_ path: String, counters: GateCounters, log: GateLog) throws(SystemError) {
        (self.path, self.counters, self.log) = (path, counters, log)
        try Directory.create(path, mode: 0o700)
        directory = try Directory.open(path)
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        prefix = "\(now.tv_sec).\(now.tv_nsec)."
    }

    func start() throws(SystemError) {
        // What is removed meanwhile may be met here and once more in the queue: then it is gone already.
        _ = lane.add { [self] in deleteAll() }
        try lane.start()
    }

    /// Trees that wait.
    var count: Int { lane.count }

    /// Takes a tree away at once, to be deleted later; false when there is none.
    func take(_ name: String, from parent: File) throws(SystemError) -> Bool {
        guard lane.hasRoom else { throw SystemError(EAGAIN, "remove snapshot", "\(lane.count) wait to be deleted") }
        let place = place()
        do throws(SystemError) {
            try retrying("renameat", name) { renameat(parent.descriptor, name, directory.descriptor, place) }
        } catch  where error.errno == ENOENT { return false }
        queue(place)
        return true
    }

    private func place() -> String { prefix + "\(next.add(1, ordering: .relaxed).newValue)" }

    private func queue(_ name: String) {
        // Without room it stays until the next start.
        _ = lane.add { [self] in delete(name) }
    }

    private func deleteAll() {
        do throws(SystemError) {
            let stream = try DirectoryStream(directory)
            while let (name, _) = try stream.next() { delete(DirectoryStream.text(name)) }
        } catch {
            counters.add(.snapshotLeftovers)
            log.log(.error, "removed snapshots not listed", ["path": path, "error": "\(error)"])
        }
    }

    private func delete(_ name: String) {
        var deletion = Deletion(moveUp: moveUp)
        do throws(SystemError) {
            try TreeWalk.walk(try Directory.open(name, beneath: directory), &deletion)
            deletion.leave(Array(name.utf8CString), in: directory.descriptor)
        } catch  where error.errno == ENOENT { return } catch { deletion.failed(error) }
        guard let error = deletion.first else { return }
        counters.add(.snapshotLeftovers, UInt64(deletion.failures))
        log.log(
            .error, "removed snapshot not deleted; tried again at the next start",
            ["path": path + "/" + name, "left": "\(deletion.failures)", "error": "\(error)"])
    }

    /// Gives a directory that is nested too deep a place at the top.
    private func moveUp(_ name: EntryName, _ parent: Int32) throws(SystemError) {
        let place = place()
        try retrying("renameat") { renameat(parent, name, directory.descriptor, place) }
        queue(place)
    }
}

/// Deletes what a walk meets.
private struct Deletion: TreeVisitor {
    let moveUp: (EntryName, Int32) throws(SystemError) -> Void
    var failures = 0
    var first: SystemError?

    mutating func visit(_ name: EntryName, isDirectory: Bool, in directory: Int32, depth: Int) -> Bool {
        guard isDirectory || !unlinked(name, in: directory) else { return false }
        // The walk never has to find its way back up through directories it closed.
        guard depth == TreeWalk.maxOpen - 1 else { return true }
        do throws(SystemError) { try moveUp(name, directory) } catch { failed(error) }
        return false
    }

    /// False for a directory the file system did not name as one.
    private mutating func unlinked(_ name: EntryName, in directory: Int32) -> Bool {
        do throws(SystemError) {
            try retrying("unlinkat") { unlinkat(directory, name, 0) }
        } catch {
            if error.errno == EISDIR { return false }
            failed(error)
        }
        return true
    }

    mutating func leave(_ name: EntryName, in directory: Int32) {
        do throws(SystemError) {
            try retrying("unlinkat") { unlinkat(directory, name, AT_REMOVEDIR) }
        } catch {
            // What is still in it has been counted.
            if error.errno != ENOTEMPTY || failures == 0 { failed(error) }
        }
    }

    mutating func failed(_ error: SystemError) {
        if error.errno == ENOENT { return }
        failures += 1
        first = first ?? error
    }
}
