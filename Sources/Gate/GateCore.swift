import ChunkModel
import ChunkStore
import Glibc
import LinuxSystem
import PreContent
import Synchronization

/// Everything the working process has, put together. Threads: one a shard, two that fill, one each that sends, syncs,
/// administers, accepts, logs and watches deadlines; three for snapshots; one for the connected chunkd.
final class GateCore: Sendable {
    let options: GateOptions
    let log: GateLog
    let counters = GateCounters()
    let outbox = Outbox()
    let shards: [Shard]
    let blobs: BlobTable
    let fills: FillPool
    let images: ImageAdmin
    let snapshots: SnapshotDirectories
    let agentListener: AgentListener
    let store: Store
    let epoch: UInt64
    private let syncer: Syncer
    /// When chunkd was last seen to leave; nil while it is here. Before the first one comes, since start.
    private let awaySince: Mutex<Monotonic?>

    private static let fillThreads = 2
    private static let tickMilliseconds = 250

    init(
        options: GateOptions, log: GateLog, groups: [Group], journal: AccessJournal, kept: [String: File],
        keeper: KeeperClient, fresh: Bool
    ) throws {
        self.options = options
        self.log = log
        let root = options.stateDirectory + "/gate"
        store = try Store(root: root, kept: kept) { name, file throws(SystemError) in try keeper.store(name, file) }
        epoch = try (fresh ? Epoch.begin(root: root) : Epoch.current(root: root)).number
        let (counters, outbox) = (counters, outbox)
        shards = groups.enumerated().map {
            Shard(number: $0.offset, group: $0.element, journal: journal, counters: counters, outbox: outbox)
        }
        blobs = BlobTable(shards: shards)
        syncer = Syncer(blobs: blobs, counters: counters, outbox: outbox, log: log)
        fills = FillPool(blobs: blobs, counters: counters, outbox: outbox, syncer: syncer, log: log)
        images = ImageAdmin(
            store: store, blobs: blobs, counters: counters, outbox: outbox, keeper: keeper, log: log,
            readAheadKiB: options.readAheadKiB)
        snapshots = try SnapshotDirectories(store: store, counters: counters, outbox: outbox, log: log)
        agentListener = AgentListener(kept: kept, keeper: keeper)
        awaySince = Mutex(.now)
    }

    /// Loads what is on disk, puts marks on what is mounted and partly fetched, and says what cannot be trusted.
    /// Before any event is read.
    func recover(fresh: Bool) throws {
        let mounts = try MountEntry.all()
        for digest in try store.imageDigests() {
            do {
                let image = try images.load(digest)
                guard mounts.contains(where: { $0.mountPoint == image.mountPath }) else { continue }
                let partial = image.blobs.filter { !$0.isGraduated }
                for blob in partial { try blobs.open(blob).shard.group.mark(blob.data) }
                for blob in image.blobs where blob.isGraduated {
                    // Complete on disk, but the mark may have outlived the process that was about to remove it.
                    try blobs.open(blob).shard.group.unmark(blob.data)
                }
                if fresh && !partial.isEmpty { try taint(image) }
            } catch {
                log.log(.error, "image passed over", ["image": "\(digest)", "error": "\(error)"])
            }
        }
    }

    private func taint(_ image: StoredImage) throws(SystemError) {
        try Taint.set(image)
        counters.add(.integrityGaps)
        log.log(
            .error,
            "integrity gap: the image was mounted, partly fetched and unguarded; readers may have seen zeros. "
                + "Stop its users and unmount it",
            ["image": "\(image.digest)", "path": image.mountPath])
        Taint.dropCaches(image.mountPath)
    }

    /// Settles what a predecessor left: numbers it read and recorded are taken over, all others are denied, so that none
    /// can be mistaken for an event of ours (kernel-facts, law 5). Before any event is read.
    func settleStale(_ journal: AccessJournal, _ pending: [AccessJournal.Record]) {
        for shard in shards {
            let own = Set(pending.filter { $0.shard == shard.number }.map(\.descriptor))
            for number in Int32(0)..<Int32(journal.capacity) where !own.contains(number) {
                if shard.group.answer(number, .deny(.io)) { counters.add(.staleDenied) }
            }
        }
        for record in pending {
            guard record.shard < shards.count else { continue }
            shards[record.shard].adopt(record)
        }
    }

    /// Starts every thread. From here on events are answered.
    func start(listener: PacketSocket, allowed: Set<UInt32>) throws(SystemError) {
        try outbox.start()
        try syncer.start()
        try fills.start(threads: Self.fillThreads)
        try snapshots.start()
        for shard in shards { try Thread.start("shard-\(shard.number)") { [log] in shard.run(log: log) } }
        try Thread.start("deadlines") { [self] in watchDeadlines() }
        try AgentServer(listener: listener, allowed: allowed, gate: self).start()
    }

    // MARK: Deadlines

    func agentArrived() { awaySince.withLock { $0 = nil } }
    func agentLeft() { awaySince.withLock { $0 = .now } }

    /// No reader waits for ever (invariant I4). This thread touches no file, so a frozen cache cannot stop it (law 10).
    private func watchDeadlines() {
        let never = Monitor(())
        while true {
            _ = never.wait(until: Monotonic.now.adding(milliseconds: Self.tickMilliseconds)) { _ -> Bool? in nil }
            let away = awaySince.withLock { $0 }
            let limit = away == nil ? options.deadlineMilliseconds : options.agentAwayDeadlineMilliseconds
            let now = Monotonic.now
            guard now.nanoseconds > UInt64(limit) * 1_000_000 else { continue }
            let cutoff = Monotonic(nanoseconds: now.nanoseconds - UInt64(limit) * 1_000_000)
            let denied = shards.reduce(0) { $0 + $1.denyOverdue(parkedBefore: cutoff) }
            if denied > 0 {
                log.log(
                    .error, "reads denied: no bytes within the deadline",
                    ["readers": "\(denied)", "deadline_ms": "\(limit)", "chunkd": away == nil ? "connected" : "away"])
            }
        }
    }

    /// Counters and gauges for `stat`.
    func statistics() -> [GateProtocol.Counter: UInt64] {
        var out = counters.all
        var blocked = 0
        var oldest: Monotonic?
        for shard in shards {
            let (count, since) = shard.blocked
            blocked += count
            if let since, oldest.map({ since < $0 }) ?? true { oldest = since }
        }
        out[.blockedReaders] = UInt64(blocked)
        out[.oldestBlockedMilliseconds] = UInt64(oldest.map { Monotonic.now.milliseconds(since: $0) } ?? 0)
        out[.snapshotTrash] = UInt64(snapshots.waitingForDeletion)
        out[.residentBytes] = blobs.all.reduce(0) { $0 + $1.blob.residentBytes }
        return out
    }

    /// Who waits for what: those who have waited longest.
    func blockedReaders() -> [GateProtocol.BlockedReader] {
        let now = Monotonic.now
        return shards.flatMap(\.waits).sorted { $0.since < $1.since }.prefix(GateProtocol.maxListedBlocked).map {
            .init(
                pid: UInt32(clamping: $0.pid), at: $0.at,
                milliseconds: UInt32(clamping: now.milliseconds(since: $0.since)))
        }
    }

    // MARK: Stopping

    /// Makes durable what was written.
    func sync() { syncer.syncAll() }

    /// Unmounts what nobody uses. Returns why this process must not stop, if it must not: a partly fetched image in
    /// use would give its readers zeros (kernel-facts, law 12).
    func prepareToStop() -> String? {
        syncer.syncAll()
        // What is mounted counts as well as what the disk says: it may be the disk that fails.
        guard let mounted = try? images.mountedNames() else { return "the mounts cannot be read" }
        let names = Set((try? Directory.names(store.root + "/images")) ?? []).union(mounted)
        return names.sorted().compactMap { Digest(hex: $0) }.compactMap { images.release($0) }.last
    }
}
