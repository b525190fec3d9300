import ChunkModel
import Glibc
import HTTPTransfer
import Integrity
import OCISpec
import Synchronization

/// How a ranged read went.
package struct RangeResult: Sendable, Equatable {
    /// `HOST[:PORT]` that served the last part: a registry, a mirror, or what one redirected to.
    package let host: String
    /// HTTP exchanges it took.
    package let exchanges: Int
    /// The host sent the whole blob and most was thrown away: read it in one go rather than in ranges.
    package let isRangeIgnored: Bool
}

extension RegistryClient {
    /// Streams exactly the bytes of `range` of a blob, in order and once, however many requests it takes.
    ///
    /// The bytes are **not** verified. When it throws, the sink has been given a prefix of the range. `totalSize` is
    /// the blob's size from its descriptor, checked against what the registry says. The sink is called on the transfer
    /// thread: `.stop` ends the read well; after `.pause` the control's `resume()` offers the same bytes again.
    /// `bypassingCaches` asks the registry itself, past mirrors, remembered redirects and HTTP caches, for when bytes
    /// turned out wrong.
    package func blobRange(
        _ digest: Digest, of reference: Reference, range: Range<UInt64>, totalSize: UInt64? = nil,
        priority: TransferPriority = .onDemand, control: TransferControl? = nil, bypassingCaches: Bool = false,
        sink: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    ) async throws(RegistryError) -> RangeResult {
        guard range.upperBound <= totalSize ?? UInt64(Int64.max) else {
            throw RegistryError(
                .sizeMismatch, "bytes \(range) of a blob of \(totalSize.map(String.init) ?? "2^63") bytes")
        }
        guard !range.isEmpty else { return RangeResult(host: reference.registry, exchanges: 0, isRangeIgnored: false) }
        let progress = RangeProgress(RangeReader(wanted: range, totalSize: totalSize), sink: sink)
        return try await overEndpoints(reference.registry, bypassingCaches: bypassingCaches) {
            (endpoint, attempts) throws(RegistryError) in
            let repository = endpoint.repository(reference.repository)
            let target = "\(repository)/blobs/\(digest)"
            guard let url = endpoint.url(target) else {
                throw RegistryError(.configuration, "no URL for \(OCISpecError.quote(target))")
            }
            var call = RegistryCall(
                endpoint: endpoint, chain: RedirectPolicy(start: url, endpoint: endpoint.origin),
                scopes: ["repository:\(repository):pull"], operation: .range,
                priority: priority, bufferSize: .blob, total: nil, control: control)
            if bypassingCaches {
                call.headers = [("Cache-Control", "no-cache")]
            } else {
                call.redirectKey = RedirectCache.Key(endpoint: endpoint, target: target)
            }
            return try await readRange(call, progress, attempts: attempts)
        }
    }

    /// Responses one read may take: short ones that each brought something are not counted as attempts.
    private static var maxResponses: Int { 64 }

    /// Goes on from where the last response ended until the range is read.
    private func readRange(
        _ call: RegistryCall, _ progress: RangeProgress, attempts: Int
    ) async throws(RegistryError) -> RangeResult {
        var call = call
        var attempt = 1
        var exchanges = 0
        for _ in 0..<Self.maxResponses {
            let before = progress.position
            let asked = progress.begin()
            call.range = asked
            do throws(CallFailure) {
                let result = try await perform(call, sink: progress.sink(asked: asked))
                exchanges += result.exchanges
                if let error = progress.refusal {
                    throw CallFailure(error: error, origin: result.url.origin, isRetriable: false)
                }
                guard result.status == 200 || result.status == 206 else {
                    throw CallFailure(error: statusError(call, result), origin: result.url.origin, isRetriable: false)
                }
                if progress.isRangeIgnored { noteIgnoredRange(result.url.origin) }
                if progress.isDone {
                    return RangeResult(
                        host: result.url.origin.authority, exchanges: exchanges, isRangeIgnored: progress.isRangeIgnored
                    )
                }
                // Ended well but short (no Content-Length, or a shorter part): go on, unless it brought nothing.
                guard progress.position > before else {
                    throw CallFailure(
                        error: RegistryError(
                            .sizeMismatch, "\(call.url.redacted): ended at byte \(before), expected more"),
                        origin: result.url.origin, isRetriable: true)
                }
            } catch {
                if progress.position > before { attempt = 1 }
                attempt += 1
                guard attempt <= attempts, try await waits(for: error, attempt: attempt) else { throw error.error }
            }
        }
        throw RegistryError(
            .malformedResponse, "\(call.url.redacted): more than \(Self.maxResponses) responses for one range")
    }

    /// Remembers a host that ignores Range; the observer hears of it once.
    private func noteIgnoredRange(_ origin: HTTPURL.Origin) {
        let isNew = withHealth(origin) { health in
            defer { health.ignoresRange = true }
            return !health.ignoresRange
        }
        if isNew { observer(.rangeIgnored(host: origin.authority)) }
    }

    /// Whether the registry, or a mirror of it, has answered a range with a whole blob: read blobs in one go then.
    package func ignoresRanges(_ registry: String) -> Bool {
        guard let endpoints = try? configuration.pullEndpoints(of: registry) else { return false }
        return endpoints.contains { endpoint in withHealth(endpoint.origin) { $0.ignoresRange } }
    }

    /// A small blob in memory (config, chunk index), of exactly `descriptor.size` bytes and verified by its digest.
    /// `limit` bounds what the descriptor may ask for (`tooLarge`).
    package func blob(
        _ descriptor: Descriptor, of reference: Reference, limit: Int, priority: TransferPriority = .onDemand
    ) async throws(RegistryError) -> [UInt8] {
        guard descriptor.size <= UInt64(max(0, limit)) else {
            throw RegistryError(
                .tooLarge, "blob \(descriptor.digest.short) has \(descriptor.size) bytes, limit \(limit)")
        }
        let store = BlobMemory(capacity: Int(descriptor.size))
        try await verified(descriptor, of: reference, priority: priority) {
            store.start()
        } sink: {
            store.append($0)
        }
        return store.bytes
    }

    /// Writes a whole blob to `fileDescriptor` from `offset` on and verifies size and digest on the way. When it
    /// throws, the file holds unspecified bytes there. The pwrite(2) calls are made on the transfer thread: meant for
    /// memory files and the page cache.
    package func download(
        _ descriptor: Descriptor, of reference: Reference, to fileDescriptor: Int32, offset: Int64 = 0,
        priority: TransferPriority = .onDemand
    ) async throws(RegistryError) {
        let file = BlobFile(fileDescriptor, offset: offset)
        do throws(RegistryError) {
            try await verified(descriptor, of: reference, priority: priority) {
                file.start()
            } sink: {
                file.append($0)
            }
        } catch {
            if let failed = file.failure { throw RegistryError(.localFile, "pwrite: errno \(failed)") }
            throw error
        }
    }

    /// Reads a whole blob and hashes it. Wrong bytes are asked for once more, past mirrors and caches.
    private func verified(
        _ descriptor: Descriptor, of reference: Reference, priority: TransferPriority,
        start: @Sendable () -> Void, sink: @escaping @Sendable (UnsafeRawBufferPointer) -> Bool
    ) async throws(RegistryError) {
        var found = descriptor.digest
        for bypassingCaches in [false, true] {
            start()
            let hasher = SharedHasher()
            _ = try await blobRange(
                descriptor.digest, of: reference, range: 0..<descriptor.size, totalSize: descriptor.size,
                priority: priority, bypassingCaches: bypassingCaches
            ) { piece in
                hasher.update(piece)
                return sink(piece) ? .continue : .stop
            }
            found = hasher.finish()
            if found == descriptor.digest { return }
        }
        throw RegistryError(
            .digestMismatch,
            "blob of \(reference.name) hashes to \(found), expected \(descriptor.digest)")
    }
}

/// The state of one ranged read, shared between its task and the transfer thread (one at a time, hence no contention).
final class RangeProgress: Sendable {
    private struct State {
        var reader: RangeReader
        var refusal: RegistryError?
    }

    private let state: Mutex<State>
    private let next: @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    private let isStopped = Mutex(false)

    init(_ reader: RangeReader, sink: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision) {
        state = Mutex(State(reader: reader))
        next = sink
    }

    var position: UInt64 { state.withLock { $0.reader.position } }
    var isDone: Bool { isStopped.withLock { $0 } || state.withLock { $0.reader.isDone } }
    var isRangeIgnored: Bool { state.withLock { $0.reader.isRangeIgnored } }
    /// Why the running response's head was refused.
    var refusal: RegistryError? { state.withLock { $0.refusal } }

    /// The range to ask for next.
    func begin() -> Range<UInt64>? {
        state.withLock { state in
            state.refusal = nil
            return state.reader.request
        }
    }

    func sink(asked: Range<UInt64>?) -> TransferSink {
        TransferSink(
            head: { head in
                guard head.status < 300 || head.status == 416 else {
                    return .collect(limit: 16_384, truncating: true)
                }
                return self.state.withLock { state in
                    do throws(RegistryError) {
                        try state.reader.accept(head, asked: asked)
                        return .deliver(limit: .max)
                    } catch {
                        state.refusal = error
                        return .stop
                    }
                }
            },
            body: { self.take($0) })
    }

    private func take(_ piece: UnsafeRawBufferPointer) -> SinkDecision {
        let kept = state.withLock { $0.reader.keep(piece.count) }
        let decision = kept.isEmpty ? .continue : next(UnsafeRawBufferPointer(rebasing: piece[kept]))
        switch decision {
        case .pause:
            return .pause
        case .stop:
            isStopped.withLock { $0 = true }
            return .stop
        case .continue:
            return state.withLock { state in
                state.reader.took(piece.count)
                return state.reader.isBeyond ? .stop : .continue
            }
        }
    }
}

/// SHA-256 that a sink and its task share.
///
/// Unchecked: the transfer thread updates it while `blobRange` runs, the task finishes it after that has returned; the
/// end of each exchange orders the two, so nothing ever touches it at the same time.
private final class SharedHasher: @unchecked Sendable {
    private var hasher = SHA256()
    func update(_ bytes: UnsafeRawBufferPointer) { hasher.update(bytes) }
    func finish() -> Digest { hasher.finalize() }
}

private final class BlobMemory: Sendable {
    private let state = Mutex<[UInt8]>([])
    private let capacity: Int
    init(capacity: Int) { self.capacity = capacity }
    var bytes: [UInt8] { state.withLock { $0 } }
    func start() {
        state.withLock { state in
            state.removeAll(keepingCapacity: true)
            state.reserveCapacity(capacity)
        }
    }
    func append(_ piece: UnsafeRawBufferPointer) -> Bool {
        state.withLock { $0 += piece }
        return true
    }
}

private final class BlobFile: Sendable {
    private struct State {
        var offset: Int64
        var failure: Int32?
    }
    private let descriptor: Int32
    private let first: Int64
    private let state: Mutex<State>

    init(_ descriptor: Int32, offset: Int64) {
        self.descriptor = descriptor
        first = offset
        state = Mutex(State(offset: offset))
    }

    var failure: Int32? { state.withLock { $0.failure } }
    func start() { state.withLock { $0 = State(offset: first) } }

    func append(_ piece: UnsafeRawBufferPointer) -> Bool {
        state.withLock { state in
            var written = 0
            while written < piece.count {
                let rest = UnsafeRawBufferPointer(rebasing: piece[written...])
                let count = pwrite(descriptor, rest.baseAddress, rest.count, off_t(state.offset))
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else {
                    state.failure = errno
                    return false
                }
                written += count
                state.offset += Int64(count)
            }
            return true
        }
    }
}
