import ChunkModel
import ChunkStore
import Glibc
import LinuxSystem

/// The directories of container snapshots: `<root>/snapshots/<id>/{fs,work}`. They belong to root and containers write
/// into them through overlay file systems, so chunkd, which is neither, has them made and removed here.
///
/// One thread makes, removes and lists, one measures, one deletes what was removed.
final class SnapshotDirectories: Sendable {
    private let directory: File
    private let trash: SnapshotTrash
    private let store: Store
    private let counters: GateCounters
    private let outbox: Outbox
    private let log: GateLog
    private let quick = Lane("snapshots", capacity: 256)
    /// Measurements may take minutes: who asks for more than this at once is told to come again.
    private let slow = Lane("snapshot-usage", capacity: 64)

    init(store: Store, counters: GateCounters, outbox: Outbox, log: GateLog) throws(SystemError) {
        (self.store, self.counters, self.outbox, self.log) = (store, counters, outbox, log)
        let path = store.root + "/snapshots"
        try Directory.create(path, mode: 0o700)
        directory = try Directory.open(path)
        trash = try SnapshotTrash(store.root + "/trash", counters: counters, log: log)
        for name in try Directory.names(path) where name.hasPrefix(Self.unfinished) {
            _ = try trash.take(name, from: directory)
        }
    }

    private static let unfinished = ".new-"

    func start() throws(SystemError) {
        try quick.start()
        try slow.start()
        try trash.start()
    }

    /// Removed trees that are not deleted yet.
    var waitingForDeletion: Int { trash.count }

    // MARK: Requests

    /// Queues a request about snapshots; false when too many wait.
    func take(_ request: GateProtocol.Request, _ number: UInt32) -> Bool {
        guard case .snapshotUsage(let id) = request else { return quick.add { [self] in carryOut(request, number) } }
        if !slow.add({ [self] in measure(id, number) }) {
            refuse(number, .snapshotUsageErrors, SystemError(EAGAIN, "measure snapshot", "\(id): too many wait"))
        }
        return true
    }

    private func carryOut(_ request: GateProtocol.Request, _ number: UInt32) {
        switch request {
        case .makeSnapshot(let id, let like):
            answer(number, .snapshotMakeErrors) { () throws(SystemError) in
                try make(id, like: like)
                counters.add(.snapshotsMade)
                return .reply(errno: 0, value: 0, message: "")
            }
        case .removeSnapshot(let id):
            answer(number, .snapshotRemoveErrors) { () throws(SystemError) in
                let found = try trash.take("\(id)", from: directory)
                if found { counters.add(.snapshotsRemoved) }
                return .reply(errno: 0, value: found ? 1 : 0, message: "")
            }
        case .listSnapshots(let after):
            answer(number, .snapshotUsageErrors) { () throws(SystemError) in .snapshots(try list(after: after)) }
        default: break
        }
    }

    private func measure(_ id: UInt64, _ number: UInt32) {
        answer(number, .snapshotUsageErrors) { () throws(SystemError) in
            let usage = try TreeUsage.measure(try Directory.open("\(id)/fs", beneath: directory))
            return .snapshotUsage(id: id, bytes: usage.bytes, inodes: usage.inodes)
        }
    }

    private func answer(
        _ number: UInt32, _ failures: GateProtocol.Counter, _ body: () throws(SystemError) -> GateProtocol.Event
    ) {
        do throws(SystemError) { outbox.send(try body(), number: number) } catch { refuse(number, failures, error) }
    }

    private func refuse(_ number: UInt32, _ failures: GateProtocol.Counter, _ error: SystemError) {
        // A snapshot that is there already, or gone, is chunkd's to know; the rest is the node's trouble.
        if ![EEXIST, ENOENT].contains(error.errno) {
            counters.add(failures)
            log.log(.warning, "snapshot request refused", ["error": "\(error)"])
        }
        outbox.send(.reply(errno: UInt32(error.errno), value: 0, message: "\(error)"), number: number)
    }

    // MARK: Making and listing

    /// Makes both directories under another name and gives them theirs: after a crash they are whole or not there.
    private func make(_ id: UInt64, like: GateProtocol.SnapshotLike) throws(SystemError) {
        guard id > 0 else { throw SystemError(EINVAL, "make snapshot", "numbers begin at 1") }
        var there = stat()
        if fstatat(directory.descriptor, "\(id)", &there, AT_SYMLINK_NOFOLLOW) == 0 {
            throw SystemError(EEXIST, "make snapshot", "\(id)")
        }
        let model = try attributes(of: like)
        let temporary = Self.unfinished + "\(id)"
        do throws(SystemError) {
            try retrying("mkdirat", temporary) { mkdirat(directory.descriptor, temporary, 0o700) }
            let made = try Directory.open(temporary, beneath: directory)
            try makeDirectory("fs", in: made, mode: (model?.st_mode ?? 0o755) & 0o7777, like: model)
            try makeDirectory("work", in: made, mode: 0o711, like: nil)
            try retrying("renameat", "\(id)") {
                renameat(directory.descriptor, temporary, directory.descriptor, "\(id)")
            }
        } catch {
            _ = try trash.take(temporary, from: directory)
            throw error
        }
    }

    private func makeDirectory(
        _ name: String, in parent: File, mode: mode_t, like model: stat?
    ) throws(SystemError) {
        try retrying("mkdirat", name) { mkdirat(parent.descriptor, name, 0o700) }
        if let model, model.st_uid != 0 || model.st_gid != 0 {
            try retrying("fchownat", name) {
                fchownat(parent.descriptor, name, model.st_uid, model.st_gid, AT_SYMLINK_NOFOLLOW)
            }
        }
        // After the owner, which takes set-user-ID bits away; and mkdir(2) heeds the umask.
        try retrying("fchmodat", name) { fchmodat(parent.descriptor, name, mode, 0) }
    }

    private func attributes(of like: GateProtocol.SnapshotLike) throws(SystemError) -> stat? {
        switch like {
        case .none: return nil
        case .snapshot(let id): return try Directory.open("\(id)/fs", beneath: directory).status()
        case .image(let digest):
            let path = store.imageDirectory(digest) + "/mnt"
            let root = try Directory.open(path)
            guard try root.fileSystem() == .erofs else { throw SystemError(ENOENT, "image mount", path) }
            return try root.status()
        }
    }

    /// The least numbers above `after`, ascending. Twice as many as are wanted are held at most.
    private func list(after: UInt64) throws(SystemError) -> [UInt64] {
        let limit = GateProtocol.maxListedSnapshots
        let stream = try DirectoryStream(directory)
        var ids: [UInt64] = []
        while let (name, _) = try stream.next() {
            let text = DirectoryStream.text(name)
            guard let id = UInt64(text), id > after, "\(id)" == text else { continue }
            ids.append(id)
            if ids.count == 2 * limit { ids = Array(ids.sorted().prefix(limit)) }
        }
        return Array(ids.sorted().prefix(limit))
    }
}
