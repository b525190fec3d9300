import ChunkModel
import ChunkStore
import Glibc
import LinuxSystem
import PreContent
import Synchronization

/// A blob the gate serves, with the number chunkd knows it by.
package final class OpenBlob: Sendable {
    package let handle: UInt32
    package let blob: Blob
    package let shard: Shard

    init(handle: UInt32, blob: Blob, shard: Shard) {
        self.handle = handle
        self.blob = blob
        self.shard = shard
    }

    /// What chunkd calls this chunk.
    func address(of chunk: Int) -> GateProtocol.ChunkAddress { .init(blob: handle, chunk: UInt32(chunk)) }
}

/// One fanotify group with the one thread that reads it, and the readers parked in it.
///
/// The thread answers hits inline and parks misses; it never writes data, hashes, logs or talks to a socket, so a stuck
/// fetch or disk cannot delay a hit. One thread a group: more make a single reader slower (kernel-facts).
package final class Shard: Sendable {
    package let number: Int
    package let group: Group
    private let journal: AccessJournal
    private let counters: GateCounters
    private let outbox: Outbox
    private let ownPid = getpid()
    private let blobs = Mutex<[FileIdentity: OpenBlob]>([:])
    private let misses = Monitor(MissTable())

    init(number: Int, group: Group, journal: AccessJournal, counters: GateCounters, outbox: Outbox) {
        self.number = number
        self.group = group
        self.journal = journal
        self.counters = counters
        self.outbox = outbox
    }

    /// Serves events of this blob's file.
    func serve(_ open: OpenBlob) { blobs.withLock { $0[open.blob.inode] = open } }

    /// Stops; later events of the file are strays and denied.
    func forget(_ open: OpenBlob) { blobs.withLock { _ = $0.removeValue(forKey: open.blob.inode) } }

    // MARK: Events

    /// Reads and answers events for ever, on the calling thread.
    func run(log: GateLog) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Group.bufferSize, alignment: 16)
        while true {
            do throws(SystemError) {
                try group.read(into: buffer) { event in handle(event) }
            } catch {
                // EMFILE denies the event it could not open (law 11) and the loop goes on; so does anything passing.
                counters.add(.denied)
                log.log(.error, "reading fanotify group failed", ["shard": "\(number)", "error": "\(error)"])
            }
        }
    }

    private func handle(_ event: Group.Event) {
        guard event.descriptor >= 0 else { return }
        counters.add(.events)
        let identity: FileIdentity
        do throws(SystemError) { identity = try FileIdentity(descriptor: event.descriptor) } catch {
            PendingAccess(group: group, journal: journal, descriptor: event.descriptor).deny(.io)
            return counters.add(.denied)
        }
        let range = event.range ?? 0..<UInt64.max
        journal.record(
            .init(
                descriptor: event.descriptor, shard: number, device: identity.device, inode: identity.inode,
                range: range))
        let access = PendingAccess(group: group, journal: journal, descriptor: event.descriptor)
        if event.pid == ownPid {
            // A bug of ours: waiting for ourselves would be a deadlock. Every test requires this counter to be 0.
            counters.add(.selfEvents)
            return access.allow()
        }
        settle(access, identity, range, pid: event.pid)
    }

    /// Takes over an event that a predecessor read and did not answer. Before `run`.
    func adopt(_ record: AccessJournal.Record) {
        counters.add(.adopted)
        let access = PendingAccess(group: group, journal: journal, descriptor: record.descriptor)
        settle(access, FileIdentity(device: record.device, inode: record.inode), record.range, pid: 0)
    }

    private func settle(
        _ access: consuming PendingAccess, _ identity: FileIdentity, _ range: Range<UInt64>, pid: Int32
    ) {
        guard let open = blobs.withLock({ $0[identity] }) else {
            counters.add(.strayEvents)
            counters.add(.denied)
            return access.deny(.io)
        }
        let blob = open.blob
        let chunks = blob.boundaries.chunks(covering: range)
        if range.upperBound != .max { counters.add(.bytesAsked, UInt64(range.count)) }
        if blob.resident.containsAll(chunks) {
            access.allow()
            counters.add(.hits)
            let touched = firstTouches(of: chunks, in: open).map { (open.address(of: $0), isMiss: false) }
            if !touched.isEmpty { outbox.accesses(touched) }
            return
        }
        counters.add(.misses)
        park(access, chunks, of: open, pid: pid)
    }

    /// Those of the chunks that no reader has asked for before.
    private func firstTouches(of chunks: Range<Int>, in open: OpenBlob) -> [Int] {
        chunks.filter { !open.blob.touched.contains($0) && open.blob.touched.insert($0) }
    }

    private func park(
        _ access: consuming PendingAccess, _ chunks: Range<Int>, of open: OpenBlob, since: Monotonic = .now,
        pid: Int32
    ) {
        let touched = firstTouches(of: chunks, in: open)
        // Looked at again under the lock: a fill inserts first and takes the lock second, so either it is seen here,
        // or it finds the reader parked.
        var token: PendingAccess? = consume access
        let asked: [GateProtocol.ChunkAddress] = misses.update { table in
            let absent = chunks.filter { !open.blob.resident.contains($0) }
            guard !absent.isEmpty, let access = token.take() else { return [] }
            return table.park(access, of: chunks, for: absent.map(open.address), since: since, pid: pid)
        }
        token?.allow()
        // What was there already is told in its place: whether a chunk was fetched ahead or is a miss must not change what
        // chunkd takes a reader's order to be.
        let missed = Set(asked.map(\.chunk))
        let accesses = chunks.compactMap { chunk -> (at: GateProtocol.ChunkAddress, isMiss: Bool)? in
            if missed.contains(UInt32(chunk)) { return (open.address(of: chunk), true) }
            return touched.contains(chunk) ? (open.address(of: chunk), false) : nil
        }
        if !accesses.isEmpty { outbox.accesses(accesses) }
    }

    // MARK: Answers

    /// A chunk was verified, written and made resident.
    func resolved(_ address: GateProtocol.ChunkAddress, of open: OpenBlob) {
        for waiter in misses.withLock({ $0.resolved(address) }) {
            // A failed sync may have taken back what came before this chunk: that is asked for again.
            if open.blob.resident.containsAll(waiter.chunks) {
                waiter.allow()
            } else if let access = waiter.take() {
                park(access, waiter.chunks, of: open, since: waiter.since, pid: waiter.pid)
            }
        }
    }

    /// A chunk cannot be had.
    func failed(_ address: GateProtocol.ChunkAddress, errno: Int32) {
        let verdict: Group.DenyErrno = errno == ENOSPC || errno == EDQUOT ? .noSpace : .io
        for waiter in misses.withLock({ $0.failed(address) }) {
            counters.add(.denied)
            waiter.deny(verdict)
        }
    }

    /// Denies readers that have waited longer than the deadline; how many.
    func denyOverdue(parkedBefore cutoff: Monotonic) -> Int {
        let waiters = misses.withLock { $0.overdue(parkedBefore: cutoff) }
        for waiter in waiters {
            counters.add(.denied)
            counters.add(.deniedDeadline)
            waiter.deny(.io)
        }
        return waiters.count
    }

    /// Chunks readers wait for: what a chunkd that has just connected is asked.
    var outstanding: [GateProtocol.ChunkAddress] { misses.withLock { $0.outstanding } }

    /// Who waits for what, and since when.
    var waits: [(pid: Int32, at: GateProtocol.ChunkAddress, since: Monotonic)] { misses.withLock { $0.waits } }

    /// Readers waiting, and since when the first.
    var blocked: (count: Int, oldest: Monotonic?) { misses.withLock { $0.blocked } }
}
