import ChunkModel
import NIOCore
import Synchronization

/// The shell around `UploadScheduler`: answers ask here for a slot and for every slice. Thread-safe.
package final class UploadGate: Sendable {
    private struct State {
        var scheduler: UploadScheduler
        var nextID: UInt64 = 0
        /// Answers that wait for a slot.
        var opening: [UInt64: CheckedContinuation<Bool, Never>] = [:]
        /// Slices that wait for bytes.
        var waiting: [UInt64: @Sendable () -> Void] = [:]
        /// When the timer goes off; nil when none is set.
        var wake: Duration?
    }

    /// What was decided under the lock and is done after it.
    private struct Actions {
        var opened: [CheckedContinuation<Bool, Never>] = []
        var ready: [@Sendable () -> Void] = []
        var wakeIn: Duration?
    }

    private let loop: any EventLoop
    private let start = ContinuousClock.now
    private let state: Mutex<State>

    /// Timers run on `loop`.
    package init(_ limits: UploadLimits, loop: any EventLoop) {
        self.loop = loop
        state = Mutex(State(scheduler: UploadScheduler(limits, now: .zero)))
    }

    private var now: Duration { ContinuousClock.now - start }

    package var limits: UploadLimits { state.withLock { $0.scheduler.limits } }
    package var load: (sending: Int, queued: Int) { state.withLock { $0.scheduler.load } }

    /// Changes the limits for everybody, also in the middle of an answer.
    package func change(_ limits: UploadLimits) {
        decide { state in state.scheduler.change(limits, now: now) }
    }

    /// A slot for an answer to `peer`, waited for at most `patience`; nil when there is none or the task is cancelled.
    /// Give it back with `close`.
    func open(_ peer: NodeName, _ rank: PeerRank, patience: Duration) async -> UInt64? {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        let hasSlot = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let opening = state.withLock { state in
                    let opening = state.scheduler.open(id, peer, rank)
                    if opening == .queued { state.opening[id] = continuation }
                    return opening
                }
                guard opening == .queued else { return continuation.resume(returning: opening == .started) }
                loop.scheduleTask(in: TimeAmount(patience)) { self.giveUp(id) }
                // The handler below may have run before there was somebody to tell.
                if Task.isCancelled { giveUp(id) }
            }
        } onCancel: {
            giveUp(id)
        }
        return hasSlot ? id : nil
    }

    /// Stops waiting for a slot; does nothing when it came.
    private func giveUp(_ id: UInt64) {
        guard let waiter = state.withLock({ $0.opening.removeValue(forKey: id) }) else { return }
        close(id)
        waiter.resume(returning: false)
    }

    /// Gives a slot back, whatever the answer is waiting for.
    func close(_ id: UInt64) {
        decide { state in
            state.waiting[id] = nil
            return state.scheduler.close(id, now: now)
        }
    }

    /// Whether `bytes` may be sent now; if not, `ready` is called once when they may.
    func ask(_ id: UInt64, bytes: Int, ready: @escaping @Sendable () -> Void) -> Bool {
        var mayGo = false
        decide { state in
            let answer = state.scheduler.ask(id, bytes: bytes, now: now)
            mayGo = answer.now
            if !mayGo { state.waiting[id] = ready }
            return answer.others
        }
        return mayGo
    }

    private func decide(_ body: (inout State) -> [UploadScheduler.Directive]) {
        let actions = state.withLock { state in
            var actions = Actions()
            for directive in body(&state) {
                switch directive {
                case .start(let id):
                    if let waiter = state.opening.removeValue(forKey: id) { actions.opened.append(waiter) }
                case .send(let id):
                    if let ready = state.waiting.removeValue(forKey: id) { actions.ready.append(ready) }
                }
            }
            if let wake = state.scheduler.nextWake, state.wake.map({ wake < $0 }) ?? true {
                state.wake = wake
                actions.wakeIn = wake - now
            }
            return actions
        }
        for waiter in actions.opened { waiter.resume(returning: true) }
        for ready in actions.ready { ready() }
        if let wakeIn = actions.wakeIn { loop.scheduleTask(in: TimeAmount(wakeIn)) { self.wake() } }
    }

    private func wake() {
        decide { state in
            // A timer that was overtaken by an earlier one comes too: it does no harm.
            state.wake = nil
            return state.scheduler.advance(now: now)
        }
    }
}
