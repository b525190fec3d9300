import ChunkModel
import NIOCore
import NIOPosix
import PeerTransport
import Synchronization

/// Answers the peer protocol: parses, limits, asks the suppliers, streams chunks. Safe from any thread.
///
/// Give it to `PeerServer` as its handler.
package final class PeerExchangeServer: PeerRequestHandler {
    /// Who answers what.
    package struct Parts: Sendable {
        package let chunks: any ChunkSupplier
        package let gossip: any GossipHandler
        package let mount: any MountHandler
        package let complaints: any ComplaintHandler

        package init(
            chunks: any ChunkSupplier, gossip: any GossipHandler, mount: any MountHandler,
            complaints: any ComplaintHandler
        ) {
            self.chunks = chunks
            self.gossip = gossip
            self.mount = mount
            self.complaints = complaints
        }
    }

    /// Bandwidth and slots; its limits can be changed at any time.
    package let uploads: UploadGate
    private let parts: Parts
    private let pool: NIOThreadPool
    private let observer: PeerServedObserver
    private let spanIDs: @Sendable () -> SpanID
    private let budget = Mutex(RequestBudget(RequestBudget.Limits()))
    private let start = ContinuousClock.now

    /// How long an answer waits for a slot at least, whatever the request says.
    private static let slotPatience = Duration.seconds(2)

    /// `pool` reads what is not in the page cache; two to four threads, started by the caller. `spanIDs` names the spans of
    /// answers within traces.
    package init(
        _ parts: Parts, uploads: UploadGate, pool: NIOThreadPool,
        spanIDs: @escaping @Sendable () -> SpanID = PeerExchangeServer.randomSpanID,
        observer: @escaping PeerServedObserver = { _ in }
    ) {
        self.parts = parts
        self.uploads = uploads
        self.pool = pool
        self.spanIDs = spanIDs
        self.observer = observer
    }

    package static let randomSpanID: @Sendable () -> SpanID = {
        var random = SystemRandomNumberGenerator()
        return SpanID(using: &random)
    }

    package func bodyLimit(method: String, target: String) -> Int {
        switch try? PeerCall(method: method, target: target, header: { _ in nil }) {
        case .gossip: PeerProtocol.maxGossipBytes
        case .mount: PeerProtocol.maxMountBytes
        case .chunks, .residency, .part, .complaint, nil: 0
        }
    }

    package func respond(to request: PeerRequest) async -> PeerResponse {
        let began = ContinuousClock.now
        var call: PeerCall
        do throws(PeerCallError) {
            call = try PeerCall(method: request.method, target: request.target, header: request.header)
        } catch {
            tell(Asked(request.peer, nil, began), .malformed, error.reason.rawValue)
            return Self.refusal(error.status, error.reason.rawValue)
        }
        var asked = Asked(request.peer, call, began)
        if case .chunks(var wanted) = call {
            asked.isTraceIgnored = wanted.trace == nil && request.header(TraceContext.field) != nil
            if let asker = wanted.trace {
                // From here on the span of this answer is what asks.
                asked.parent = asker.span
                wanted.trace = TraceContext(trace: asker.trace, span: spanIDs())
                call = .chunks(wanted)
                asked.call = call
            }
        }
        return await respond(to: request, call, asked)
    }

    /// One request that is answered.
    private struct Asked {
        let peer: NodeName
        var call: PeerCall?
        let began: ContinuousClock.Instant
        var parent: SpanID?
        var isTraceIgnored = false

        init(_ peer: NodeName, _ call: PeerCall?, _ began: ContinuousClock.Instant) {
            self.peer = peer
            self.call = call
            self.began = began
        }
    }

    private func respond(to request: PeerRequest, _ call: PeerCall, _ asked: Asked) async -> PeerResponse {
        var isComplaint = false
        if case .complaint = call { isComplaint = true }
        let verdict = budget.withLock { $0.begin(request.peer, isComplaint: isComplaint, now: asked.began - start) }
        guard verdict == .go else {
            tell(asked, .busy, PeerDenial.rate.rawValue)
            return Self.busy(.seconds(1), [], reason: PeerDenial.rate.rawValue)
        }
        defer { budget.withLock { $0.end(request.peer) } }
        switch call {
        case .chunks(let wanted):
            let answer = await parts.chunks.chunks(wanted, for: request.peer)
            return await stream(answer, at: wanted.at, wanted.rank, wanted.wait, asked)
        case .part(let wanted):
            let answer = await parts.chunks.part(wanted, for: request.peer)
            return await stream(answer, at: 0, wanted.rank, wanted.wait, asked)
        case .residency(let blob, let proof): return await residency(blob, proof, asked)
        case .gossip:
            return frame(await parts.gossip.gossip(request.body, from: request.peer), asked)
        case .mount:
            return frame(await parts.mount.mount(request.body, from: request.peer), asked)
        case .complaint(let complaint):
            await parts.complaints.complaint(complaint, from: request.peer)
            tell(asked, .sent)
            return PeerResponse(204)
        }
    }

    private func stream(
        _ answer: ChunkAnswer, at chunk: Int, _ rank: PeerRank, _ wait: Duration, _ asked: Asked
    ) async -> PeerResponse {
        switch answer {
        case .found(let found, let residency, let ended):
            let patience = max(wait, Self.slotPatience)
            guard let id = await uploads.open(asked.peer, rank, patience: patience) else {
                ended(false)
                tell(asked, .busy, "slots")
                return Self.busy(.seconds(1), [], reason: "slots")
            }
            let stream = ChunkStream(found, gate: uploads, id: id, pool: pool) { [weak self] outcome, bytes in
                ended(outcome == .sent)
                self?.tell(asked, outcome, bytes: bytes)
            }
            return PeerResponse(
                200, headers: [("Content-Type", "application/octet-stream")] + Self.field(residency, chunk),
                body: .source(stream, length: stream.length))
        case .absent(let residency):
            tell(asked, .absent)
            return PeerResponse(404, headers: Self.field(residency, chunk))
        case .busy(let retryAfter, let holders):
            tell(asked, .busy, "holders")
            return Self.busy(retryAfter, holders, reason: "busy")
        case .refused(let denial):
            tell(asked, .denied, denial.rawValue)
            return Self.refusal(403, denial.rawValue)
        }
    }

    private func residency(
        _ blob: WireID, _ proof: WireID, _ asked: Asked
    ) async -> PeerResponse {
        guard let known = await parts.chunks.residency(blob: blob, proof: proof, for: asked.peer) else {
            tell(asked, .absent)
            return PeerResponse(404)
        }
        let bits = known.residency.bits
        tell(asked, .sent, bytes: UInt64(bits.count))
        return PeerResponse(
            200,
            headers: [
                ("Content-Type", "application/octet-stream"), (PeerProtocol.chunksField, String(known.chunkCount)),
            ], body: .bytes(bits))
    }

    private func frame(_ bytes: [UInt8]?, _ asked: Asked) -> PeerResponse {
        guard let bytes else {
            tell(asked, .malformed, "frame")
            return Self.refusal(400, "frame")
        }
        tell(asked, .sent, bytes: UInt64(bytes.count))
        return PeerResponse(200, headers: [("Content-Type", "application/x-protobuf")], body: .bytes(bytes))
    }

    // MARK: Answers

    private static func refusal(_ status: Int, _ reason: String) -> PeerResponse {
        PeerResponse(status, headers: [(PeerProtocol.reasonField, reason)])
    }

    private static func busy(_ retryAfter: Duration, _ holders: [NodeName], reason: String) -> PeerResponse {
        // Whole seconds, as RFC 9110 section 10.2.3 has it; 0 is "at once".
        let seconds = (retryAfter.wholeMilliseconds + 999) / 1000
        var headers: [(name: String, value: String)] = [
            ("Retry-After", String(seconds)), (PeerProtocol.reasonField, reason),
        ]
        if !holders.isEmpty {
            let names = holders.prefix(PeerProtocol.maxHolders).map(\.text).joined(separator: ",")
            headers.append((PeerProtocol.holdersField, names))
        }
        return PeerResponse(503, headers: headers)
    }

    private static func field(_ residency: PeerResidency?, _ chunk: Int) -> [(name: String, value: String)] {
        residency.map { [(PeerProtocol.residencyField, $0.window(around: chunk).headerValue)] } ?? []
    }

    private func tell(_ asked: Asked, _ outcome: PeerServed.Outcome, _ detail: String = "", bytes: UInt64 = 0) {
        var request: ChunkRequest?
        if case .chunks(let wanted) = asked.call { request = wanted }
        observer(
            PeerServed(
                peer: asked.peer, kind: asked.call?.kind ?? .unknown, request: request, parent: asked.parent,
                isTraceIgnored: asked.isTraceIgnored, outcome: outcome, detail: detail, bytes: bytes,
                elapsed: ContinuousClock.now - asked.began))
    }
}
