import ChunkModel
import ChunkResolution
import ContentIndex
import LinuxSystem
import Logging
import Membership
import OCISpec
import PeerExchange
import PeerTransport
import Synchronization

/// Blobs of ordinary images, whole, from peers and for them: docs/formats/mirror.md, "Among peers". What is asked and
/// answered is what the parts of chunkd images are; there is more of it, so it goes to a disk and may take longer.
extension ClusterNode {
    /// One request to a node that is to fetch a blob waits so long for it; a node that lives answers by then.
    static let wholeWait = Duration.seconds(2)
    /// Between two looks for a node to ask, when all are busy.
    static let wholePause = Duration.milliseconds(200)
    /// The trackers are asked again so much later, before the first blob: nodes that begin in the same moment come to them
    /// one by one.
    static let wholeSettling = Duration.milliseconds(120)
    /// Until when a node rests that is not asked for this blob again.
    private static let forGood = Duration.seconds(1 << 40)
    /// A node is held to have a blob when its record says so for certain.
    private static let certain = 0.95

    // MARK: - Joining

    /// This node has some of an ordinary image, which nobody pulls just now. False when that is known.
    @discardableResult
    func announce(_ image: WholeImage) -> Bool {
        let time = now
        let isNew = state.withLock { state in
            guard state.wholes[image.id] == nil else { return false }
            state.wholes[image.id] = image
            return true
        }
        guard isNew else { return false }
        perform(state.withLock { $0.publish(whole: image.id, now: time) })
        return true
    }

    /// This node is interested in an ordinary image from now on. Returns once the trackers have said who else is.
    func join(_ image: WholeImage) async {
        guard announce(image) else { return }
        await askTrackers([image.id])
        // Cancelled: nobody waits any more.
        try? await Task.sleep(for: Self.wholeSettling)
        await askTrackers([image.id])
        Task { [weak self] in
            for pause in Self.again {
                // Not cancelled by anybody.
                try? await Task.sleep(for: pause)
                await self?.askTrackers([image.id])
            }
        }
    }

    /// The mirror has forgotten the image.
    func leave(whole id: WireID) {
        let time = now
        perform(
            state.withLock { state in
                guard state.wholes.removeValue(forKey: id) != nil else { return [] }
                state.noteOwn(id, ContentRecord(.gone), now: time)
                return state.take(.publish(blob: id, isGone: true, payload: []), now: time)
            })
    }

    /// A blob has come, or was evicted: of all images that have it. Others are told with the next news.
    func note(whole digest: Digest, isHere: Bool) {
        state.withLock { state in
            for id in state.wholes.keys { state.wholes[id]?.note(digest, isHere: isHere) }
        }
    }

    // MARK: - From peers

    /// Whom to ask.
    enum WholeRound: Sendable {
        /// Who surely has it, else the next node above in the tree of that blob.
        case first
        /// The registry gave nothing: whoever is interested in the image.
        case last
    }

    private enum WholeSource {
        case ask(PartRequest, PeerEndpoint)
        /// All that could be asked are busy.
        case pause
        case nobody
    }

    /// Fetches blob `number` of an image into a file, within `time`; who gave it. Nil when nobody did: then the file holds
    /// nothing of use. Throws when the file does not take it.
    func fetchWhole(
        _ id: WireID, _ number: Int, into file: File, within time: Duration, _ round: WholeRound
    ) async throws(SystemError) -> NodeName? {
        guard let wholeClient, let blob = state.withLock({ $0.wholes[id]?.blobs[number] }) else { return nil }
        let end = now + time
        // Not to be asked until then.
        var resting: [NodeName: Duration] = [:]
        while now < end, !Task.isCancelled {
            let request: PartRequest
            let endpoint: PeerEndpoint
            switch wholeSource(id, number, resting, round) {
            case .nobody: return nil
            case .pause:
                // Cancelled: the loop ends.
                try? await Task.sleep(for: Self.wholePause)
                continue
            case .ask(let asked, let place): (request, endpoint) = (asked, place)
            }
            let began = now
            let result: PartResult
            do {
                result = try await ask(request, endpoint, blob, wholeClient, file, until: end)
            } catch let error as SystemError { throw error } catch {
                note(error, of: endpoint.name, blob.digest)
                resting[endpoint.name] = Self.forGood
                continue
            }
            switch result {
            case .verified: return endpoint.name
            case .wrong, .absent, .refused: resting[endpoint.name] = Self.forGood
            case .busy(let retryAfter):
                // A node that waited before it said so is at it; one that did not has too many that ask.
                let hasWaited = now - began >= Self.wholeWait / 2
                resting[endpoint.name] = hasWaited ? .zero : now + min(max(retryAfter, Self.wholePause), .seconds(2))
            }
        }
        return nil
    }

    /// One request, ended when the time is up.
    private func ask(
        _ request: PartRequest, _ endpoint: PeerEndpoint, _ blob: Descriptor, _ client: PeerClient, _ file: File,
        until end: Duration
    ) async throws -> PartResult {
        try await withThrowingTaskGroup(of: PartResult?.self) { group in
            group.addTask {
                try await self.take(
                    request, from: endpoint, blob.digest, size: blob.size, by: client, into: file)
            }
            group.addTask {
                // Cancelled: the other was quicker.
                try? await Task.sleep(for: end - self.now)
                return nil
            }
            defer { group.cancelAll() }
            return try await group.next()?.flatMap { $0 } ?? .absent
        }
    }

    private func note(_ error: any Error, of peer: NodeName, _ digest: Digest) {
        if let error = error as? PeerError { parts.metrics.noteFetchError("peer", error.reason) }
        parts.logger.info(
            "a blob could not be had from a peer",
            metadata: ["peer": "\(peer)", "blob": "\(digest)", "error": "\(error)"])
    }

    private func wholeSource(
        _ id: WireID, _ number: Int, _ resting: [NodeName: Duration], _ round: WholeRound
    ) -> WholeSource {
        let time = now
        return state.withLock { state in
            guard let image = state.wholes[id] else { return .nobody }
            let selector = state.selector
            // Still of use at all; and now.
            let isUsable: (NodeName) -> Bool = { name in
                (resting[name] ?? .zero) < Self.forGood && selector.isUsable(name, now: time)
            }
            let isFree: (NodeName) -> Bool = { isUsable($0) && (resting[$0] ?? .zero) <= time }
            let holder = state.index.holders(
                ofChunk: number, of: image.blobs.count, in: id, for: own, now: time, where: isFree
            ).first { $0.probability >= Self.certain }?.node
            let segment = UInt64(number)
            let other =
                round == .first
                ? state.index.above(
                    own, id, segment: segment, fanOut: selector.limits.fanOut, where: isUsable
                ).first
                : state.index.interested(in: id).first { $0 != own && isUsable($0) }
            guard let name = holder ?? other else { return .nobody }
            guard isFree(name) else { return .pause }
            guard let address = state.membership.member(name).flatMap({ PeerAddress($0.record.address) }) else {
                return .nobody
            }
            let isAbove = holder == nil && round == .first
            return .ask(
                PartRequest(
                    part: image.name(number), blob: id, wait: isAbove ? Self.wholeWait : .zero, fetch: isAbove,
                    rank: .ahead),
                PeerEndpoint(name: name, address: address))
        }
    }

    // MARK: - For peers

    /// Answers a request for a blob of an ordinary image; nil when no image of that name is shared here.
    func whole(_ request: PartRequest, for peer: NodeName) async -> ChunkAnswer? {
        let found = state.withLock { state -> (Descriptor?, Bool)? in
            guard let image = state.wholes[request.blob] else { return nil }
            let number = image.number(of: request.part)
            // As for chunks: only from below, so that no circle of waiting can be made.
            let mayFetch = number.map {
                request.fetch && ContentIndex.mayAsk(peer, own, request.blob, segment: UInt64($0))
            }
            return (number.map { image.blobs[$0] }, mayFetch ?? false)
        }
        guard let (blob, mayFetch) = found else { return nil }
        if state.withLock({ $0.isLeaving }) { return .refused(.leaving) }
        guard let blob, let supplier = wholeSupplier.withLock({ $0 }) else { return .absent(nil) }
        let wait = mayFetch ? min(request.wait, PeerProtocol.maxWait) : .zero
        switch await supplier.whole(blob, of: request.blob, mayFetch: mayFetch, wait: wait) {
        case .here(let file, let ended):
            return .found([ChunkBytes(file: file, range: 0..<blob.size)], residency: nil, ended: ended)
        case .coming: return mayFetch ? .busy(retryAfter: .zero, holders: []) : .absent(nil)
        case .absent: return .absent(nil)
        }
    }
}
