import ChunkModel
import LinuxSystem
import PreContent

/// A reader that waits for one or more chunks.
final class Waiter {
    /// Taken once, by whoever settled the waiter under the table's lock.
    private var access: PendingAccess?
    /// Everything its access covers, resident by now or not.
    let chunks: Range<Int>
    /// Chunks not resident yet.
    fileprivate var remaining: Int
    fileprivate var settled = false
    /// When it was parked first.
    let since: Monotonic
    /// 0 when it is not known.
    let pid: Int32

    fileprivate init(
        _ access: consuming PendingAccess, chunks: Range<Int>, remaining: Int, since: Monotonic, pid: Int32
    ) {
        self.access = consume access
        self.chunks = chunks
        self.remaining = remaining
        self.since = since
        self.pid = pid
    }

    /// Gives the access back, to be parked anew.
    func take() -> PendingAccess? { access.take() }
    func allow() { access.take()?.allow() }
    func deny(_ errno: Group.DenyErrno) { access.take()?.deny(errno) }
}

/// Which readers wait for which chunks. A value that decides: it says whom to answer, the caller answers outside the
/// lock that guards it.
struct MissTable {
    typealias Address = GateProtocol.ChunkAddress

    private var waiting: [Address: [Waiter]] = [:]

    /// Parks a reader of `chunks` for the absent ones among them. Returns those that nobody had asked for.
    mutating func park(
        _ access: consuming PendingAccess, of chunks: Range<Int>, for absent: [Address], since: Monotonic,
        pid: Int32
    ) -> [Address] {
        let waiter = Waiter(access, chunks: chunks, remaining: absent.count, since: since, pid: pid)
        var new: [Address] = []
        for chunk in absent {
            if waiting[chunk] == nil { new.append(chunk) }
            waiting[chunk, default: []].append(waiter)
        }
        return new
    }

    /// A chunk became resident: the readers that now have all they waited for.
    mutating func resolved(_ chunk: Address) -> [Waiter] {
        var ready: [Waiter] = []
        for waiter in waiting.removeValue(forKey: chunk) ?? [] where !waiter.settled {
            waiter.remaining -= 1
            if waiter.remaining == 0 {
                waiter.settled = true
                ready.append(waiter)
            }
        }
        return ready
    }

    /// A chunk cannot be had: its readers, to be denied.
    mutating func failed(_ chunk: Address) -> [Waiter] {
        var denied: [Waiter] = []
        for waiter in waiting.removeValue(forKey: chunk) ?? [] where !waiter.settled {
            waiter.settled = true
            denied.append(waiter)
        }
        return denied
    }

    /// Readers parked before `cutoff`, to be denied. Chunks that nobody waits for any more are forgotten, so that the
    /// next reader asks anew.
    mutating func overdue(parkedBefore cutoff: Monotonic) -> [Waiter] {
        var denied: [Waiter] = []
        for (chunk, waiters) in waiting {
            for waiter in waiters where !waiter.settled && waiter.since < cutoff {
                waiter.settled = true
                denied.append(waiter)
            }
            let left = waiters.filter { !$0.settled }
            if left.count != waiters.count { waiting[chunk] = left.isEmpty ? nil : left }
        }
        return denied
    }

    /// All chunks somebody waits for, in address order.
    var outstanding: [Address] {
        waiting.keys.sorted { ($0.blob, $0.chunk) < ($1.blob, $1.chunk) }
    }

    /// Who waits for what, and since when.
    var waits: [(pid: Int32, at: Address, since: Monotonic)] {
        waiting.flatMap { at, waiters in waiters.filter { !$0.settled }.map { ($0.pid, at, $0.since) } }
    }

    /// Readers waiting, and when the first of them was parked.
    var blocked: (count: Int, oldest: Monotonic?) {
        var seen: Set<ObjectIdentifier> = []
        var oldest: Monotonic?
        for waiters in waiting.values {
            for waiter in waiters where !waiter.settled {
                guard seen.insert(ObjectIdentifier(waiter)).inserted else { continue }
                if oldest.map({ waiter.since < $0 }) ?? true { oldest = waiter.since }
            }
        }
        return (seen.count, oldest)
    }
}
