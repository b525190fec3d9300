import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import TestSupport
import Testing

/// A small image for tests of the gate alone: an EROFS bootstrap with one blob, cut every 64 KiB, with a manifest that
/// has the digests in their order and nothing else worth reading.
struct GateImage: Sendable {
    static let chunkSize = 64 << 10
    let digest: Digest
    let manifest: [UInt8]
    let bootstrap: [UInt8]
    let index: ChunkIndex
    let indexFile: [UInt8]
    let blob: [UInt8]

    /// Builds the image of `tree` with mkfs.erofs.
    init(tree: String, in scratch: ScratchDirectory, name: String = "image") throws {
        let (boot, data) = (scratch.appending(name + ".erofs"), scratch.appending(name + ".blob"))
        try Command.run("mkfs.erofs", "-T0", "--chunksize=1048576", "--blobdev=\(data)", boot, tree)
        bootstrap = try File(path: boot, flags: O_RDONLY).contents(limit: 64 << 20)
        blob = try File(path: data, flags: O_RDONLY).contents(limit: 256 << 20)
        var chunks: [(end: UInt64, digest: Digest)] = []
        for start in stride(from: 0, to: blob.count, by: Self.chunkSize) {
            let end = min(blob.count, start + Self.chunkSize)
            chunks.append((UInt64(end), SHA256.hash(Array(blob[start..<end]))))
        }
        index = try ChunkIndex(chunks: chunks)
        indexFile = index.caibx(sizes: (Self.chunkSize, Self.chunkSize, Self.chunkSize))
        let digests = [
            SHA256.hash(Array("{}".utf8)), SHA256.hash(bootstrap), SHA256.hash(blob), SHA256.hash(indexFile),
        ]
        manifest = Array(("{\"layers\":[" + digests.map { "\"\($0)\"" }.joined(separator: ",") + "]}").utf8)
        digest = SHA256.hash(manifest)
    }

    private init(_ other: GateImage, bootstrap: [UInt8]) {
        self.bootstrap = bootstrap
        (index, indexFile, blob) = (other.index, other.indexFile, other.blob)
        let old = SHA256.hash(other.bootstrap)
        let text = String(decoding: other.manifest, as: UTF8.self)
        manifest = Array(text.replacing("\(old)", with: "\(SHA256.hash(bootstrap))").utf8)
        digest = SHA256.hash(manifest)
    }

    /// An image that differs in one byte of its bootstrap, with digests that are right for it.
    func with(bootstrapByte offset: Int) throws -> GateImage {
        var changed = bootstrap
        changed[offset] ^= 0xFF
        return GateImage(self, bootstrap: changed)
    }

    /// Chunk `number`'s raw bytes.
    func chunk(_ number: Int) -> [UInt8] {
        let range = index[number].range
        return Array(blob[Int(range.lowerBound)..<Int(range.upperBound)])
    }

    /// The files `openImage` hands over.
    func files() throws -> [File] { try [manifest, bootstrap, indexFile].map(Self.sealed) }

    static func sealed(_ bytes: [UInt8]) throws -> File {
        let file = try File.memory(name: "test")
        try file.writeAll(bytes, at: 0)
        try file.seal(2 | 4 | 8)
        return file
    }
}

/// A running chunkgate with its own directories. Stopped by signal, by pid, when it goes.
final class RunningGate: Sendable {
    let scratch: ScratchDirectory
    let process: ProcessFixture
    let state: String
    var socket: String { scratch.appending("run/gate.sock") }

    init(_ scratch: ScratchDirectory, state: String? = nil, arguments: [String] = []) throws {
        self.scratch = scratch
        self.state = state ?? scratch.appending("state")
        process = try ProcessFixture(
            [
                Programs.path("chunkgate"), "--state-dir", self.state, "--run-dir",
                scratch.appending("run"), "--agent-user", "", "--log-format", "text",
            ] + arguments, logFile: scratch.appending("gate.log"))
    }

    deinit { kill() }

    /// Ends keeper and worker at once, as a power cut of the group would.
    func kill() {
        let worker = try? child()
        Glibc.kill(process.pid, SIGKILL)
        if let worker { Glibc.kill(worker, SIGKILL) }
        _ = process.wait(atMost: .seconds(5))
        // Not our child: until it is gone its files, and so their file systems, are in use.
        if let worker { _ = Wait.until(.seconds(5)) { ProcessFixture.hasEnded(worker) } }
    }

    /// Ends it as an operator would; kills it when that is refused.
    func stop() {
        Glibc.kill(process.pid, SIGTERM)
        if process.wait(atMost: .seconds(5)) == nil { kill() }
    }

    /// The working process.
    func child() throws -> pid_t {
        let text = String(
            decoding: try readProcFile("/proc/\(process.pid)/task/\(process.pid)/children"), as: UTF8.self)
        guard let pid = text.split(separator: " ").first.flatMap({ pid_t($0) }) else {
            throw FixtureError("chunkgate has no child: \(process.log)")
        }
        return pid
    }

    /// Connects as chunkd would, once the gate listens.
    func connect() throws -> GateClient {
        var client: GateClient?
        let ready = Wait.until(.seconds(10)) {
            client = try? GateClient(path: socket)
            return client != nil
        }
        guard ready, let client else { throw FixtureError("no gate: \(process.log)") }
        return client
    }
}

/// chunkd's side of the protocol, one frame at a time, for tests.
final class GateClient: Sendable {
    static let slotSize = 1 << 20
    static let slotCount = 8
    private let socket: PacketSocket
    private let arena: File
    private let inbox = Monitor<[(event: GateProtocol.Event, number: UInt32)]>([])
    private let files = Monitor<[File]>([])
    private let closed = Monitor(false)

    init(path: String) throws {
        socket = try PacketSocket.connect(path: path)
        arena = try File.memory(name: "arena", size: Self.slotSize * Self.slotCount)
        try arena.seal(2 | 4)
        try socket.send(
            GateProtocol.encode(
                .hello(slotSize: UInt32(Self.slotSize), slotCount: UInt32(Self.slotCount)), number: 1),
            descriptors: [arena])
        try Thread.start("gate-client") { [self] in
            while let message = try? socket.receive(limit: GateProtocol.maxFrameSize, maxDescriptors: 1),
                let decoded = try? GateProtocol.decodeEvent(message.bytes)
            {
                files.update { $0 += message.descriptors }
                inbox.update { $0.append(decoded) }
            }
            closed.update { $0 = true }
            inbox.update { $0.append((.reply(errno: UInt32(EPIPE), value: 0, message: "closed"), 1)) }
        }
        guard case .helloReply = try next(1).event else { throw FixtureError("no hello") }
    }

    func close() { socket.shutdown() }

    /// Whether the gate ended the connection, within five seconds.
    func waitClosed() -> Bool { closed.wait(until: .now.adding(milliseconds: 5000)) { $0 ? true : nil } ?? false }

    func send(_ request: GateProtocol.Request, number: UInt32 = 0, _ files: [File] = []) throws {
        try socket.send(GateProtocol.encode(request, number: number), descriptors: files)
    }

    /// The next event that `match` takes, within `seconds`; others stay in the queue.
    func event<Result>(seconds: Int = 10, _ match: (GateProtocol.Event, UInt32) -> Result?) throws -> Result {
        let found: Result? = inbox.wait(until: .now.adding(milliseconds: seconds * 1000)) { queue in
            for (at, item) in queue.enumerated() {
                if let result = match(item.event, item.number) {
                    queue.remove(at: at)
                    return result
                }
            }
            return nil
        }
        guard let found else { throw FixtureError("the gate did not send what was expected") }
        return found
    }

    private func next(_ number: UInt32) throws -> (event: GateProtocol.Event, number: UInt32) {
        try event { event, found in found == number ? (event, found) : nil }
    }

    /// Sends a request and waits for the frame that answers it.
    func ask(_ request: GateProtocol.Request, _ files: [File] = []) throws -> GateProtocol.Event {
        let number = UInt32.random(in: 2...UInt32.max)
        try send(request, number: number, files)
        return try next(number).event
    }

    /// The same for a frame of the test's own making.
    func ask(frame: [UInt8], number: UInt32) throws -> GateProtocol.Event {
        try socket.send(frame)
        return try next(number).event
    }

    func open(_ image: GateImage, mount: Bool = true) throws -> GateProtocol.ImageInfo {
        let event = try ask(.openImage(manifest: image.digest, mount: mount, blobCount: 1), try image.files())
        guard case .image(let info) = event else { throw FixtureError("open: \(event)") }
        return info
    }

    /// The descriptor that came beside the answer.
    func blobFile(_ blob: UInt32) throws -> File {
        try file(for: .blobFile(blob: blob))
    }

    func bootstrapFile(_ manifest: Digest) throws -> File { try file(for: .bootstrapFile(manifest: manifest)) }

    func keptListener() throws -> File { try file(for: .keptListener) }

    private func file(for request: GateProtocol.Request) throws -> File {
        guard case .reply(0, _, _) = try ask(request), let file = files.update({ $0.popLast() }) else {
            throw FixtureError("no file for \(request)")
        }
        return file
    }

    func miss() throws -> GateProtocol.ChunkAddress {
        try event { event, _ in if case .miss(let address) = event { address } else { nil } }
    }

    /// The first accesses that have been told of by now, in order; other events stay in the queue.
    func accesses() -> [(at: GateProtocol.ChunkAddress, isMiss: Bool)] {
        inbox.update { queue in
            var found: [(at: GateProtocol.ChunkAddress, isMiss: Bool)] = []
            queue.removeAll { item in
                switch item.event {
                case .miss(let at): found.append((at, true))
                case .touched(let list): found += list.map { ($0, false) }
                default: return false
                }
                return true
            }
            return found
        }
    }

    /// Brings bytes for a chunk and waits for what became of them.
    @discardableResult
    func fill(
        _ at: GateProtocol.ChunkAddress, _ bytes: [UInt8], slot: UInt32 = 0, repair: Bool = false
    ) throws -> GateProtocol.FillStatus {
        try startFill(at, bytes, slot: slot, repair: repair)
        return try filled(at, slot: slot)
    }

    /// Brings bytes for a chunk; `filled` waits for what became of them.
    func startFill(_ at: GateProtocol.ChunkAddress, _ bytes: [UInt8], slot: UInt32, repair: Bool = false) throws {
        try arena.writeAll(bytes, at: UInt64(slot) * UInt64(Self.slotSize))
        try send(.fill(at: at, slot: slot, length: UInt32(bytes.count), repair: repair))
    }

    func filled(_ at: GateProtocol.ChunkAddress, slot: UInt32) throws -> GateProtocol.FillStatus {
        try event { event, _ in
            if case .filled(at, slot, let status, _) = event { status } else { nil }
        }
    }

    /// Answers misses from `image` until `done`, as chunkd would: what cannot be written fails. A bounded loop.
    func serve(_ image: GateImage, until done: () -> Bool) throws {
        let address: (GateProtocol.Event, UInt32) -> GateProtocol.ChunkAddress? = { event, _ in
            if case .miss(let address) = event { address } else { nil }
        }
        for _ in 0..<100_000 {
            if done() { return }
            let wanted = inbox.wait(until: .now.adding(milliseconds: 20)) { queue -> GateProtocol.ChunkAddress? in
                guard let at = queue.firstIndex(where: { address($0.event, 0) != nil }) else { return nil }
                return address(queue.remove(at: at).event, 0)
            }
            guard let wanted else { continue }
            if try fill(wanted, image.chunk(Int(wanted.chunk))) == .writeFailed {
                try send(.fail(at: wanted, errno: UInt32(EIO)))
            }
        }
        throw FixtureError("not done after 100,000 turns")
    }

    func counters() throws -> [GateProtocol.Counter: UInt64] {
        guard case .counters(let values) = try ask(.stat) else { throw FixtureError("no counters") }
        return values
    }
}

/// Reads of a file on threads of their own; each ends with bytes or an errno.
final class Readers: Sendable {
    enum Outcome: Equatable, Sendable, CustomStringConvertible {
        case bytes([UInt8]), failed(Int32)

        var description: String {
            switch self {
            case .failed(let code): "errno \(code)"
            case .bytes(let bytes):
                "\(bytes.count) bytes, \(bytes.count { $0 == 0 }) of them zero, CRC \(CRC32C.checksum(bytes))"
            }
        }
    }
    private let outcomes = Monitor<[Outcome]>([])
    private let count: Int

    /// Starts `count` readers of `length` bytes at `offset`.
    init(_ count: Int, path: String, offset: UInt64, length: Int) throws {
        self.count = count
        let file = try File(path: path, flags: O_RDONLY)
        for number in 0..<count {
            try Thread.start("reader-\(number)", stackSize: 64 << 10) { [outcomes] in
                let outcome: Outcome
                do throws(SystemError) { outcome = .bytes(try file.bytes(at: offset, count: length)) } catch {
                    outcome = .failed(error.errno)
                }
                outcomes.update { $0.append(outcome) }
            }
        }
    }

    var finished: Int { outcomes.withLock { $0.count } }

    /// All outcomes, when every reader ends within `seconds`.
    func wait(seconds: Int = 20) throws -> [Outcome] {
        let all = outcomes.wait(until: .now.adding(milliseconds: seconds * 1000)) { $0.count == count ? $0 : nil }
        guard let all else { throw FixtureError("\(count - finished) of \(count) readers still blocked") }
        return all
    }
}
