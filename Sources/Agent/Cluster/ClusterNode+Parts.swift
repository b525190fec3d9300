import ChunkModel
import ChunkResolution
import ContentIndex
import ControlAPI
import HTTPTransfer
import Integrity
import LinuxSystem
import Logging
import Membership
import PeerExchange
import PeerTransport
import Synchronization
import Telemetry

/// What a mount needs before its first chunk: bootstrap, chunk indexes, seek tables. Asked of peers before the registry,
/// so that of a thousand nodes that mount an image at once, one fetches them there.
extension ClusterNode {
    /// How long a node that mounts the same image now may be waited for.
    static let partPatience = Duration.milliseconds(1500)
    /// Nodes asked before the registry: of those that have it, and else of those that mount as well; and after it failed.
    static let partHolders = 2
    static let partClimbs = 2
    static let partLastResorts = 8

    /// Who is asked, and for how long.
    enum PartRound: Sendable {
        /// Before the registry: who surely has it, else who mounts as well.
        case first
        /// The registry gave nothing: whoever may have it.
        case last
    }

    /// A part of an image from a peer, verified, in a memory file that is not sealed; nil when none gave it, or the image
    /// is not shared.
    func fetchPart(_ digest: Digest, size: UInt64, of image: Digest, _ round: PartRound) async -> File? {
        guard size > 0 else { return nil }
        for asked in partSources(digest, of: image, round) {
            let name = asked.endpoint.name
            do {
                let found = try await fetchPart(asked, digest, size)
                guard let found else { continue }
                parts.metrics.cluster.imageParts["peer"].increment(by: size)
                return found
            } catch let error as PeerError {
                parts.metrics.noteFetchError("peer", error.reason)
            } catch {
                parts.logger.warning(
                    "a part of an image could not be taken from a peer",
                    metadata: ["peer": "\(name)", "part": "\(digest)", "error": "\(error)"])
            }
        }
        return nil
    }

    private struct AskedForPart {
        let request: PartRequest
        let endpoint: PeerEndpoint
    }

    private func partSources(_ digest: Digest, of image: Digest, _ round: PartRound) -> [AskedForPart] {
        let time = now
        return state.withLock { state in
            guard let shared = state.images[image] else { return [] }
            let isUsable = { state.selector.isUsable($0, now: time) }
            var names: [(NodeName, Duration)] = state.index.mounted(
                shared.first, for: own, limit: round == .first ? Self.partHolders : Self.partLastResorts
            ).filter(isUsable).map { ($0, .zero) }
            if round == .first, names.isEmpty {
                let above = state.index.above(
                    own, shared.first, segment: 0, fanOut: state.selector.limits.fanOut, where: isUsable)
                names = above.prefix(Self.partClimbs).map { ($0, Self.partPatience) }
            }
            return names.compactMap { name, wait in
                guard let address = state.membership.member(name).flatMap({ PeerAddress($0.record.address) }) else {
                    return nil
                }
                return AskedForPart(
                    request: PartRequest(part: shared.part(digest), blob: shared.first, wait: wait),
                    endpoint: PeerEndpoint(name: name, address: address))
            }
        }
    }

    private func fetchPart(_ asked: AskedForPart, _ digest: Digest, _ size: UInt64) async throws -> File? {
        let file = try File.memory(name: "part")
        let result = try await take(asked.request, from: asked.endpoint, digest, size: size, by: client, into: file)
        return result == .verified ? file : nil
    }

    /// What became of a request for something whole.
    enum PartResult: Equatable {
        /// All of it is in the file, and is what the digest says.
        case verified
        /// Wrong bytes: the peer is in quarantine.
        case wrong
        case absent, refused
        case busy(retryAfter: Duration)
    }

    /// Fetches something whole from a peer into a file, which holds nothing of use unless it is `verified`.
    func take(
        _ request: PartRequest, from endpoint: PeerEndpoint, _ digest: Digest, size: UInt64, by client: PeerClient,
        into file: File
    ) async throws -> PartResult {
        let taken = PartTaker(file)
        switch try await client.fetch(request, from: endpoint, size: size, sink: { taken.take($0) }) {
        case .delivered: break
        case .absent: return .absent
        case .busy(let retryAfter, _): return .busy(retryAfter: retryAfter)
        case .refused: return .refused
        }
        let (found, end) = try taken.finish()
        if end == size, found == digest { return .verified }
        let peer = endpoint.name
        let time = now
        state.withLock { $0.selector.quarantine(peer, reason: "wrong_bytes", now: time) }
        parts.metrics.cluster.quarantined["wrong_bytes"].increment()
        parts.metrics.events.note(.peerQuarantined, "\(peer)", "sent a wrong part of an image")
        parts.logger.warning(
            "a peer sent a wrong part of an image",
            metadata: ["peer": "\(peer)", "found": "\(found)", "expected": "\(digest)", "bytes": "\(end) of \(size)"])
        return .wrong
    }

    // MARK: - Given to others

    /// This part of an image is here now.
    func offer(_ digest: Digest, of image: Digest, open: @escaping @Sendable () async throws -> File) {
        let waiters = state.withLock { state -> [Waiting.Waiter] in
            guard let name = state.images[image]?.part(digest) else { return [] }
            state.images[image]?.parts[name] = open
            return state.waiting.take(.part(name))
        }
        for waiter in waiters { waiter.resume() }
    }

    func part(_ request: PartRequest, for peer: NodeName) async -> ChunkAnswer {
        if let answer = await whole(request, for: peer) { return answer }
        let deadline = now + min(request.wait, PeerProtocol.maxWait)
        while true {
            if state.withLock({ $0.isLeaving }) { return .refused(.leaving) }
            switch state.withLock({ Self.find(request, $0) }) {
            // A wrong name is waited for as one that is still coming, and tells no more in the end.
            case .unknown: return .absent(nil)
            case .here(let open):
                do {
                    let file = try await open()
                    return .found([ChunkBytes(file: file, range: 0..<(try file.size()))], residency: nil)
                } catch {
                    parts.logger.warning("a part of an image cannot be given", metadata: ["error": "\(error)"])
                    return .absent(nil)
                }
            case .coming:
                guard now < deadline, !Task.isCancelled else { return .absent(nil) }
                let hasWaited = await wait(for: .part(request.part), until: deadline) { state in
                    if case .coming = Self.find(request, state) { true } else { false }
                }
                if !hasWaited { return .busy(retryAfter: Self.crowded, holders: []) }
            }
        }
    }

    private enum Found {
        /// No image with that first blob is shared here.
        case unknown
        case coming
        case here(@Sendable () async throws -> File)
    }

    private static func find(_ request: PartRequest, _ state: borrowing ClusterState) -> Found {
        let images = state.images.values.filter { $0.first == request.blob }
        if images.isEmpty { return .unknown }
        return images.lazy.compactMap { $0.parts[request.part] }.first.map { .here($0) } ?? .coming
    }
}

/// Takes the bytes of a part as they come: into memory, and hashed.
private final class PartTaker: @unchecked Sendable {
    // @unchecked: one piece comes after the other, and `finish` after the last.
    private let file: File
    private var hash = SHA256()
    private var end: UInt64 = 0
    private var failure: SystemError?

    init(_ file: File) { self.file = file }

    /// Where the file is one on a disk, this waits for it: such requests have a transfer thread of their own.
    func take(_ piece: UnsafeRawBufferPointer) -> SinkDecision {
        do throws(SystemError) { try file.writeAll(piece, at: end) } catch {
            failure = error
            return .stop
        }
        hash.update(piece)
        end += UInt64(piece.count)
        return .continue
    }

    /// Throws when the file did not take it: no fault of the peer's.
    func finish() throws(SystemError) -> (digest: Digest, bytes: UInt64) {
        if let failure { throw failure }
        return (hash.finalize(), end)
    }
}
