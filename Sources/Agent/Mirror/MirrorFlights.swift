import ChunkModel
import ControlAPI
import HTTPTransfer
import LinuxSystem
import Logging
import Mirror
import OCISpec
import RegistryClient
import Synchronization
import Telemetry

/// Blobs on their way, one flight each, and those that have just failed. A value: time is an argument.
struct MirrorFlights {
    /// Why none is begun, or it brought nothing.
    enum Refusal: Error {
        case outcome(MirrorMetrics.Outcome)
        case failed(MirrorFlight.Failure)

        var reason: String {
            switch self {
            case .outcome(let outcome): outcome.rawValue
            case .failed(let failure): failure.rawValue
            }
        }

        /// 404: not from here. 502: it could not be had just now.
        var status: Int {
            switch self {
            case .outcome: 404
            case .failed: 502
            }
        }
    }

    /// At once: eight pulls of as many layers as containerd fetches at a time are 24; the rest is for peers.
    static let maxFlights = 64
    /// A blob that failed is not tried for so long: whoever asks again is better off at the registry.
    static let failedFor = Duration.seconds(30)
    private static let maxFailures = 1024

    private var flights: [Digest: MirrorFlight] = [:]
    private var failures: [Digest: Duration] = [:]

    enum Found {
        case flight(MirrorFlight, isNew: Bool)
        case refused(MirrorMetrics.Outcome)
    }

    /// The flight of a blob, a new one if need be.
    mutating func flight(_ digest: Digest, size: UInt64, now: Duration) -> Found {
        if let found = flights[digest] { return .flight(found, isNew: false) }
        if let until = failures[digest], now < until { return .refused(.failed) }
        guard flights.count < Self.maxFlights else { return .refused(.busy) }
        let flight = MirrorFlight(digest: digest, size: size)
        flights[digest] = flight
        return .flight(flight, isNew: true)
    }

    func flight(_ digest: Digest) -> MirrorFlight? { flights[digest] }

    mutating func end(_ digest: Digest, hasFailed: Bool, now: Duration) {
        flights[digest] = nil
        guard hasFailed else { return failures[digest] = nil }
        if failures.count >= Self.maxFailures { failures = failures.filter { now < $0.value } }
        if failures.count < Self.maxFailures { failures[digest] = now + Self.failedFor }
    }
}

/// Getting blobs: from peers, else from the registry, else from whoever may have it.
extension MirrorService {
    /// How long peers may take before the registry is asked. Nothing is passed on meanwhile: containerd, where it watches
    /// the progress of a pull at all, gives up after a minute without any.
    static let peerPatience = Duration.seconds(40)
    /// The same once the registry has failed.
    static let lastPatience = Duration.seconds(15)

    /// Joins the flight of a blob, or begins it.
    func flight(
        _ digest: Digest, _ size: UInt64, _ image: MirrorBook.Image?, _ reference: Reference, _ access: MirrorAccess
    ) throws(MirrorFlights.Refusal) -> MirrorFlight {
        switch flights.withLock({ $0.flight(digest, size: size, now: now) }) {
        case .refused(let outcome): throw .outcome(outcome)
        case .flight(let flight, let isNew):
            // Another manifest has it with another size: one of them lies.
            guard flight.size == size else { throw .outcome(.size) }
            if isNew { Task { await self.bring(flight, image, reference, access) } }
            return flight
        }
    }

    private func bring(
        _ flight: MirrorFlight, _ image: MirrorBook.Image?, _ reference: Reference, _ access: MirrorAccess
    ) async {
        var failure: MirrorFlight.Failure?
        do {
            let (lease, source) = try await lease(flight, image, reference, access)
            parts.metrics.mirroring.bytes[source].increment(by: flight.size)
            parts.metrics.mirroring.cacheBytes.set(parts.cache.bytes)
            flight.finish(lease)
            parts.cluster?.note(whole: flight.digest, isHere: true)
        } catch {
            let reason: String
            switch error {
            case let error as MirrorFlight.Failure: (failure, reason) = (error, error.rawValue)
            case let error as BlobCache.NoRoom: (failure, reason) = (.disk, error.rawValue)
            default: (failure, reason) = (.disk, MirrorFlight.Failure.disk.rawValue)
            }
            parts.metrics.mirroring.failures[reason].increment()
            parts.metrics.events.note(.sourceFailed, "mirror", "\(reason): blob \(flight.digest.short)")
            parts.logger.warning(
                "the mirror has not got a blob; containerd goes on at the registry",
                metadata: [
                    "repository": "\(reference.name)", "blob": "\(flight.digest)", "reason": "\(reason)",
                    "error": "\(error)",
                ])
        }
        if let failure { flight.fail(failure) }
        flights.withLock { $0.end(flight.digest, hasFailed: failure != nil, now: now) }
    }

    private func lease(
        _ flight: MirrorFlight, _ image: MirrorBook.Image?, _ reference: Reference, _ access: MirrorAccess
    ) async throws -> (BlobCache.Lease, source: String) {
        let draft = try await begin(flight)
        if try await isFromPeer(flight, image, draft, within: Self.peerPatience, .first) {
            return (try await commit(draft, flight), "peer")
        }
        let sink = MirrorSink(draft.file, flight)
        flight.begin(draft.file)
        guard let refusal = await fetch(flight, into: sink, reference, access) else {
            return (try await judge(sink, draft, flight, reference), "registry")
        }
        // A file of its own: what the registry gave of the other is being passed on.
        let other = try await begin(flight)
        if try await isFromPeer(flight, image, other, within: Self.lastPatience, .last) {
            return (try await commit(other, flight), "peer")
        }
        parts.logger.info(
            "the registry did not give a blob",
            metadata: ["repository": "\(reference.name)", "blob": "\(flight.digest)", "error": "\(refusal)"])
        if refusal.code == .unauthorized { book.withLock { $0.revoke(access, reference) } }
        throw refusal.code == .unauthorized ? MirrorFlight.Failure.denied : .registry
    }

    /// From the registry; why it did not give it, if it did not.
    private func fetch(
        _ flight: MirrorFlight, into sink: MirrorSink, _ reference: Reference, _ access: MirrorAccess
    ) async -> RegistryError? {
        do throws(RegistryError) {
            _ = try await access.client.blobRange(
                flight.digest, of: reference, range: 0..<flight.size, totalSize: flight.size
            ) { sink.take($0) ? .continue : .stop }
            return nil
        } catch { return error }
    }

    /// What came from the registry, if it is right.
    private func judge(
        _ sink: MirrorSink, _ draft: BlobCache.Draft, _ flight: MirrorFlight, _ reference: Reference
    ) async throws -> BlobCache.Lease {
        if let failure = sink.failure { throw failure }
        let (found, bytes) = sink.finish()
        guard found == flight.digest, bytes == flight.size else {
            parts.logger.error(
                "the registry sent wrong bytes",
                metadata: [
                    "repository": "\(reference.name)", "expected": "\(flight.digest)", "found": "\(found)",
                    "bytes": "\(bytes) of \(flight.size)",
                ])
            throw MirrorFlight.Failure.wrongBytes
        }
        return try await commit(draft, flight)
    }

    private func begin(_ flight: MirrorFlight) async throws -> BlobCache.Draft {
        let cache = parts.cache
        return try await parts.disk.run { try cache.begin(flight.digest, size: flight.size) }
    }

    private func commit(_ draft: BlobCache.Draft, _ flight: MirrorFlight) async throws -> BlobCache.Lease {
        let cache = parts.cache
        return try await parts.disk.run { () throws(SystemError) in try cache.commit(draft, flight.digest) }
    }

    private func isFromPeer(
        _ flight: MirrorFlight, _ image: MirrorBook.Image?, _ draft: BlobCache.Draft, within time: Duration,
        _ round: ClusterNode.WholeRound
    ) async throws -> Bool {
        guard let cluster = parts.cluster, let image, let id = image.id,
            let number = image.blobs.firstIndex(where: { $0.digest == flight.digest })
        else { return false }
        return try await cluster.fetchWhole(id, number, into: draft.file, within: time, round) != nil
    }
}

// MARK: - For peers

extension MirrorService: WholeSupplier {
    /// Bytes that were hashed no longer ago than this are given to peers as they are: they hash them anyway.
    static let peerTrust = Duration.seconds(600)

    func whole(_ blob: Descriptor, of image: WireID, mayFetch: Bool, wait: Duration) async -> WholeAnswer {
        let (cache, disk) = (parts.cache, parts.disk)
        if let lease = await disk.run({ cache.open(blob.digest, size: blob.size, trust: Self.peerTrust) }) {
            return here(lease)
        }
        guard let flight = flight(blob, image, mayFetch: mayFetch) else { return .absent }
        switch await flight.outcome(within: wait) {
        case .success(let lease): return here(lease)
        case .failure: return .absent
        case nil: return .coming
        }
    }

    /// The flight there is; or a new one, for a node that the rendezvous has below this one, with what the image's manifest
    /// was pulled with here.
    private func flight(_ blob: Descriptor, _ id: WireID, mayFetch: Bool) -> MirrorFlight? {
        if let flight = flights.withLock({ $0.flight(blob.digest) }) { return flight.size == blob.size ? flight : nil }
        guard mayFetch, let image = book.withLock({ $0.image(named: id) }), let access = image.access(now: now) else {
            return nil
        }
        // Refused: the peer asks the next node, or the registry.
        return try? flight(blob.digest, blob.size, image, image.repository, access)
    }

    private func here(_ lease: BlobCache.Lease) -> WholeAnswer {
        let sent = parts.metrics.mirroring.sentToPeers
        return .here(lease.file) { isSent in if isSent { sent.increment(by: lease.size) } }
    }
}
