import ChunkModel
import NIOCore
import Synchronization

/// The open connections of a peer server: who is let in, who has to go. Thread-safe.
final class PeerConnections: Sendable {
    /// One connection with a proven name.
    struct Member: Sendable {
        let channel: any Channel
        let peer: VerifiedPeer
        /// What was sent, for another bundle to decide again; the leaf alone when the session was resumed.
        let chain: [[UInt8]]
        let address: String
        /// Who has let it in.
        let verifier: PeerVerifier
        /// Ends the connection after the answer that is going on, on its event loop.
        let drain: @Sendable () -> Void
    }

    private struct State {
        var admission: Admission
        var members: [ObjectIdentifier: Member] = [:]
        var isDraining = false
        var drained: CheckedContinuation<Void, Never>?
    }

    let store: IdentityStore
    private let observer: PeerTransportObserver
    private let state: Mutex<State>
    private let start = ContinuousClock.now

    init(limits: PeerServerLimits, store: IdentityStore, observer: @escaping PeerTransportObserver) {
        self.store = store
        self.observer = observer
        state = Mutex(State(admission: Admission(limits)))
    }

    var load: (connections: Int, names: Int) {
        state.withLock { ($0.admission.connections, Set($0.members.values.map(\.peer.name)).count) }
    }

    /// Lets a connection in for its handshake, or throws why not.
    func accept(_ channel: any Channel, _ address: String) throws(IdentityError) -> PeerIdentity {
        let identity: PeerIdentity
        do throws(IdentityError) { identity = try store.require() } catch {
            refuse(error, address)
            throw error
        }
        let now = (ContinuousClock.now - start) / .seconds(1)
        let reason = state.withLock { $0.isDraining ? .draining : $0.admission.accept(address, now: now) }
        if let reason {
            refuse(reason, peer: nil, address, "not let in")
            throw IdentityError(reason, "\(address) is not let in")
        }
        channel.closeFuture.whenComplete { _ in self.closed() }
        return identity
    }

    func endHandshake(_ address: String) { state.withLock { $0.admission.endHandshake(address) } }

    /// Counts a connection under its proven name, by the identity of now: it may be newer than the handshake's.
    func enter(_ member: Member) throws(IdentityError) {
        let identity = try store.require()
        if identity.verifier !== member.verifier { _ = try identity.verifier.verify(chain: member.chain) }
        let id = ObjectIdentifier(member.channel)
        let refusal = state.withLock { state -> PeerRefusalReason? in
            guard !state.isDraining else { return .draining }
            guard state.admission.enter(member.peer.name) else { return .tooManyForName }
            state.members[id] = member
            return nil
        }
        if let refusal { throw IdentityError(refusal, "a further connection of \(member.peer.name)") }
        observer(.connected(member.peer.name))
        member.channel.closeFuture.whenComplete { _ in self.leave(id) }
    }

    private func leave(_ id: ObjectIdentifier) {
        let name = state.withLock { state in
            let name = state.members.removeValue(forKey: id)?.peer.name
            if let name { state.admission.leave(name) }
            return name
        }
        if let name { observer(.disconnected(name)) }
    }

    private func closed() {
        let waiting = state.withLock { state in
            state.admission.close()
            guard state.admission.connections == 0 else { return nil as CheckedContinuation<Void, Never>? }
            defer { state.drained = nil }
            return state.drained
        }
        waiting?.resume()
    }

    // MARK: Refusals

    func refuse(_ reason: PeerRefusalReason, peer: NodeName?, _ address: String, _ detail: String) {
        observer(.refused(reason, peer: peer, address: address, detail: printable(detail, limit: 256)))
    }

    func refuse(_ error: IdentityError, _ address: String) {
        refuse(error.reason, peer: nil, address, error.message)
    }

    /// Closes what the identity would not let in any more; with nil, what the one in use would not (the time has gone on).
    func recheck(_ identity: PeerIdentity?) {
        guard let verifier = (identity ?? store.current)?.verifier else { return }
        for member in state.withLock({ Array($0.members.values) }) {
            do throws(IdentityError) {
                if verifier === member.verifier {
                    _ = try verifier.check(member.peer)
                } else {
                    _ = try verifier.verify(chain: member.chain)
                }
            } catch {
                refuse(error.reason, peer: member.peer.name, member.address, error.message)
                member.channel.close(promise: nil)
            }
        }
    }

    // MARK: The end

    func drain(grace: Duration) async {
        let members = state.withLock { state in
            state.isDraining = true
            return Array(state.members.values)
        }
        for member in members { member.drain() }
        let overtime = Task {
            guard (try? await Task.sleep(for: grace)) != nil else { return }
            for member in self.state.withLock({ Array($0.members.values) }) { member.channel.close(promise: nil) }
        }
        await withCheckedContinuation { continuation in
            let isEmpty = state.withLock { state in
                if state.admission.connections > 0 { state.drained = continuation }
                return state.admission.connections == 0
            }
            if isEmpty { continuation.resume() }
        }
        overtime.cancel()
    }
}
