import ChunkModel
import ChunkStore
import Glibc
import LinuxSystem

/// One connected chunkd.
final class Session: Sendable {
    let socket: PacketSocket
    /// The memory chunkd puts chunks in. It may change it at any time, so bytes are copied out before they are hashed.
    let arena: File
    private let slotSize: Int
    private let slotCount: Int

    /// Slots of one arena: 1,024 × 4 MiB at most.
    private static let maxSlots = 1024

    /// Checks the arena: a memory file that cannot shrink (reading it then never blocks or fails).
    init?(socket: PacketSocket, arena: File, slotSize: UInt32, slotCount: UInt32) {
        let sealed = shrinkAndGrowSeals
        guard arena.seals & sealed == sealed, (1...Limits.maxChunkSize).contains(Int(slotSize)),
            (1...Self.maxSlots).contains(Int(slotCount)), let size = try? arena.size(),
            size >= UInt64(slotSize) * UInt64(slotCount)
        else { return nil }
        self.socket = socket
        self.arena = arena
        self.slotSize = Int(slotSize)
        self.slotCount = Int(slotCount)
    }

    /// Offset of a slot in the arena; nil when there is no such slot or `length` does not fit.
    func slot(_ number: UInt32, length: Int) -> UInt64? {
        guard Int(number) < slotCount, (1...slotSize).contains(length) else { return nil }
        return UInt64(number) * UInt64(slotSize)
    }

    /// Sends through the outbox unless another session has taken over.
    func reply(_ event: GateProtocol.Event, _ outbox: Outbox) { outbox.send(event) }
}

/// The seals a shared memory file must have.
private let shrinkAndGrowSeals: Int32 = 2 | 4

/// Listens for chunkd and carries out what it asks. One session at a time: a second chunkd is told and sent away.
final class AgentServer: Sendable {
    private let listener: PacketSocket
    private let allowed: Set<UInt32>
    private let gate: GateCore
    private let current = Monitor<PacketSocket?>(nil)
    private let admin = Lane("admin", capacity: 256)

    /// A peer that takes longer than this to read a frame is stuck.
    private static let sendTimeoutSeconds = 10

    /// Users in `allowed` may connect.
    init(listener: PacketSocket, allowed: Set<UInt32>, gate: GateCore) {
        self.listener = listener
        self.allowed = allowed
        self.gate = gate
    }

    func start() throws(SystemError) {
        try Thread.start("accept") { [self] in accept() }
        try admin.start()
    }

    private func accept() {
        while true {
            do throws(SystemError) {
                let socket = try listener.accept()
                let peer = try socket.peer()
                guard allowed.contains(peer.uid) else {
                    gate.log.log(.warning, "connection refused: not chunkd's user", ["uid": "\(peer.uid)"])
                    continue
                }
                try socket.setSendTimeout(seconds: Self.sendTimeoutSeconds)
                let free = current.withLock { current in
                    defer { if current == nil { current = socket } }
                    return current == nil
                }
                guard free else {
                    gate.log.log(.warning, "second chunkd refused", ["pid": "\(peer.pid)"])
                    try socket.send(
                        GateProtocol.encode(
                            .reply(errno: UInt32(EBUSY), value: 0, message: "another chunkd is connected"), number: 0))
                    continue
                }
                gate.log.log(.info, "chunkd connected", ["pid": "\(peer.pid)", "uid": "\(peer.uid)"])
                try Thread.start("session") { [self] in serve(socket) }
            } catch {
                gate.log.log(.error, "accepting chunkd failed", ["error": "\(error)"])
                // EMFILE and the like pass; without a pause this would spin.
                usleep(50_000)
            }
        }
    }

    private func serve(_ socket: PacketSocket) {
        var session: Session?
        do {
            while let message = try socket.receive(
                limit: GateProtocol.maxFrameSize, maxDescriptors: GateProtocol.maxDescriptors)
            {
                let (request, number): (GateProtocol.Request, UInt32)
                do throws(GateProtocol.Malformed) {
                    (request, number) = try GateProtocol.decodeRequest(message.bytes)
                } catch {
                    guard case .unknownKind(let kind, let number) = error, session != nil else { throw error }
                    refuseUnknown(kind, number)
                    continue
                }
                if let session {
                    guard handle(request, number, message.descriptors, session) else {
                        throw SystemError(EPROTO, "gate protocol", "too many requests in flight")
                    }
                } else {
                    session = try hello(request, number, message.descriptors, socket)
                }
            }
        } catch {
            gate.log.log(.warning, "session ended", ["error": "\(error)"])
        }
        gate.outbox.detach(socket)
        gate.agentLeft()
        socket.shutdown()
        current.update { $0 = nil }
        gate.log.log(.info, "chunkd disconnected; blocked reads stay blocked until it is back or their deadline")
    }

    /// A newer chunkd may ask for what this gate does not know, and must not lose it for that.
    private func refuseUnknown(_ kind: UInt16, _ number: UInt32) {
        gate.log.log(.warning, "chunkd asks for what this chunkgate does not know: upgrade it", ["kind": "\(kind)"])
        // Nobody waits for an answer to number 0.
        guard number != 0 else { return }
        let message = "this chunkgate (\(chunkdVersion)) does not know request \(kind): upgrade it"
        gate.outbox.send(.reply(errno: UInt32(ENOSYS), value: 0, message: message), number: number)
    }

    private func hello(
        _ request: GateProtocol.Request, _ number: UInt32, _ files: [File], _ socket: PacketSocket
    ) throws -> Session {
        guard case .hello(let slotSize, let slotCount) = request, let arena = files.first,
            let session = Session(socket: socket, arena: arena, slotSize: slotSize, slotCount: slotCount)
        else { throw SystemError(EPROTO, "gate protocol", "expected hello with a sealed arena") }
        gate.outbox.attach(socket)
        gate.agentArrived()
        let gap = gate.counters[.integrityGaps] > 0
        gate.outbox.send(.helloReply(integrityGap: gap, epoch: gate.epoch), number: number)
        for shard in gate.shards { gate.outbox.misses(shard.outstanding) }
        return session
    }

    /// Carries out a request or queues it; false when a queue is full.
    private func handle(
        _ request: GateProtocol.Request, _ number: UInt32, _ files: [File], _ session: Session
    ) -> Bool {
        let outbox = gate.outbox
        switch request {
        case .fill(let at, let slot, let length, let repair):
            return gate.fills.add(.fill(session, at, slot: slot, length: length, repair: repair))
        case .copy(let to, let from): return gate.fills.add(.copy(session, to: to, from: from))
        case .fail(let at, let errno):
            gate.blobs[at]?.shard.failed(at, errno: Int32(truncatingIfNeeded: errno))
            return true
        case .residency(let handle):
            guard let blob = gate.blobs[handle]?.blob else {
                outbox.send(.reply(errno: UInt32(ENOENT), value: 0, message: "no blob \(handle)"), number: number)
                return true
            }
            outbox.send(
                .residencyBits(blob: handle, chunkCount: UInt32(blob.boundaries.count), bits: blob.resident.bits()),
                number: number)
            return true
        case .blobFile(let handle):
            let file = gate.blobs[handle]?.blob.reader
            let answer = GateProtocol.Event.reply(
                errno: file == nil ? UInt32(ENOENT) : 0, value: 0, message: file == nil ? "no blob \(handle)" : "")
            outbox.send(answer, number: number, file: file)
            return true
        case .stat:
            outbox.send(.counters(gate.statistics()), number: number)
            return true
        case .listBlocked:
            outbox.send(.blocked(gate.blockedReaders()), number: number)
            return true
        case .keepListener:
            outbox.send(gate.agentListener.keep(files.first), number: number)
            return true
        case .keptListener:
            let file = gate.agentListener.file
            outbox.send(
                .reply(errno: file == nil ? UInt32(ENOENT) : 0, value: 0, message: file == nil ? "none is kept" : ""),
                number: number, file: file)
            return true
        case .hello: return false
        case .openImage, .closeImage, .list, .verify, .removeImage, .bootstrapFile:
            return admin.add { [gate] in gate.images.carryOut(request, number, files) }
        case .makeSnapshot, .removeSnapshot, .snapshotUsage, .listSnapshots:
            return gate.snapshots.take(request, number)
        }
    }
}
