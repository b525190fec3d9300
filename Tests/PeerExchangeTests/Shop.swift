import ChunkModel
import Glibc
import LinuxSystem
import NIOCore
import NIOPosix
import PeerExchange
import PeerTestSupport
import PeerTransport
import Synchronization
import TestSupport

/// A node that has a blob of equal chunks in a file, and what it was told.
final class Shop: ChunkSupplier, GossipHandler, MountHandler, ComplaintHandler {
    static let chunkSize = 300_000
    let blob: WireID
    let content: [UInt8]
    let chunkCount: Int
    private let file: File
    private struct State {
        var resident: Set<Int>
        /// Chunks that somebody waits for.
        var waiting: [Int: [CheckedContinuation<Void, Never>]] = [:]
        var complaints: [(PeerComplaint, NodeName)] = []
        var asked: [ChunkRequest] = []
        var gone = 0
        /// How answers ended: sent or not.
        var ended: [Bool] = []
        var answer: ChunkAnswer?
    }
    private let state: Mutex<State>
    private let directory: TemporaryDirectory

    init(chunkCount: Int = 8, resident: Set<Int>? = nil, seed: UInt64 = 1) throws {
        self.chunkCount = chunkCount
        directory = try TemporaryDirectory(prefix: "chunkd-shop")
        var generator = SeededGenerator(seed: seed)
        content = generator.bytes(Self.chunkSize * chunkCount)
        // Something lies before the blob: offsets must count.
        let path = try directory.write("blob", [7, 7, 7] + content)
        file = try File(path: path, flags: O_RDWR)
        guard let blob = WireID(rawBytes: generator.bytes(32)) else { throw FixtureError("no id") }
        self.blob = blob
        state = Mutex(State(resident: resident ?? Set(0..<chunkCount)))
    }

    func id(_ chunk: Int) -> WireID {
        var bytes = blob.rawBytes
        bytes[31] = UInt8(truncatingIfNeeded: chunk)
        bytes[30] = 0xC0
        return WireID(rawBytes: bytes) ?? blob
    }

    func request(_ chunk: Int, count: Int = 1, rank: PeerRank = .demand, wait: Duration = .zero) -> ChunkRequest {
        ChunkRequest(chunk: id(chunk), blob: blob, at: chunk, count: count, rank: rank, wait: wait)
    }

    func bytes(_ chunk: Int, count: Int = 1) -> [UInt8] {
        Array(content[chunk * Self.chunkSize..<(chunk + count) * Self.chunkSize])
    }

    // What the test does with it.

    func arrive(_ chunk: Int) {
        let waiters = state.withLock { state in
            state.resident.insert(chunk)
            return state.waiting.removeValue(forKey: chunk) ?? []
        }
        for waiter in waiters { waiter.resume() }
    }

    func always(_ answer: ChunkAnswer?) { state.withLock { $0.answer = answer } }
    func truncate() throws { try file.truncate(to: 100) }
    var complaints: [(PeerComplaint, NodeName)] { state.withLock { $0.complaints } }
    var asked: [ChunkRequest] { state.withLock { $0.asked } }
    /// Requests whose peer went away while they waited.
    var gone: Int { state.withLock { $0.gone } }
    var ended: [Bool] { state.withLock { $0.ended } }
    var waitingCount: Int { state.withLock { $0.waiting.values.reduce(0) { $0 + $1.count } } }

    // What peers get.

    func chunks(_ request: ChunkRequest, for peer: NodeName) async -> ChunkAnswer {
        if let answer = state.withLock({ state in
            state.asked.append(request)
            return state.answer
        }) {
            return answer
        }
        guard request.blob == blob, request.at < chunkCount, request.chunk == id(request.at) else {
            return .absent(nil)
        }
        if request.wait > .zero { await waitFor(request.at) }
        return state.withLock { state in
            guard state.resident.contains(request.at) else {
                return .absent(Self.residency(state.resident, chunkCount))
            }
            var end = request.at
            while end < min(chunkCount, request.at + request.count), state.resident.contains(end) { end += 1 }
            // In two parts where there are two chunks or more: parts need not be one range.
            let range = { (from: Int, to: Int) in UInt64(3 + from * Self.chunkSize)..<UInt64(3 + to * Self.chunkSize) }
            let parts = [range(request.at, request.at + 1), range(request.at + 1, end)]
            return .found(
                parts.map { ChunkBytes(file: file, range: $0) }, residency: Self.residency(state.resident, chunkCount)
            ) { [weak self] isSent in self?.state.withLock { $0.ended.append(isSent) } }
        }
    }

    private func waitFor(_ chunk: Int) async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isHere = state.withLock { state in
                    if !state.resident.contains(chunk) { state.waiting[chunk, default: []].append(continuation) }
                    return state.resident.contains(chunk)
                }
                if isHere { continuation.resume() }
            }
        } onCancel: {
            let waiters = state.withLock { state in
                state.gone += 1
                return state.waiting.removeValue(forKey: chunk) ?? []
            }
            for waiter in waiters { waiter.resume() }
        }
    }

    /// The first chunk stands for a part, under the id of the number after the last.
    func part(_ request: PartRequest, for peer: NodeName) async -> ChunkAnswer {
        guard request.blob == blob, request.part == id(chunkCount) else { return .absent(nil) }
        return .found([ChunkBytes(file: file, range: 3..<3 + UInt64(Self.chunkSize))], residency: nil)
    }

    func residency(
        blob: WireID, proof: WireID, for peer: NodeName
    ) async -> (residency: PeerResidency, chunkCount: Int)? {
        guard blob == self.blob, proof == id(0) else { return nil }
        return state.withLock { state in
            Self.residency(state.resident, chunkCount).map { ($0, chunkCount) }
        }
    }

    private static func residency(_ resident: Set<Int>, _ count: Int) -> PeerResidency? {
        var bits = [UInt8](repeating: 0, count: (count + 7) / 8)
        for chunk in resident { bits[chunk / 8] |= 1 << UInt8(chunk % 8) }
        return PeerResidency(first: 0, bits: bits)
    }

    func gossip(_ frame: [UInt8], from peer: NodeName) async -> [UInt8]? {
        frame.first == 0 ? nil : Array(peer.text.utf8) + [58] + frame.reversed()
    }

    func mount(_ request: [UInt8], from peer: NodeName) async -> [UInt8]? { request + request }

    func complaint(_ complaint: PeerComplaint, from peer: NodeName) async {
        state.withLock { $0.complaints.append((complaint, peer)) }
    }
}

/// A serving node: its shop, its server, and what it told of its answers.
final class Node: Sendable {
    let shop: Shop
    let server: TestServer
    let exchange: PeerExchangeServer
    private static let pool: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 2)
        pool.start()
        return pool
    }()

    init(
        _ store: IdentityStore, shop: Shop, uploads: UploadLimits = UploadLimits(),
        limits: PeerServerLimits = PeerServerLimits(), observer: @escaping PeerTransportObserver = { _ in }
    ) async throws {
        self.shop = shop
        let told = Told()
        exchange = PeerExchangeServer(
            .init(chunks: shop, gossip: shop, mount: shop, complaints: shop),
            uploads: UploadGate(uploads, loop: MultiThreadedEventLoopGroup.singleton.next()), pool: Self.pool,
            observer: { told.add($0) })
        self.told = told
        server = try await TestServer(store, handler: exchange, limits: limits, observer: observer)
    }

    final class Told: Sendable {
        private let state = Mutex<[PeerServed]>([])
        func add(_ one: PeerServed) { state.withLock { $0.append(one) } }
        var all: [PeerServed] { state.withLock { $0 } }
    }
    private let told: Told

    var all: [PeerServed] { told.all }
    var outcomes: [PeerServed.Outcome] { told.all.map(\.outcome) }
    var endpoint: PeerEndpoint { server.endpoint }
}

/// Takes what a fetch brings.
final class Basket: Sendable {
    private let state = Mutex<[UInt8]>([])
    var bytes: [UInt8] { state.withLock { $0 } }
    func add(_ piece: UnsafeRawBufferPointer) { state.withLock { $0 += piece } }
}

/// A file's bytes.
struct ContentsOfFile {
    let bytes: [UInt8]

    init(_ path: String) throws {
        bytes = try File(path: path, flags: O_RDONLY).contents(limit: 64 << 20)
    }
}
