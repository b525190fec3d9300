import ChunkModel
import Integrity
import Logging
import Mirror
import OCISpec
import RegistryClient
import Synchronization
import Telemetry

/// Answers containerd for ordinary images: docs/formats/mirror.md. Thread-safe; never blocks.
///
/// Whatever it cannot do it says so at once, and containerd goes on to the registry: a pull never fails because of it.
final class MirrorService: MirrorResponder {
    struct Parts: Sendable {
        let registries: Set<String>
        let accesses: MirrorAccesses
        let cache: BlobCache
        let records: ImageRecords
        /// For reading, hashing and syncing blobs.
        let disk: WorkQueue
        let cluster: ClusterNode?
        let sharing: SharingPolicy
        let metrics: AgentMetrics
        let logger: Logger
    }

    let parts: Parts
    let book = Mutex(MirrorBook())
    let flights = Mutex(MirrorFlights())
    private let start = ContinuousClock.now

    init(_ parts: Parts) {
        self.parts = parts
        parts.metrics.mirroring.cacheBytes.set(parts.cache.bytes)
    }

    /// Monotonic time since this was made.
    var now: Duration { ContinuousClock.now - start }

    func respond(to call: MirrorCall) async -> MirrorAnswer {
        let request: MirrorRequest
        do throws(MirrorRefusal) {
            request = try MirrorRequest(method: call.method, target: call.target, registries: parts.registries)
        } catch {
            return refuse(.other, error.rawValue, status: error.status)
        }
        switch request.subject {
        case .base:
            count(.base, .ok)
            return MirrorAnswer(200, headers: [("Content-Type", "application/json")], body: .bytes(Array("{}".utf8)))
        case .manifest(let reference):
            guard let access = access(reference, call) else { return refuse(.manifest, .denied) }
            return await manifest(reference, access)
        case .blob(let digest, let reference):
            guard let access = access(reference, call) else { return refuse(.blob, .denied) }
            return await blob(digest, reference, access, call, isHead: request.isHead)
        }
    }

    /// How to ask the registry for whoever calls; nil when what he shows is of no known form.
    private func access(_ reference: Reference, _ call: MirrorCall) -> Caller? {
        guard let value = call.field("authorization") else {
            return Caller(access: parts.accesses.access(reference.registry, showing: nil), hasShown: false)
        }
        guard let credential = RegistryCredential(basicAuthorization: value) else { return nil }
        return Caller(access: parts.accesses.access(reference.registry, showing: credential), hasShown: true)
    }

    struct Caller {
        let access: MirrorAccess
        /// Credentials of his own.
        let hasShown: Bool
    }

    // MARK: - Manifests

    /// Always from the registry: having it is what proves the right to the rest.
    private func manifest(_ reference: Reference, _ caller: Caller) async -> MirrorAnswer {
        let found: FetchedManifest
        do throws(RegistryError) { found = try await caller.access.client.manifest(reference) } catch {
            return refuse(.manifest, error, reference, caller)
        }
        book.withLock { $0.grant(caller.access, reference, now: now) }
        if case .manifest(let manifest) = found.document { await note(manifest, found, reference, caller.access) }
        count(.manifest, .ok)
        return MirrorAnswer(
            200,
            headers: [
                ("Content-Type", found.descriptor.mediaType),
                ("Docker-Content-Digest", found.descriptor.digest.description),
            ], body: .bytes(found.bytes))
    }

    /// The image is known from now on; returns once peers that pull it as well had their time to be found.
    private func note(
        _ manifest: Manifest, _ found: FetchedManifest, _ reference: Reference, _ access: MirrorAccess
    ) async {
        let (digest, blobs) = (found.descriptor.digest, Self.blobs(of: manifest))
        guard !blobs.isEmpty else { return }
        var image: WholeImage?
        if let key = await key(found, reference, access), parts.cluster != nil {
            image = whole(digest, blobs, key.value)
        }
        let forgotten = book.withLock { $0.note(digest, blobs, of: reference, id: image?.id, by: access, now: now) }
        for old in forgotten {
            if let id = old.id { parts.cluster?.leave(whole: id) }
            await forget(old.manifest)
        }
        guard let image else { return }
        await remember(image, found.bytes, of: reference)
        await parts.cluster?.join(image)
    }

    /// Config and layers, each digest once.
    static func blobs(of manifest: Manifest) -> [Descriptor] {
        var blobs: [Descriptor] = []
        for blob in [manifest.config] + manifest.layers
        where blob.size > 0 && !blobs.contains(where: { $0.digest == blob.digest }) {
            blobs.append(blob)
        }
        return blobs
    }

    /// The image as peers may know it, with what of it is here.
    func whole(_ digest: Digest, _ blobs: [Descriptor], _ key: ManifestKey?) -> WholeImage {
        var image = WholeImage(digest, blobs, key: key)
        for blob in blobs where parts.cache.has(blob.digest, size: blob.size) { image.note(blob.digest, isHere: true) }
        return image
    }

    private struct SharingKey {
        let value: ManifestKey?
    }

    /// What makes the image's names among peers; nil when it is not shared.
    private func key(_ found: FetchedManifest, _ reference: Reference, _ access: MirrorAccess) async -> SharingKey? {
        switch parts.sharing.policy(of: reference.name) {
        case .none: return nil
        case .publicImage: return SharingKey(value: nil)
        case .manifest: return SharingKey(value: ManifestKey(manifest: found.bytes))
        case .byCredentials:
            var isPublic = access.isAnonymous
            if !isPublic, access.isNode { isPublic = await access.client.isAnonymous(reference) }
            return SharingKey(value: isPublic ? nil : ManifestKey(manifest: found.bytes))
        }
    }

    // MARK: - Blobs

    private func blob(
        _ digest: Digest, _ reference: Reference, _ caller: Caller, _ call: MirrorCall, isHead: Bool
    ) async -> MirrorAnswer {
        var image: MirrorBook.Image?
        var said: UInt64?
        if book.withLock({ $0.isGranted(caller.access, reference, now: now) }) {
            image = book.withLock { $0.image(of: reference, with: digest, now: now) }
        }
        if image == nil {
            // Whoever may ask how long it is may have it.
            do throws(RegistryError) { said = try await caller.access.client.blobSize(digest, of: reference) } catch {
                return refuse(.blob, error, reference, caller)
            }
            book.withLock { $0.grant(caller.access, reference, now: now) }
            image = book.withLock { $0.image(of: reference, with: digest, now: now) }
        }
        let size = image?.blobs.first { $0.digest == digest }?.size ?? said ?? 0
        guard size > 0, said == nil || said == size else { return refuse(.blob, .size) }
        let asked = call.field("range").flatMap { RequestedRange($0) }
        guard let range = asked.map({ $0.range(of: size) }) ?? 0..<size else {
            count(.blob, .range)
            return MirrorAnswer(416, headers: [("Content-Range", "bytes */\(size)")])
        }
        var answer = MirrorAnswer(
            asked == nil ? 200 : 206,
            headers: [
                ("Content-Type", "application/octet-stream"), ("Docker-Content-Digest", digest.description),
                ("Accept-Ranges", "bytes"),
            ])
        if asked != nil {
            answer.headers.append(("Content-Range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)"))
        }
        if isHead {
            answer.headers.append(("Content-Length", String(range.count)))
        } else {
            do throws(MirrorFlights.Refusal) {
                let body = try await body(digest, size, range, image, reference, caller.access)
                answer.body = .stream(body, length: UInt64(range.count))
            } catch {
                return refuse(.blob, error.reason, status: error.status)
            }
        }
        count(.blob, .ok)
        return answer
    }

    /// The bytes, from the disk or as they come; throws before the first of them when there will be none.
    private func body(
        _ digest: Digest, _ size: UInt64, _ range: Range<UInt64>, _ image: MirrorBook.Image?, _ reference: Reference,
        _ access: MirrorAccess
    ) async throws(MirrorFlights.Refusal) -> MirrorBytes {
        let (cache, disk) = (parts.cache, parts.disk)
        // Hashed anew: a file that has rotted would fail the pull.
        if let lease = await disk.run({ cache.open(digest, size: size, trust: .zero) }) {
            parts.metrics.mirroring.bytes["cache"].increment(by: UInt64(range.count))
            return MirrorBytes(range, disk) { _ in (lease.file, size) }
        }
        let flight = try flight(digest, size, image, reference, access)
        do throws(MirrorFlight.Failure) { _ = try await flight.bytes(from: range.lowerBound) } catch {
            throw .failed(error)
        }
        return MirrorBytes(range, disk) { offset in
            // Why is counted and logged where it failed.
            try? await flight.bytes(from: offset)
        }
    }

    // MARK: - Refusals

    private func refuse(
        _ kind: MirrorMetrics.Kind, _ error: RegistryError, _ reference: Reference, _ caller: Caller
    ) -> MirrorAnswer {
        switch error.code {
        case .unauthorized:
            book.withLock { $0.revoke(caller.access, reference) }
            guard !caller.hasShown else { return refuse(kind, .denied) }
            count(kind, .challenged)
            var answer = Self.error(401, "UNAUTHORIZED", "\(reference.registry) wants credentials")
            // The registry's name is a validated one: it holds no quotes.
            answer.headers.append(("WWW-Authenticate", "Basic realm=\"\(reference.registry)\""))
            return answer
        case .notFound: return refuse(kind, .notFound)
        case .cancelled: return refuse(kind, MirrorFlight.Failure.stopping.rawValue, status: 502)
        default:
            parts.logger.warning(
                "the mirror could not ask the registry; containerd does",
                metadata: ["repository": "\(reference.name)", "kind": "\(kind.rawValue)", "error": "\(error)"])
            return refuse(kind, MirrorFlight.Failure.registry.rawValue, status: 502)
        }
    }

    private func refuse(_ kind: MirrorMetrics.Kind, _ outcome: MirrorMetrics.Outcome) -> MirrorAnswer {
        refuse(kind, outcome.rawValue, status: 404)
    }

    private func refuse(_ kind: MirrorMetrics.Kind, _ reason: String, status: Int) -> MirrorAnswer {
        parts.metrics.mirroring.requests[kind.rawValue, reason].increment()
        return Self.error(status, status == 404 ? "NAME_UNKNOWN" : "UNSUPPORTED", "not from this mirror: \(reason)")
    }

    private func count(_ kind: MirrorMetrics.Kind, _ outcome: MirrorMetrics.Outcome) {
        parts.metrics.mirroring.requests[kind.rawValue, outcome.rawValue].increment()
    }

    /// The body of an error (distribution spec, "Error codes"); the texts are ours and need no escapes.
    private static func error(_ status: Int, _ code: String, _ message: String) -> MirrorAnswer {
        MirrorAnswer(
            status, headers: [("Content-Type", "application/json")],
            body: .bytes(Array(#"{"errors":[{"code":"\#(code)","message":"chunkd: \#(message)"}]}"#.utf8)))
    }
}
