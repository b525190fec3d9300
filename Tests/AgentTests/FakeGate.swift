import ChunkModel
import Glibc
import Integrity
import LinuxSystem

/// A gate in memory: speaks the protocol, hashes what it is given, keeps bytes instead of writing them. Tests ask it for
/// bytes as readers ask the kernel. Thread-safe.
final class FakeGate: Sendable {
    /// How a read ended.
    enum Read: Equatable {
        case bytes([UInt8])
        case failed(errno: UInt32)
        case late
    }

    private struct Blob {
        let key: ResidencyMap.Key
        let index: ChunkIndex
        var data: [Int: [UInt8]] = [:]
        var failed: [Int: UInt32] = [:]
        var waiting: Set<Int> = []
    }

    private struct Image {
        let digest: Digest
        let manifest: [UInt8]
        let blobs: [Int]
        var isMounted = false
        var isInUse = false
    }

    struct Counts: Sendable {
        var fills = 0
        var copies = 0
        var mismatches = 0
        var fails = 0
    }

    private struct State {
        var blobs: [Blob] = []
        var images: [Digest: Image] = [:]
        var snapshots: Set<UInt64> = []
        /// What the agent had kept.
        var listener: File?
        /// It is from before `keepListener`.
        var isOld = false
        /// It ends the connection when it is asked for the listener the next time.
        var losesNext = false
        var session: PacketSocket?
        var arena: File?
        var slotSize = 0
        var counts = Counts()
        /// Writes fail with this, as on a full disk, until an image is removed.
        var writeErrno: UInt32?
        var isStopped = false
        /// Connections so far.
        var hello = 0
    }

    let path: String
    private let state = Monitor(State())
    private let listener: PacketSocket

    init(path: String) throws(SystemError) {
        self.path = path
        listener = try PacketSocket.listen(path: path, mode: 0o600)
        let listener = self.listener
        try Thread.start("fake-accept") { [weak self] in
            while let socket = try? listener.accept() {
                guard let self else { return }
                self.accept(socket)
            }
        }
    }

    deinit { stop() }

    func stop() {
        let session = state.update { state in
            state.isStopped = true
            return state.session
        }
        listener.shutdown()
        session?.shutdown()
    }

    /// Ends the agent's connection, as a gate that was killed does. What is resident stays.
    func dropConnection() { state.withLock { $0.session }?.shutdown() }

    /// What the agent did so far.
    var counts: Counts { state.withLock { $0.counts } }
    /// Connections so far.
    var connections: Int { state.withLock { $0.hello } }
    /// The agent had a listening socket kept.
    var hasListener: Bool { state.withLock { $0.listener != nil } }
    func loseNextConnection() { state.update { $0.losesNext = true } }
    func becomeOld() { state.update { $0.isOld = true } }
    func forgetListener() { state.update { $0.listener = nil } }
    /// An agent is connected.
    var isConnected: Bool { state.withLock { $0.session != nil } }
    func failWrites(_ errno: UInt32?) { state.update { $0.writeErrno = errno } }

    // MARK: - Readers

    /// The number of a blob, by its digest.
    private static func number(_ digest: Digest, _ state: State) -> Int? {
        state.blobs.firstIndex { $0.key.blob == digest }
    }

    /// Reads bytes as a container would: blocks until every chunk is resident, or has failed.
    func read(_ blob: Digest, _ range: Range<UInt64>, within limit: Duration = .seconds(20)) -> Read {
        let milliseconds = Int(limit / .milliseconds(1))
        guard let chunks = ask(blob, range) else { return .failed(errno: UInt32(ENOENT)) }
        let done: Read? = state.wait(until: Monotonic.now.adding(milliseconds: milliseconds)) { state in
            guard let number = Self.number(blob, state) else { return .failed(errno: UInt32(ENOENT)) }
            for chunk in chunks {
                if let errno = state.blobs[number].failed[chunk] {
                    state.blobs[number].failed[chunk] = nil
                    return .failed(errno: errno)
                }
                if state.blobs[number].data[chunk] == nil { return nil }
            }
            return .bytes(Self.bytes(state.blobs[number], chunks, range))
        }
        return done ?? .late
    }

    /// Sends misses and touches for a range; the chunks it covers.
    private func ask(_ digest: Digest, _ range: Range<UInt64>) -> Range<Int>? {
        let (chunks, events, session) = state.update { state -> (Range<Int>?, [GateProtocol.Event], PacketSocket?) in
            guard let number = Self.number(digest, state) else { return (nil, [], nil) }
            let chunks = state.blobs[number].index.chunks(covering: range)
            var events: [GateProtocol.Event] = []
            for chunk in chunks {
                let address = GateProtocol.ChunkAddress(blob: UInt32(number), chunk: UInt32(chunk))
                if state.blobs[number].data[chunk] != nil {
                    events.append(.touched([address]))
                } else if state.blobs[number].waiting.insert(chunk).inserted {
                    state.blobs[number].failed[chunk] = nil
                    events.append(.miss(address))
                }
            }
            return (chunks, events, state.session)
        }
        for event in events { try? session?.send(GateProtocol.encode(event)) }
        return chunks
    }

    private static func bytes(_ blob: Blob, _ chunks: Range<Int>, _ range: Range<UInt64>) -> [UInt8] {
        var out: [UInt8] = []
        for chunk in chunks {
            let entry = blob.index[chunk].range
            let part = range.clamped(to: entry)
            let data = blob.data[chunk] ?? []
            out += data[Int(part.lowerBound - entry.lowerBound)..<Int(part.upperBound - entry.lowerBound)]
        }
        return out
    }

    /// Chunks resident.
    func resident(_ blob: Digest) -> Int {
        state.withLock { state in Self.number(blob, state).map { state.blobs[$0].data.count } ?? 0 }
    }

    /// Waits until so many chunks are resident.
    func waitResident(_ blob: Digest, _ count: Int, within milliseconds: Int = 20_000) -> Bool {
        state.wait(until: Monotonic.now.adding(milliseconds: milliseconds)) { state in
            Self.number(blob, state).map { state.blobs[$0].data.count >= count } == true ? true : nil
        } ?? false
    }

    /// Waits until the agent is connected again, after `connections` of them.
    func waitConnected(after connections: Int, within milliseconds: Int = 20_000) -> Bool {
        state.wait(until: Monotonic.now.adding(milliseconds: milliseconds)) {
            $0.hello > connections && $0.session != nil ? true : nil
        } ?? false
    }

    /// Damages a resident chunk, as a disk does.
    func rot(_ blob: Digest, _ chunk: Int) {
        state.update { state in
            guard let number = Self.number(blob, state) else { return }
            state.blobs[number].data[chunk]?[0] ^= 1
        }
    }

    /// As a reboot does.
    func unmount(_ image: Digest) { state.update { $0.images[image]?.isMounted = false } }
    func setInUse(_ image: Digest, _ isInUse: Bool) { state.update { $0.images[image]?.isInUse = isInUse } }

    // MARK: - The protocol

    private func accept(_ socket: PacketSocket) {
        let isFree = state.update { state in
            defer { if state.session == nil { state.session = socket } }
            return state.session == nil && !state.isStopped
        }
        guard isFree else {
            try? socket.send(GateProtocol.encode(.reply(errno: UInt32(EBUSY), value: 0, message: "taken")))
            return
        }
        _ = try? Thread.start("fake-gate") { [weak self] in
            while let message = try? socket.receive(
                limit: GateProtocol.maxFrameSize, maxDescriptors: GateProtocol.maxDescriptors),
                let (request, number) = try? GateProtocol.decodeRequest(message.bytes), let self
            {
                let beside = request == .keptListener ? self.state.withLock { $0.listener.map { [$0] } } ?? [] : []
                for event in self.answer(request, message.descriptors) {
                    try? socket.send(
                        GateProtocol.encode(event.0, number: event.isReply ? number : 0), descriptors: beside)
                }
            }
            self?.state.update { $0.session = nil }
        }
    }

    private func answer(_ request: GateProtocol.Request, _ files: [File]) -> [(GateProtocol.Event, isReply: Bool)] {
        state.update { state in
            switch request {
            case .hello(let slotSize, _):
                state.arena = files.first
                state.slotSize = Int(slotSize)
                state.hello += 1
                let misses = state.blobs.enumerated().flatMap { number, blob in
                    blob.waiting.sorted().map {
                        (GateProtocol.Event.miss(.init(blob: UInt32(number), chunk: UInt32($0))), false)
                    }
                }
                return [(.helloReply(integrityGap: false, epoch: 1), true)] + misses
            case .openImage(let digest, let mount, _): return [(Self.open(digest, mount, files, &state), true)]
            case .closeImage(let digest):
                guard state.images[digest]?.isInUse != true else { return [Self.refusal(EBUSY, "in use")] }
                state.images[digest]?.isMounted = false
                return [Self.refusal(0, "")]
            case .fill(let at, let slot, let length, let repair):
                return [(Self.fill(at, Int(slot), Int(length), repair: repair, &state), false)]
            case .fail(let at, let errno):
                state.counts.fails += 1
                state.blobs[Int(at.blob)].failed[Int(at.chunk)] = errno
                state.blobs[Int(at.blob)].waiting.remove(Int(at.chunk))
                return []
            case .copy(let to, let from): return [(Self.copy(to, from, &state), false)]
            case .residency(let handle): return [(Self.residency(Int(handle), state), true)]
            case .list:
                let digests = state.images.keys.sorted()
                return digests.compactMap { Self.info($0, state).map { (.image($0), true) } } + [(.end, true)]
            case .stat:
                let resident = state.blobs.reduce(0) { $0 + $1.data.values.reduce(0) { $0 + $1.count } }
                return [(.counters([.residentBytes: UInt64(resident), .fills: UInt64(state.counts.fills)]), true)]
            case .verify(let handle, let first, let count):
                return [(Self.verify(Int(handle), Int(first), Int(count), state), true)]
            case .removeImage(let digest): return [Self.remove(digest, &state)]
            case .keepListener, .keptListener:
                if state.losesNext, request == .keptListener {
                    state.losesNext = false
                    state.session?.shutdown()
                    return []
                }
                if state.isOld { return [Self.refusal(ENOSYS, "unknown request")] }
                if request == .keptListener { return [Self.refusal(state.listener == nil ? ENOENT : 0, "")] }
                state.listener = files.first
                return [Self.refusal(0, "")]
            case .blobFile, .bootstrapFile: return [Self.refusal(ENOENT, "no files here")]
            case .listBlocked:
                let waits = state.blobs.enumerated().flatMap { number, blob in
                    blob.waiting.sorted().map { chunk in
                        GateProtocol.BlockedReader(
                            pid: UInt32(getpid()), at: .init(blob: UInt32(number), chunk: UInt32(chunk)),
                            milliseconds: 1500)
                    }
                }
                return [(.blocked(waits), true)]
            case .makeSnapshot(let id, let like):
                if case .snapshot(let other) = like, !state.snapshots.contains(other) {
                    return [Self.refusal(ENOENT, "no snapshot")]
                }
                if case .image(let digest) = like, state.images[digest]?.isMounted != true {
                    return [Self.refusal(ENOENT, "not mounted")]
                }
                return [state.snapshots.insert(id).inserted ? Self.refusal(0, "") : Self.refusal(EEXIST, "there")]
            case .removeSnapshot(let id):
                return [(.reply(errno: 0, value: state.snapshots.remove(id) == nil ? 0 : 1, message: ""), true)]
            case .snapshotUsage(let id):
                guard state.snapshots.contains(id) else { return [Self.refusal(ENOENT, "no snapshot")] }
                return [(.snapshotUsage(id: id, bytes: 4096, inodes: 1), true)]
            case .listSnapshots(let after):
                let ids = state.snapshots.filter { $0 > after }.sorted()
                return [(.snapshots(Array(ids.prefix(GateProtocol.maxListedSnapshots))), true)]
            }
        }
    }

    private static func refusal(_ errno: Int32, _ message: String) -> (GateProtocol.Event, isReply: Bool) {
        (.reply(errno: UInt32(errno), value: 0, message: message), true)
    }

    private static func open(
        _ digest: Digest, _ mount: Bool, _ files: [File], _ state: inout State
    ) -> GateProtocol.Event {
        if state.images[digest] == nil {
            guard let manifest = try? files.first?.contents(limit: 1 << 20), SHA256.hash(manifest) == digest,
                let digests = try? ManifestDigests(manifest: manifest), digests.blobs.count + 2 == files.count,
                let bootstrap = try? files[1].contents(limit: 1 << 24), SHA256.hash(bootstrap) == digests.bootstrap
            else { return refusal(files.isEmpty ? ENOENT : EINVAL, "refused").0 }
            var numbers: [Int] = []
            for (key, file) in zip(digests.blobs, files[2...]) {
                guard let bytes = try? file.contents(limit: 1 << 24), SHA256.hash(bytes) == key.index,
                    let index = try? ChunkIndex(caibx: bytes)
                else { return refusal(EINVAL, "index").0 }
                if let known = state.blobs.firstIndex(where: { $0.key == key }) {
                    numbers.append(known)
                } else {
                    state.blobs.append(Blob(key: key, index: index))
                    numbers.append(state.blobs.count - 1)
                }
            }
            state.images[digest] = Image(digest: digest, manifest: manifest, blobs: numbers)
        }
        if mount { state.images[digest]?.isMounted = true }
        return info(digest, state).map { .image($0) } ?? refusal(EIO, "lost").0
    }

    private static func info(_ digest: Digest, _ state: State) -> GateProtocol.ImageInfo? {
        guard let image = state.images[digest] else { return nil }
        return .init(
            manifest: digest, mounted: image.isMounted, tainted: false, bootstrapSize: 4096, path: "/mnt/\(digest.hex)",
            blobs: image.blobs.map { number in
                let blob = state.blobs[number]
                return .init(
                    handle: UInt32(number), digest: blob.key.blob, rawSize: blob.index.rawSize,
                    chunkCount: UInt32(blob.index.count), residentCount: UInt32(blob.data.count),
                    residentBytes: blob.data.keys.reduce(0) { $0 + UInt64(blob.index[$1].size) }, graduated: false)
            })
    }

    private static func fill(
        _ at: GateProtocol.ChunkAddress, _ slot: Int, _ length: Int, repair: Bool, _ state: inout State
    ) -> GateProtocol.Event {
        func filled(_ status: GateProtocol.FillStatus, _ errno: UInt32 = 0) -> GateProtocol.Event {
            .filled(at: at, slot: UInt32(slot), status: status, errno: errno)
        }
        guard Int(at.blob) < state.blobs.count, let arena = state.arena else { return filled(.unknown) }
        if let errno = state.writeErrno { return filled(.writeFailed, errno) }
        var bytes = [UInt8](repeating: 0, count: length)
        let offset = UInt64(slot * state.slotSize)
        _ = try? bytes.withUnsafeMutableBytes { try arena.readAll(into: $0, at: offset) }
        let chunk = Int(at.chunk)
        let entry = state.blobs[Int(at.blob)].index[chunk]
        guard length == entry.size, SHA256.hash(bytes) == entry.digest else {
            state.counts.mismatches += 1
            return filled(.mismatch)
        }
        state.counts.fills += 1
        state.blobs[Int(at.blob)].data[chunk] = bytes
        state.blobs[Int(at.blob)].waiting.remove(chunk)
        return filled(.resident)
    }

    private static func copy(
        _ to: GateProtocol.ChunkAddress, _ from: GateProtocol.ChunkAddress, _ state: inout State
    ) -> GateProtocol.Event {
        let slot = GateProtocol.noSlot
        guard let bytes = state.blobs[Int(from.blob)].data[Int(from.chunk)] else {
            return .filled(at: to, slot: slot, status: .unknown, errno: 0)
        }
        guard SHA256.hash(bytes) == state.blobs[Int(to.blob)].index[Int(to.chunk)].digest else {
            state.counts.mismatches += 1
            return .filled(at: to, slot: slot, status: .mismatch, errno: 0)
        }
        state.counts.copies += 1
        state.blobs[Int(to.blob)].data[Int(to.chunk)] = bytes
        state.blobs[Int(to.blob)].waiting.remove(Int(to.chunk))
        return .filled(at: to, slot: slot, status: .resident, errno: 0)
    }

    private static func residency(_ number: Int, _ state: State) -> GateProtocol.Event {
        guard number < state.blobs.count else { return refusal(ENOENT, "no blob").0 }
        let count = state.blobs[number].index.count
        var bits = [UInt8](repeating: 0, count: (count + 7) / 8)
        for chunk in state.blobs[number].data.keys { bits[chunk / 8] |= 1 << UInt8(chunk % 8) }
        return .residencyBits(blob: UInt32(number), chunkCount: UInt32(count), bits: bits)
    }

    private static func verify(_ number: Int, _ first: Int, _ count: Int, _ state: State) -> GateProtocol.Event {
        let blob = state.blobs[number]
        let chunks = first..<min(first + count, blob.index.count)
        let present = chunks.filter { blob.data[$0] != nil }
        let bad = present.filter { SHA256.hash(blob.data[$0] ?? []) != blob.index[$0].digest }
        return .verified(
            blob: UInt32(number), checked: UInt32(present.count), absent: UInt32(chunks.count - present.count),
            bad: bad.map(UInt32.init))
    }

    private static func remove(_ digest: Digest, _ state: inout State) -> (GateProtocol.Event, isReply: Bool) {
        guard let image = state.images[digest] else { return refusal(ENOENT, "no image") }
        guard !image.isMounted else { return refusal(EBUSY, "mounted") }
        state.images[digest] = nil
        let kept = Set(state.images.values.flatMap(\.blobs))
        var freed = 0
        for number in image.blobs where !kept.contains(number) {
            freed += state.blobs[number].data.values.reduce(0) { $0 + $1.count }
            state.blobs[number].data = [:]
        }
        state.writeErrno = nil
        return (.reply(errno: 0, value: UInt64(freed), message: ""), true)
    }
}
