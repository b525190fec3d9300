import ChunkModel
import HTTPTransfer
import Synchronization

/// HTTP/1.1 calls to peers over mutual TLS 1.3, each to a node by its name. Safe from any thread.
///
/// Connections are kept under the name, never under the address. A changed identity closes all that are idle, and cancels
/// calls to nodes that the new deny list names; calls to others end in peace.
package final class PeerHTTP: Sendable {
    /// What a peer is asked.
    package struct Call: Sendable {
        package var method: TransferRequest.Method
        /// Path and query, from `/` on.
        package var target: String
        package var headers: [(name: String, value: String)] = []
        package var body: [UInt8]?
        package var priority = TransferPriority.onDemand
        package var timeouts = PeerHTTP.timeouts()
        package var bufferSize = TransferRequest.BufferSize.document

        package init(_ method: TransferRequest.Method, _ target: String) {
            self.method = method
            self.target = target
        }
    }

    /// A call to be: the connections it will use, and the means to cancel or resume it.
    package struct Handle: Sendable {
        package let control: TransferControl
        fileprivate let client: TransferClient
        fileprivate let identity: PeerIdentity
    }

    private struct State {
        var client: TransferClient?
        var generation: UInt64 = 0
        /// Calls going on.
        var running: [UInt64: (name: NodeName, control: TransferControl)] = [:]
        var nextID: UInt64 = 0
    }

    private let store: IdentityStore
    private let limits: TransferLimits
    private let observer: PeerTransportObserver
    private let state = Mutex(State())

    /// `limits`: per peer the calls at once by priority, and the idle connections kept in all.
    package init(
        store: IdentityStore, limits: TransferLimits = TransferLimits(),
        observer: @escaping PeerTransportObserver = { _ in }
    ) {
        self.store = store
        self.limits = limits
        self.observer = observer
        store.onChange { [weak self] identity in self?.identityChanged(identity) }
    }

    /// Time limits for calls to a peer: a dead one is passed over after a second.
    package static func timeouts(
        connect: Duration = .seconds(1), firstByte: Duration = .seconds(3), total: Duration? = nil
    ) -> TransferTimeouts {
        TransferTimeouts(
            queue: .seconds(5), connect: connect, firstByte: firstByte, progressWindow: .seconds(5),
            progressBytes: 65_536, total: total)
    }

    /// Begins a call; `perform` it once.
    package func begin() throws(PeerError) -> Handle {
        let identity: PeerIdentity
        do throws(IdentityError) { identity = try store.require() } catch {
            throw PeerError(.noIdentity, error.message)
        }
        let client = state.withLock { state in
            if let client = state.client, state.generation == identity.generation { return client }
            // The old one ends with the last call that uses it.
            let client = TransferClient(limits: limits)
            state.client = client
            state.generation = identity.generation
            return client
        }
        return Handle(control: client.makeControl(), client: client, identity: identity)
    }

    /// Performs a call. Cancelling the task ends it with `cancelled`.
    package func perform(
        _ call: Call, to peer: PeerEndpoint, _ handle: Handle, sink: TransferSink
    ) async throws(PeerError) -> TransferResult {
        let tls = PeerTLS(expected: peer.name, identity: handle.identity)
        var request = TransferRequest(
            call.method, url: "https://\(Self.host(of: peer.name))\(call.target)", headers: call.headers,
            body: call.body.map { .bytes($0) } ?? .none, priority: call.priority,
            connectTo: peer.address.text, tls: tls, timeouts: call.timeouts)
        request.bufferSize = call.bufferSize
        let id = state.withLock { state in
            state.nextID += 1
            state.running[state.nextID] = (peer.name, handle.control)
            return state.nextID
        }
        defer { state.withLock { _ = $0.running.removeValue(forKey: id) } }
        // By the list of now, and only once the call is among those that a newer list cancels.
        do throws(IdentityError) { try (store.current ?? handle.identity).verifier.checkDenied(peer.name) } catch {
            throw PeerError(.denied, error.message, refusal: .denied)
        }
        do throws(TransferError) {
            return try await handle.client.perform(request, control: handle.control, sink: sink)
        } catch {
            let failure = tls.failure
            if let failure {
                observer(
                    .refused(
                        failure.reason, peer: failure.reason == .wrongName ? nil : peer.name,
                        address: peer.address.text, detail: failure.message))
            }
            throw PeerError(error, refusal: failure)
        }
    }

    /// Performs a call to whatever node answers at an address, on a connection of its own; says who it was.
    package func perform(
        _ call: Call, at address: PeerAddress, _ handle: Handle, sink: TransferSink
    ) async throws(PeerError) -> (NodeName, TransferResult) {
        let tls = PeerTLS(expected: nil, identity: handle.identity)
        let number = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        // No connection is found under this host, and the one made here is not used again.
        let request = TransferRequest(
            call.method, url: "https://\(number).seed\(call.target)", headers: call.headers,
            body: call.body.map { .bytes($0) } ?? .none, priority: call.priority, connectTo: address.text, tls: tls,
            timeouts: call.timeouts)
        let result: TransferResult
        do throws(TransferError) {
            result = try await handle.client.perform(request, control: handle.control, sink: sink)
        } catch { throw PeerError(error, refusal: tls.failure) }
        guard let name = tls.name else { throw PeerError(.unexpected, "\(address): no certificate was seen") }
        return (name, result)
    }

    /// Ends all calls and threads.
    package func shutDown() async {
        let client = state.withLock { state in
            defer { state.client = nil }
            return state.client
        }
        await client?.shutDown()
    }

    /// The URL's host: a key for libcurl's connections and sessions, never resolved. The suffix keeps a name that looks
    /// like an IPv4 address (`10.1`, which curl would rewrite) from being taken for one.
    private static func host(of name: NodeName) -> String { name.text + ".node" }

    private func identityChanged(_ identity: PeerIdentity) {
        let (old, denied) = state.withLock { state in
            defer { state.client = nil }
            return (state.client, state.running.values.filter { identity.denied.contains($0.name) })
        }
        for call in denied { call.control.cancel() }
        // Released here, outside the lock: it ends its thread.
        _ = consume old
    }
}
