import ChunkModel
import HTTPTransfer
import PeerTransport

/// What became of a chunk request. Value type.
package enum ChunkFetchResult: Sendable, Equatable {
    /// So many body bytes were handed to the sink: whole chunks, unless the sink stopped it. They are **not** verified.
    case delivered(bytes: UInt64, residency: PeerResidency?)
    /// The peer does not have it; `residency` says what it has.
    case absent(residency: PeerResidency?)
    /// Later, or from one of `holders`.
    case busy(retryAfter: Duration, holders: [NodeName])
    /// A bounded reason of the peer's; any other word is `unknown`.
    case refused(reason: String)
}

/// Calls to peers. Safe from any thread.
///
/// Gossip has connections and a thread of its own: it waits for no chunk.
package final class PeerClient: Sendable {
    /// Time limits of calls; each is added to what the peer may wait itself.
    package struct Limits: Sendable {
        package var connect = Duration.seconds(1)
        /// From the request to the first byte of the answer.
        package var firstByte = Duration.seconds(3)
        /// A whole gossip exchange; the prober has shorter ones.
        package var gossip = Duration.seconds(5)
        /// Chunk requests at once to one peer, on demand and ahead.
        package var onDemandPerPeer = 8
        package var prefetchPerPeer = 4
        /// Idle connections kept for chunks and for gossip, all peers together.
        package var idleConnections = 64
        package var idleGossipConnections = 32

        package init() {}
    }

    private let limits: Limits
    private let bulk: PeerHTTP
    private let messages: PeerHTTP

    package init(
        store: IdentityStore, limits: Limits = Limits(), observer: @escaping PeerTransportObserver = { _ in }
    ) {
        self.limits = limits
        bulk = PeerHTTP(
            store: store,
            limits: TransferLimits(
                onDemandPerOrigin: limits.onDemandPerPeer, prefetchPerOrigin: limits.prefetchPerPeer,
                maxIdleConnections: limits.idleConnections, maxHeaderCount: 32, maxHeaderBytes: 8192),
            observer: observer)
        messages = PeerHTTP(
            store: store,
            limits: TransferLimits(
                onDemandPerOrigin: 4, prefetchPerOrigin: 2, maxIdleConnections: limits.idleGossipConnections,
                maxHeaderCount: 32, maxHeaderBytes: 8192),
            observer: observer)
    }

    /// Begins a chunk request: the handle's control resumes it after a `.pause` and cancels it.
    package func begin() throws(PeerError) -> PeerHTTP.Handle { try bulk.begin() }

    /// Fetches consecutive chunks and streams their bytes into `sink`, on the transfer thread. `limit` is the number of
    /// bytes the chunks asked for have together: an answer that announces more is `unexpected`. `firstByte`, what the
    /// peer may take until the first of them, is in place of the client's own limit.
    package func fetch(
        _ request: ChunkRequest, from peer: PeerEndpoint, limit: UInt64, firstByte: Duration? = nil,
        handle: PeerHTTP.Handle,
        sink: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    ) async throws(PeerError) -> ChunkFetchResult {
        try await stream(
            .chunks(request), priority: request.rank == .demand ? .onDemand : .prefetch,
            firstByte: firstByte ?? limits.firstByte + request.wait, from: peer, limit: limit, handle: handle,
            sink: sink)
    }

    /// Fetches a part of an image; `size` is the bytes it has. **Not** verified.
    package func fetch(
        _ request: PartRequest, from peer: PeerEndpoint, size: UInt64,
        sink: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    ) async throws(PeerError) -> ChunkFetchResult {
        try await stream(
            .part(request), priority: .onDemand, firstByte: limits.firstByte + request.wait, from: peer, limit: size,
            handle: try bulk.begin(), sink: sink)
    }

    private func stream(
        _ call: PeerCall, priority: TransferPriority, firstByte: Duration, from peer: PeerEndpoint, limit: UInt64,
        handle: PeerHTTP.Handle, sink: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    ) async throws(PeerError) -> ChunkFetchResult {
        var http = PeerHTTP.Call(.get, call.target)
        http.headers = call.headers
        http.priority = priority
        http.bufferSize = .blob
        http.timeouts = PeerHTTP.timeouts(connect: limits.connect, firstByte: firstByte)
        let result = try await bulk.perform(
            http, to: peer, handle,
            sink: TransferSink(
                head: { head in
                    guard head.status == 200 else { return .stop }
                    // Without a length a body that was cut off would look whole.
                    guard let length = head.contentLength, length > 0, length <= limit else { return .stop }
                    return .deliver(limit: length)
                }, body: sink))
        let head = result.head
        switch head.status {
        case 200:
            guard let length = head.contentLength, length > 0, length <= limit else {
                let found = head.contentLength.map(String.init) ?? "no"
                throw PeerError(
                    .unexpected,
                    "\(peer.name): \(call.kind.rawValue) of \(limit) bytes at most, answer of \(found) bytes")
            }
            return .delivered(bytes: result.bytesReceived, residency: Self.residency(head))
        case 404: return .absent(residency: Self.residency(head))
        case 503: return .busy(retryAfter: Self.retryAfter(head), holders: Self.holders(head))
        case 403: return .refused(reason: Self.denial(head))
        default: throw Self.unexpected(peer, call, head)
        }
    }

    /// What of a blob a peer has; nil when it does not know the blob.
    package func residency(
        blob: WireID, proof: WireID, of peer: PeerEndpoint
    ) async throws(PeerError) -> (residency: PeerResidency, chunkCount: Int)? {
        let call = PeerCall.residency(blob: blob, proof: proof)
        let result = try await message(.get, call, nil, to: peer, limit: PeerProtocol.maxResidencyBytes, total: nil)
        if result.head.status == 404 { return nil }
        guard result.head.status == 200, let text = result.head.first(PeerProtocol.chunksField),
            let count = decimal(text), result.body.count == (count + 7) / 8,
            let residency = PeerResidency(first: 0, bits: result.body)
        else { throw Self.unexpected(peer, call, result.head) }
        return (residency, count)
    }

    /// One gossip frame there, one back, within `timeout` in all.
    package func gossip(
        _ frame: [UInt8], to peer: PeerEndpoint, timeout: Duration? = nil
    ) async throws(PeerError) -> [UInt8] {
        let result = try await message(
            .post, .gossip, frame, to: peer, limit: PeerProtocol.maxGossipBytes, total: timeout ?? limits.gossip)
        guard result.head.status == 200 else { throw Self.unexpected(peer, .gossip, result.head) }
        return result.body
    }

    /// The same to whatever node answers at an address; says who it was.
    package func greet(_ frame: [UInt8], at address: PeerAddress) async throws(PeerError) -> (NodeName, [UInt8]) {
        var http = PeerHTTP.Call(.post, PeerCall.gossip.target)
        http.body = frame
        http.timeouts = PeerHTTP.timeouts(connect: limits.connect, firstByte: limits.firstByte, total: limits.gossip)
        let (name, result) = try await messages.perform(
            http, at: address, try messages.begin(), sink: .collecting(limit: PeerProtocol.maxGossipBytes))
        guard result.head.status == 200 else {
            throw PeerError(.unexpected, "\(name) at \(address): gossip was answered with \(result.head.status)")
        }
        return (name, result.body)
    }

    /// Asks a tracker who else is interested: one round trip.
    package func mount(
        _ request: [UInt8], to peer: PeerEndpoint, timeout: Duration? = nil
    ) async throws(PeerError) -> [UInt8] {
        let result = try await message(
            .post, .mount, request, to: peer, limit: PeerProtocol.maxMountBytes, total: timeout ?? limits.gossip)
        guard result.head.status == 200 else { throw Self.unexpected(peer, .mount, result.head) }
        return result.body
    }

    /// Tells a peer that it sent wrong bytes.
    package func complain(_ complaint: PeerComplaint, to peer: PeerEndpoint) async throws(PeerError) {
        let call = PeerCall.complaint(complaint)
        let result = try await message(.post, call, [], to: peer, limit: 0, total: limits.gossip)
        guard result.head.status == 204 || result.head.status == 503 else {
            throw Self.unexpected(peer, call, result.head)
        }
    }

    /// Ends all calls and threads.
    package func shutDown() async {
        await bulk.shutDown()
        await messages.shutDown()
    }

    private func message(
        _ method: TransferRequest.Method, _ call: PeerCall, _ body: [UInt8]?, to peer: PeerEndpoint, limit: Int,
        total: Duration?
    ) async throws(PeerError) -> TransferResult {
        var http = PeerHTTP.Call(method, call.target)
        http.body = body
        http.timeouts = PeerHTTP.timeouts(
            connect: min(limits.connect, total ?? limits.connect), firstByte: limits.firstByte, total: total)
        return try await messages.perform(http, to: peer, try messages.begin(), sink: .collecting(limit: limit))
    }

    // MARK: What answers say

    private static func residency(_ head: ResponseHead) -> PeerResidency? {
        head.first(PeerProtocol.residencyField).flatMap { PeerResidency(headerValue: $0) }
    }

    private static func retryAfter(_ head: ResponseHead) -> Duration {
        // A minute at most: whoever says more is better asked again than believed.
        .seconds(min(60, head.first("Retry-After").flatMap { decimal($0) } ?? 1))
    }

    private static func holders(_ head: ResponseHead) -> [NodeName] {
        guard let text = head.first(PeerProtocol.holdersField) else { return [] }
        return text.split(separator: ",").prefix(PeerProtocol.maxHolders).compactMap { NodeName($0) }
    }

    private static func denial(_ head: ResponseHead) -> String {
        head.first(PeerProtocol.reasonField).flatMap { PeerDenial(rawValue: $0) }?.rawValue ?? "unknown"
    }

    private static func unexpected(_ peer: PeerEndpoint, _ call: PeerCall, _ head: ResponseHead) -> PeerError {
        let reason = head.first(PeerProtocol.reasonField).map { " (\($0.prefix(40)))" } ?? ""
        return PeerError(.unexpected, "\(peer.name): \(call.kind.rawValue) answered with \(head.status)\(reason)")
    }
}
