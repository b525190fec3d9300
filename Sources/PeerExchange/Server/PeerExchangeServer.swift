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
    private let budget = Mutex(RequestBudget(RequestBudget.Limits()))
    private let start = ContinuousClock.now

    /// How long an answer waits for a slot at least, whatever the request says.
    private static let slotPatience = Duration.seconds(2)

    /// `pool` reads what is not in the page cache; two to four threads, started by the caller.
    package init(
        _ parts: Parts, uploads: UploadGate, pool: NIOThreadPool,
        observer: @escaping PeerServedObserver = { _ in }
    ) {
        self.parts = parts
        self.uploads = uploads
        self.pool = pool
        self.observer = observer
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
        let call: PeerCall
        do throws(PeerCallError) {
            call = try PeerCall(method: request.method, target: request.target, header: request.header)
        } catch {
            tell(request.peer, nil, .malformed, error.reason.rawValue, began: began)
            return Self.refusal(error.status, error.reason.rawValue)
        }
        var isComplaint = false
        if case .complaint = call { isComplaint = true }
        let verdict = budget.withLock { $0.begin(request.peer, isComplaint: isComplaint, now: began - start) }
        guard verdict == .go else {
            tell(request.peer, call, .busy, PeerDenial.rate.rawValue, began: began)
            return Self.busy(.seconds(1), [], reason: PeerDenial.rate.rawValue)
        }
        defer { budget.withLock { $0.end(request.peer) } }
        switch call {
        case .chunks(let wanted):
            let answer = await parts.chunks.chunks(wanted, for: request.peer)
            return await stream(answer, at: wanted.at, wanted.rank, wanted.wait, request.peer, call, began)
        case .part(let wanted):
            let answer = await parts.chunks.part(wanted, for: request.peer)
            return await stream(answer, at: 0, wanted.rank, wanted.wait, request.peer, call, began)
        case .residency(let blob, let proof): return await residency(blob, proof, request, call, began)
        case .gossip:
            return frame(await parts.gossip.gossip(request.body, from: request.peer), request, call, began)
        case .mount:
            return frame(await parts.mount.mount(request.body, from: request.peer), request, call, began)
        case .complaint(let complaint):
            await parts.complaints.complaint(complaint, from: request.peer)
            tell(request.peer, call, .sent, "", began: began)
            return PeerResponse(204)
        }
    }

    private func stream(
        _ answer: ChunkAnswer, at chunk: Int, _ rank: PeerRank, _ wait: Duration, _ peer: NodeName, _ call: PeerCall,
        _ began: ContinuousClock.Instant
    ) async -> PeerResponse {
        switch answer {
        case .found(let found, let residency, let ended):
            let patience = max(wait, Self.slotPatience)
            guard let id = await uploads.open(peer, rank, patience: patience) else {
                ended(false)
                tell(peer, call, .busy, "slots", began: began)
                return Self.busy(.seconds(1), [], reason: "slots")
            }
            let stream = ChunkStream(found, gate: uploads, id: id, pool: pool) { [weak self] outcome, bytes in
                ended(outcome == .sent)
                self?.tell(peer, call, outcome, "", bytes: bytes, began: began)
            }
            return PeerResponse(
                200, headers: [("Content-Type", "application/octet-stream")] + Self.field(residency, chunk),
                body: .source(stream, length: stream.length))
        case .absent(let residency):
            tell(peer, call, .absent, "", began: began)
            return PeerResponse(404, headers: Self.field(residency, chunk))
        case .busy(let retryAfter, let holders):
            tell(peer, call, .busy, "holders", began: began)
            return Self.busy(retryAfter, holders, reason: "busy")
        case .refused(let denial):
            tell(peer, call, .denied, denial.rawValue, began: began)
            return Self.refusal(403, denial.rawValue)
        }
    }

    private func residency(
        _ blob: WireID, _ proof: WireID, _ request: PeerRequest, _ call: PeerCall, _ began: ContinuousClock.Instant
    ) async -> PeerResponse {
        guard let known = await parts.chunks.residency(blob: blob, proof: proof, for: request.peer) else {
            tell(request.peer, call, .absent, "", began: began)
            return PeerResponse(404)
        }
        let bits = known.residency.bits
        tell(request.peer, call, .sent, "", bytes: UInt64(bits.count), began: began)
        return PeerResponse(
            200,
            headers: [
                ("Content-Type", "application/octet-stream"), (PeerProtocol.chunksField, String(known.chunkCount)),
            ], body: .bytes(bits))
    }

    private func frame(
        _ bytes: [UInt8]?, _ request: PeerRequest, _ call: PeerCall, _ began: ContinuousClock.Instant
    ) -> PeerResponse {
        guard let bytes else {
            tell(request.peer, call, .malformed, "frame", began: began)
            return Self.refusal(400, "frame")
        }
        tell(request.peer, call, .sent, "", bytes: UInt64(bytes.count), began: began)
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

    private func tell(
        _ peer: NodeName, _ call: PeerCall?, _ outcome: PeerServed.Outcome, _ detail: String, bytes: UInt64 = 0,
        began: ContinuousClock.Instant
    ) {
        var rank: PeerRank?
        if case .chunks(let request) = call { rank = request.rank }
        observer(
            PeerServed(
                peer: peer, kind: call?.kind ?? .unknown, rank: rank, outcome: outcome, detail: detail, bytes: bytes,
                elapsed: ContinuousClock.now - began))
    }
}
