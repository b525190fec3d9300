import ChunkModel
import Glibc
import Synchronization

/// The identity in use: loaded from files, looked at again on every `tick`, replaced whole or not at all.
///
/// Half-written, mismatched, expired or missing files change nothing: the last good identity stays. The observer is told
/// once per change of the files, and while there is an identity in use only when a second look finds them no different:
/// who replaces a key and then its certificate is not told of the moment between. Safe from any thread.
package final class IdentityStore: Sendable {
    private struct State {
        var current: PeerIdentity?
        var failure: IdentityError?
        /// What was said of bad files last: the message may hold the time, the reason does not.
        var told: (reason: PeerRefusalReason, signature: IdentityFiles.Signature)?
        /// The files that were read last, whether they were good or not.
        var signature: IdentityFiles.Signature?
        /// Bad files that were seen once.
        var unsettled: IdentityFiles.Signature?
        var generation: UInt64 = 0
        var listeners: [@Sendable (PeerIdentity) -> Void] = []
    }

    private let files: IdentityFiles
    private let trustDomain: TrustDomain
    private let clock: @Sendable () -> Int64
    private let observer: PeerTransportObserver
    private let state = Mutex(State())
    /// One load at a time.
    private let loading = Mutex(())

    /// Loads the files; when they are not fit for use there is no `current` until a `tick` finds that they are.
    /// Reads files: not on an event loop or the cooperative pool.
    /// - Parameter clock: wall clock in seconds since 1970; certificates are the one thing that goes by it.
    package init(
        files: IdentityFiles, trustDomain: TrustDomain,
        clock: @escaping @Sendable () -> Int64 = { Int64(time(nil)) },
        observer: @escaping PeerTransportObserver = { _ in }
    ) {
        self.files = files
        self.trustDomain = trustDomain
        self.clock = clock
        self.observer = observer
        tick()
    }

    /// The last good identity; nil before the first.
    package var current: PeerIdentity? { state.withLock { $0.current } }

    /// Why the files as they are now are not in use; nil when they are, or were seen to be bad only once.
    package var failure: IdentityError? { state.withLock { $0.failure } }

    /// The identity, or `noIdentity` with the reason why there is none.
    package func require() throws(IdentityError) -> PeerIdentity {
        let (current, failure) = state.withLock { ($0.current, $0.failure) }
        if let current { return current }
        throw IdentityError(.noIdentity, "no identity: \(failure?.message ?? "not loaded")")
    }

    /// Calls `listener` with every identity from the next one on, in order, on the thread of the `tick`.
    package func onChange(_ listener: @escaping @Sendable (PeerIdentity) -> Void) {
        state.withLock { $0.listeners.append(listener) }
    }

    /// Looks at the files, and loads them when something has changed since the last look. Call it every few seconds;
    /// blocks on file access.
    package func tick() {
        loading.withLock { _ in
            let before = files.signature()
            guard before != state.withLock({ $0.signature }) else { return }
            let generation = state.withLock { $0.generation } + 1
            do throws(IdentityError) {
                let identity = try files.load(trustDomain: trustDomain, generation: generation, clock: clock)
                // Written while we read: what was read may be of two versions that happen to fit. Next time.
                guard files.signature() == before else { return }
                let listeners = state.withLock { state in
                    state.current = identity
                    state.failure = nil
                    state.told = nil
                    state.signature = before
                    state.generation = generation
                    return state.listeners
                }
                observer(.identityLoaded(identity))
                for listener in listeners { listener(identity) }
            } catch {
                let isNews = state.withLock { state in
                    guard state.current == nil || state.unsettled == before else {
                        state.unsettled = before
                        return false
                    }
                    let isNews = state.told.map { $0 != (error.reason, before) } ?? true
                    state.failure = error
                    state.told = (error.reason, before)
                    // Files that are not valid yet become good by waiting: they are tried on every look.
                    state.signature = error.reason == .notYetValid ? nil : before
                    return isNews
                }
                if isNews { observer(.identityRejected(error)) }
            }
        }
    }
}
