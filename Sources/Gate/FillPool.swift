import ChunkModel
import ChunkStore
import Integrity
import LinuxSystem
import PreContent

/// Threads that verify and write chunks: hash, compare with the index, write, mark resident, answer.
package final class FillPool: Sendable {
    /// A chunk to bring in.
    enum Job: Sendable {
        /// Bytes in a slot of the session's arena.
        case fill(Session, GateProtocol.ChunkAddress, slot: UInt32, length: UInt32, repair: Bool)
        /// Bytes of a resident chunk of another blob.
        case copy(Session, to: GateProtocol.ChunkAddress, from: GateProtocol.ChunkAddress)
    }

    /// Jobs that may wait: more than any arena has slots.
    static let maxJobs = 4096
    private let jobs = Monitor<[Job]>([])
    private let blobs: BlobTable
    private let counters: GateCounters
    private let outbox: Outbox
    private let syncer: Syncer
    private let log: GateLog

    init(blobs: BlobTable, counters: GateCounters, outbox: Outbox, syncer: Syncer, log: GateLog) {
        self.blobs = blobs
        self.counters = counters
        self.outbox = outbox
        self.syncer = syncer
        self.log = log
    }

    /// Starts `threads` workers.
    func start(threads: Int) throws(SystemError) {
        for number in 0..<threads { try Thread.start("fill-\(number)") { [self] in work() } }
    }

    /// Queues a job; false when the queue is full (a client that sends more than it has slots for).
    func add(_ job: Job) -> Bool {
        jobs.update { jobs in
            guard jobs.count < Self.maxJobs else { return false }
            jobs.append(job)
            return true
        }
    }

    private func work() {
        // The checked bytes live here, where chunkd cannot reach; pages are touched only as chunks need them.
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Limits.maxChunkSize, alignment: 4096)
        while true {
            guard let job = jobs.wait({ $0.isEmpty ? nil : $0.removeFirst() }) else { continue }
            switch job {
            case .fill(let session, let at, let slot, let length, let repair):
                let (status, errno) = fill(session, at, slot, Int(length), repair: repair, buffer)
                session.reply(.filled(at: at, slot: slot, status: status, errno: UInt32(errno)), outbox)
            case .copy(let session, let to, let from):
                let (status, errno) = copy(to, from, buffer)
                session.reply(
                    .filled(at: to, slot: GateProtocol.noSlot, status: status, errno: UInt32(errno)), outbox)
            }
        }
    }

    private func fill(
        _ session: Session, _ at: GateProtocol.ChunkAddress, _ slot: UInt32, _ length: Int, repair: Bool,
        _ buffer: UnsafeMutableRawBufferPointer
    ) -> (GateProtocol.FillStatus, Int32) {
        guard let open = blobs[at], let slotRange = session.slot(slot, length: length) else { return (.unknown, 0) }
        if open.blob.resident.contains(Int(at.chunk)) && !repair {
            open.shard.resolved(at, of: open)
            return (.resident, 0)
        }
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<length])
        do throws(SystemError) {
            guard try session.arena.readAll(into: room, at: slotRange) == length else { return (.unknown, 0) }
        } catch { return (.unknown, error.errno) }
        do throws(StoreError) {
            let entry = try open.blob.entry(Int(at.chunk))
            let chunk: VerifiedChunk
            do throws(ChunkMismatch) {
                chunk = try VerifiedChunk(checking: UnsafeRawBufferPointer(room), against: entry)
            } catch {
                counters.add(.fillMismatches)
                log.log(
                    .warning, "chunk refused",
                    ["blob": "\(open.blob.key.blob)", "chunk": "\(at.chunk)", "error": "\(error)"])
                return (.mismatch, 0)
            }
            try open.blob.write(chunk, at: Int(at.chunk))
        } catch { return writeFailed(open, at, error) }
        counters.add(.fills)
        counters.add(.fillBytes, UInt64(length))
        finish(open, at)
        return (.resident, 0)
    }

    private func copy(
        _ to: GateProtocol.ChunkAddress, _ from: GateProtocol.ChunkAddress, _ buffer: UnsafeMutableRawBufferPointer
    ) -> (GateProtocol.FillStatus, Int32) {
        guard let target = blobs[to], let source = blobs[from] else { return (.unknown, 0) }
        guard source.blob.resident.contains(Int(from.chunk)) else { return (.unknown, 0) }
        if target.blob.resident.contains(Int(to.chunk)) {
            target.shard.resolved(to, of: target)
            return (.resident, 0)
        }
        do throws(StoreError) {
            try target.blob.copy(Int(to.chunk), from: source.blob, chunk: Int(from.chunk), buffer: buffer)
        } catch {
            guard error.code == .digestMismatch else { return writeFailed(target, to, error) }
            counters.add(.fillMismatches)
            log.log(.warning, "local copy refused", ["blob": "\(target.blob.key.blob)", "error": "\(error)"])
            return (.mismatch, 0)
        }
        counters.add(.localCopies)
        finish(target, to)
        return (.resident, 0)
    }

    private func finish(_ open: OpenBlob, _ at: GateProtocol.ChunkAddress) {
        open.shard.resolved(at, of: open)
        syncer.wrote(complete: open.blob.resident.count == open.blob.boundaries.count)
    }

    private func writeFailed(
        _ open: OpenBlob, _ at: GateProtocol.ChunkAddress, _ error: StoreError
    ) -> (GateProtocol.FillStatus, Int32) {
        counters.add(.fillWriteErrors)
        log.log(
            .error, "chunk not written",
            ["blob": "\(open.blob.key.blob)", "chunk": "\(at.chunk)", "error": "\(error)"])
        return (.writeFailed, error.errno)
    }
}

/// Makes chunks durable in batches, away from every reader, and lets complete blobs graduate.
package final class Syncer: Sendable {
    private struct State {
        var dirtySince: Monotonic?
        var urgent = false
    }

    /// What a power cut may cost at most: chunks of this long are fetched again.
    private static let delayMilliseconds = 2000
    private let state = Monitor(State())
    private let blobs: BlobTable
    private let counters: GateCounters
    private let outbox: Outbox
    private let log: GateLog

    init(blobs: BlobTable, counters: GateCounters, outbox: Outbox, log: GateLog) {
        self.blobs = blobs
        self.counters = counters
        self.outbox = outbox
        self.log = log
    }

    func start() throws(SystemError) {
        try Thread.start("sync") { [self] in
            while true {
                waitForWork()
                syncAll()
            }
        }
    }

    /// A chunk was written; `complete` when it was the last of its blob.
    func wrote(complete: Bool) {
        let first = state.withLock { state in
            defer { if state.dirtySince == nil { state.dirtySince = .now } }
            return state.dirtySince == nil
        }
        // Waking the thread costs a system call: only when there is something new to know.
        if first || complete { state.update { if complete { $0.urgent = true } } }
    }

    private func waitForWork() {
        var due: Monotonic?
        while true {
            let ready: Bool? = state.wait(until: due) { state in
                guard let since = state.dirtySince else { return nil }
                let end = since.adding(milliseconds: Self.delayMilliseconds)
                if due == nil && !state.urgent {
                    due = end
                    return false
                }
                guard state.urgent || Monotonic.now >= end else { return nil }
                state = State()
                return true
            }
            if ready == true { return }
        }
    }

    /// Syncs every blob that has something to sync, now.
    func syncAll() {
        for open in blobs.all where open.blob.dirtyBytes > 0 {
            do throws(StoreError) {
                if try open.blob.sync() == .graduated { graduate(open) }
            } catch {
                counters.add(.syncErrors)
                // chunkd takes for resident what it brought: it must not pass over what is gone.
                outbox.send(
                    .residencyBits(
                        blob: open.handle, chunkCount: UInt32(open.blob.boundaries.count),
                        bits: open.blob.resident.bits()))
                log.log(
                    .error, "sync failed: chunks since the last good one are absent again",
                    ["blob": "\(open.blob.key.blob)", "error": "\(error)"])
            }
        }
    }

    /// From here on the kernel does not ask: no process of ours is on the blob's read path.
    private func graduate(_ open: OpenBlob) {
        do throws(SystemError) {
            try open.shard.group.unmark(open.blob.data)
            counters.add(.graduations)
            log.log(.info, "blob complete, mark removed", ["blob": "\(open.blob.key.blob)"])
        } catch {
            log.log(.warning, "mark not removed", ["blob": "\(open.blob.key.blob)", "error": "\(error)"])
        }
    }
}
