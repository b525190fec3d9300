import ChunkResolution
import HTTPTransfer
import Synchronization

/// The arena's slots between the transfer thread, the decoders and the engine, and who waits for one. Thread-safe.
final class Slots: Sendable {
    private struct State {
        var pool: SlotPool
        /// Ranges that were told to wait, by their number.
        var waiting: [UInt64: TransferControl] = [:]
        /// When the bytes of each slot that chunkgate was told of had come.
        var arrivals: [UInt32: Duration] = [:]
        /// Readers wait somewhere: what is fetched for nobody rests.
        var isDemandPending = false
    }

    private let state: Mutex<State>

    init(_ limits: SlotPool.Limits) { state = Mutex(State(pool: SlotPool(limits))) }

    /// A slot for the range, or nil: then its transfer is resumed when it is worth asking again.
    func take(_ size: Int, _ rank: FetchRank, range: UInt64, control: TransferControl) -> UInt32? {
        state.withLock { state in
            if !(rank == .background && state.isDemandPending), let slot = state.pool.take(size, rank) { return slot }
            state.waiting[range] = control
            return nil
        }
    }

    var isIdle: Bool { state.withLock { $0.pool.isIdle } }

    func markSent(_ slot: UInt32, connection: UInt64, from source: FetchSource) {
        let now = SpanRecorder.now
        state.withLock { state in
            state.pool.markSent(slot, connection: connection, from: source)
            state.arrivals[slot] = now
        }
    }

    /// Says who had sent the bytes, and when they were whole here.
    @discardableResult
    func giveBack(_ slot: UInt32, connection: UInt64) -> (source: FetchSource?, arrived: Duration)? {
        changing { state in
            let source = state.pool.giveBack(slot, connection: connection)
            return state.arrivals.removeValue(forKey: slot).map { (source, $0) }
        }
    }

    func abandon(_ slot: UInt32) { changing { $0.pool.abandon(slot) } }

    func reclaim(connection: UInt64) {
        changing { state in
            state.pool.reclaim(connection: connection)
            state.arrivals = [:]
        }
    }

    func setDemandPending(_ isPending: Bool) {
        let isNews = state.withLock { state in
            defer { state.isDemandPending = isPending }
            return state.isDemandPending && !isPending
        }
        if isNews { changing { _ in } }
    }

    /// Has a range ask again although nothing was given back: its rank has changed.
    func wake(range: UInt64) { state.withLock { $0.waiting.removeValue(forKey: range) }?.resume() }

    func forget(range: UInt64) { state.withLock { $0.waiting[range] = nil } }

    /// There may be room: everybody who waits asks again, a dozen at most.
    @discardableResult
    private func changing<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        let (result, waiting) = state.withLock { state in
            let result = body(&state)
            defer { state.waiting = [:] }
            return (result, state.waiting)
        }
        for control in waiting.values { control.resume() }
        return result
    }
}
