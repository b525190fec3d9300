import Catalogue
import ChunkModel
import ChunkResolution
import ControlAPI
import Telemetry
import HTTPTransfer
import LinuxSystem
import OCISpec
import PeerTransport
import Logging
import RegistryClient

extension FetchEngine {
    /// Has the scheduler decide and does what it says.
    func perform(_ event: FetchScheduler.Event) {
        for directive in scheduler.handle(event, now: now) {
            switch directive {
            case .locate(let key): toLocate.append(key)
            case .copy(let to, let from): copy(to, from)
            case .fetch(let plan): fetch(plan)
            case .cancel(let id): ranges[id]?.task.cancel()
            case .hasten(let id): ranges[id]?.range.hasten()
            case .fail(let key, let errno, let reason): fail(key, errno: errno, reason)
            case .settled(let key, let rank, let resident, let source): noteSettled(key, rank, resident, source)
            case .quarantined(let key, let source): noteQuarantined(key, source)
            case .complain(let peer, let key): parts.peers?.complain(to: peer, of: book[key.blob].key, chunk: key.chunk)
            case .released(let blob):
                parts.logger.notice("source is trusted again", metadata: ["blob": "\(book[blob].key.blob)"])
            case .makeRoom: makeRoom()
            }
        }
        parts.metrics.quarantines.set(scheduler.quarantined.count)
    }

    // MARK: - Looking up

    /// Asks the catalogue where the collected chunks also lie. With one blob on the node there is nowhere.
    func flushLocates() {
        while !toLocate.isEmpty {
            let keys = toLocate
            toLocate = []
            guard book.ids.count > 1 else {
                noteLocated(keys.map { ($0, []) })
                continue
            }
            let asked = keys.compactMap { key in
                book[key.blob].description.map { (key, $0.layout.index[key.chunk].digest) }
            }
            let catalogue = parts.catalogue
            let metrics = parts.metrics
            let post = self.post
            Task {
                var found: [[ChunkPlace]] = []
                do throws(CatalogueError) { found = try await catalogue.places(of: asked.map(\.1)) } catch {
                    // The registry still has it.
                    metrics.catalogueErrors[error.reason].increment()
                }
                post(.located(asked.enumerated().map { ($1.0, $0 < found.count ? found[$0] : []) }))
            }
            return
        }
    }

    /// All in one event: chunks that are located together are fetched together.
    func noteLocated(_ answers: [(key: ChunkKey, places: [ChunkPlace])]) {
        let plans = plans(for: answers.map(\.key))
        perform(
            .located(
                answers.enumerated().map { number, answer in
                    plans[number].located(answer.key, locals: locals(of: answer.key, answer.places))
                }))
    }

    /// Which peers to ask, blob by blob as they come.
    private func plans(for keys: [ChunkKey]) -> [PeerSelector.Plan] {
        guard let peers = parts.peers else { return keys.map { _ in PeerSelector.Plan() } }
        var plans: [PeerSelector.Plan] = []
        var at = 0
        while at < keys.count {
            let blob = keys[at].blob
            let end = keys[at...].firstIndex { $0.blob != blob } ?? keys.count
            let chunks = keys[at..<end].map { ($0.chunk, scheduler.rank(of: $0) ?? .background) }
            if let layout = book[blob].description?.layout {
                plans += peers.plan(chunks, of: book[blob].key, layout: layout)
            }
            // A blob without description, and an implementation that answers short, have none.
            while plans.count < end { plans.append(PeerSelector.Plan()) }
            at = end
        }
        return plans
    }

    private func locals(of key: ChunkKey, _ places: [ChunkPlace]) -> [FetchSource] {
        var sources: [FetchSource] = []
        for place in places {
            guard let id = book.existing(place.blob), id != key.blob || place.chunk != key.chunk,
                book[id].handle != nil, book[id].isResident(place.chunk)
            else { continue }
            sources.append(.local(ChunkKey(id, place.chunk)))
            // A second copy is as likely to be rotten as the registry is to be slow.
            if sources.count == 2 { break }
        }
        return sources
    }

    // MARK: - Doing

    private func copy(_ to: ChunkKey, _ from: ChunkKey) {
        spans.copy(to, now: SpanRecorder.now)
        guard let toHandle = book[to.blob].handle, let fromHandle = book[from.blob].handle else {
            return perform(.filled(to, .unknown, errno: 0))
        }
        gate?.send(
            .copy(
                to: .init(blob: toHandle, chunk: UInt32(to.chunk)),
                from: .init(blob: fromHandle, chunk: UInt32(from.chunk))))
    }

    func fail(_ key: ChunkKey, errno: UInt32, _ reason: FetchScheduler.FailureReason) {
        missTimes[key] = nil
        record(spans.failed(key, reason: reason.rawValue, now: SpanRecorder.now))
        parts.metrics.noteFailedRead(reason)
        parts.metrics.events.note(
            .readFailed, book[key.blob].description?.reference.name ?? "\(book[key.blob].key.blob)",
            "\(reason.rawValue): chunk \(key.chunk) of \(book[key.blob].key.blob)")
        parts.logger.error(
            "a read failed",
            metadata: [
                "blob": "\(book[key.blob].key.blob)", "chunk": "\(key.chunk)", "reason": "\(reason.rawValue)",
                "errno": "\(errno)",
                "source": "\(book[key.blob].description?.reference.name ?? "unknown")",
            ])
        guard let handle = book[key.blob].handle else { return }
        gate?.send(.fail(at: .init(blob: handle, chunk: UInt32(key.chunk)), errno: errno))
    }

    private func noteSettled(_ key: ChunkKey, _ rank: FetchRank, _ resident: Bool, _ source: FetchSource?) {
        if let came = missTimes.removeValue(forKey: key), resident { parts.metrics.missSeconds.observe(now - came) }
        if spans.isFollowed(key) {
            record(
                spans.settled(
                    key, isResident: resident, source: source.map { name(of: $0, key.blob) }, now: SpanRecorder.now))
        }
        if resident, case .local = source { parts.metrics.noteLocalCopy() }
        if resident { book[key.blob].setResident(key.chunk) }
        if let peers = parts.peers {
            let blob = book[key.blob].key
            if resident { peers.noteResident(blob, key.chunk) } else { peers.noteFailed(blob, key.chunk) }
        }
        noteBulkSettled(key, resident, source)
        noteRepairSettled(key, resident)
    }

    private func noteQuarantined(_ key: ChunkKey, _ source: FetchSource) {
        parts.metrics.mismatches.increment()
        let entry = book[key.blob]
        let name =
            switch source {
            case .local: "local"
            case .peer: "peer"
            case .registry: "registry/\(entry.description?.reference.registry ?? "")"
            }
        parts.metrics.noteFetchError(name, "mismatch")
        if source.peer == nil {
            parts.metrics.events.note(.sourceQuarantined, name, "chunk \(key.chunk) of \(entry.key.blob)")
        }
        parts.logger.critical(
            "wrong bytes from a source: quarantined",
            metadata: [
                "blob": "\(entry.key.blob)", "chunk": "\(key.chunk)", "source": "\(name)",
                "peer": "\(source.peer?.text ?? "")", "repository": "\(entry.description?.reference.name ?? "")",
            ])
    }

    private func makeRoom() {
        guard !isMakingRoom else { return }
        isMakingRoom = true
        let makeRoom = parts.makeRoom
        let post = self.post
        Task { post(.roomMade(await makeRoom())) }
    }

    // MARK: - Ranges

    private func fetch(_ plan: RangePlan) {
        arenaUsed = now
        guard let gate, let handle = book[plan.blob].handle, let description = book[plan.blob].description else {
            return perform(.rangeEnded(id: plan.id, delivered: 0, failure: .permanent))
        }
        let trace = spans.fetch(plan, source: name(of: plan.source, plan.blob), now: SpanRecorder.now)
        let post = self.post
        let handleOfPeer = plan.source.peer == nil ? nil : parts.peers?.begin()
        let control = handleOfPeer?.control ?? parts.registry.makeControl()
        let range = RangeFetch(
            plan: plan,
            RangeFetch.Parts(
                arena: parts.arena, slots: parts.slots, gate: gate, handle: handle, layout: description.layout,
                decoders: description.layout.isRaw || plan.source.peer != nil ? nil : parts.decoders, control: control,
                onUndecodable: { post(.undecodable($0)) }))
        ranges[plan.id] =
            plan.source.peer == nil
            ? (range, Self.run(range, control, description, parts, post))
            : (range, Self.runPeer(range, handleOfPeer, book[plan.blob].key, description.layout, trace, parts, post))
    }

    /// Streams a range from a peer; reports its end when every chunk of it is handed on.
    private static func runPeer(
        _ range: RangeFetch, _ handle: PeerHTTP.Handle?, _ blob: BlobKey, _ layout: BlobLayout, _ trace: TraceContext?,
        _ parts: FetchPipeline.Parts, _ post: @escaping @Sendable (FetchPipeline.Input) -> Void
    ) -> Task<Void, Never> {
        let plan = range.plan
        return Task {
            let begin = Monotonic.now
            let end =
                if let peers = parts.peers, let handle {
                    await peers.fetch(
                        plan, of: blob, layout: layout, trace: trace, handle: handle, sink: { range.take($0) })
                } else {
                    RangeEnd(failure: .permanent, word: "no_identity", isError: true)
                }
            range.end { delivered, bytes in
                parts.metrics.noteRange(
                    "peer", chunks: delivered, bytes: bytes,
                    elapsed: .nanoseconds(Int64(Monotonic.now.nanoseconds - begin.nanoseconds)))
                post(.rangeEnded(id: plan.id, delivered: delivered, end))
            }
        }
    }

    /// Streams a range from the registry; reports its end when every chunk of it is handed on.
    private static func run(
        _ range: RangeFetch, _ control: TransferControl, _ description: BlobDescription, _ parts: FetchPipeline.Parts,
        _ post: @escaping @Sendable (FetchPipeline.Input) -> Void
    ) -> Task<Void, Never> {
        let plan = range.plan
        return Task {
            let begin = Monotonic.now
            let result = await stream(range, control, description, parts)
            let name = "registry/" + ((try? result.get())?.host ?? description.reference.registry)
            var end = RangeEnd()
            if case .failure(let error) = result {
                end = RangeEnd(
                    failure: Self.failure(of: error), word: error.reason, isError: error.code != .cancelled)
                note(error, plan, description, name, parts)
            }
            let reported = end
            range.end { delivered, bytes in
                parts.metrics.noteRange(
                    name, chunks: delivered, bytes: bytes,
                    elapsed: .nanoseconds(Int64(Monotonic.now.nanoseconds - begin.nanoseconds)))
                post(.rangeEnded(id: plan.id, delivered: delivered, reported))
            }
        }
    }

    private static func stream(
        _ range: RangeFetch, _ control: TransferControl, _ description: BlobDescription, _ parts: FetchPipeline.Parts
    ) async -> Result<RangeResult, RegistryError> {
        do throws(RegistryError) {
            return .success(
                try await parts.registry.blobRange(
                    description.stored.digest, of: description.reference, range: range.plan.stored,
                    totalSize: description.stored.size, priority: range.plan.rank == .demand ? .onDemand : .prefetch,
                    control: control, bypassingCaches: range.plan.bypassCaches, sink: { range.take($0) }))
        } catch { return .failure(error) }
    }

    private static func note(
        _ error: RegistryError, _ plan: RangePlan, _ description: BlobDescription, _ source: String,
        _ parts: FetchPipeline.Parts
    ) {
        if error.code == .cancelled { return }
        parts.metrics.noteFetchError(source, error.reason)
        parts.logger.warning(
            "a range failed",
            metadata: [
                "source": "\(source)", "blob": "\(description.stored.digest)", "chunks": "\(plan.chunks)",
                "error": "\(error.message)",
            ])
    }

    /// Whether the same request may succeed later.
    private static func failure(of error: RegistryError) -> FetchFailure {
        switch error.code {
        case .unauthorized, .notFound, .tooLarge, .redirectRefused, .realmRefused, .credentials, .configuration,
            .localFile, .digestMismatch, .sizeMismatch, .invalidDocument, .noMatchingPlatform:
            .permanent
        case .cancelled, .unreachable, .rateLimited, .serverError, .unexpectedStatus, .malformedResponse, .circuitOpen:
            .transient(retryAfter: nil)
        }
    }
}
