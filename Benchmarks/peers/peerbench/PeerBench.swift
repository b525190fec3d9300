import ChunkModel
import DevelopmentPKI
import Dispatch
import Glibc
import HTTPTransfer
import LinuxSystem
import NIOCore
import NIOPosix
import PeerExchange
import PeerTransport
import Synchronization

/// The peer server and the peer client by themselves, for Benchmarks/peers/run.
///
///     peerbench pki DIR NAME…                      a development CA and certificates
///     peerbench serve DIR NAME FILES               serves FILES/0, FILES/1, … as chunks; prints its port
///     peerbench fetch DIR NAME PEER ADDRESS COUNT  fetches chunk 0 again and again; prints microseconds, one a line
///     peerbench targets COUNT                      the request targets of the first chunks
@main enum PeerBench {
    static func main() async throws {
        let words = Array(CommandLine.arguments.dropFirst())
        switch (words.first, words.count) {
        case ("pki", 3...): try makePKI(words[1], Array(words[2...]))
        case ("serve", 4): try await serve(words[1], words[2], words[3])
        case ("fetch", 6): try await fetch(Array(words[1...]))
        case ("targets", 2):
            for chunk in 0..<(Int(words[1]) ?? 0) { print(PeerCall.chunks(Files.request(chunk)).target) }
        default:
            print("usage: see Benchmarks/peers/run")
            exit(2)
        }
    }

    private static func makePKI(_ directory: String, _ names: [String]) throws {
        guard let domain = TrustDomain("bench.chunkd") else { throw Unusable(what: "trust domain") }
        let authority = try DevelopmentAuthority.create(
            directory: directory, trustDomain: domain, validity: .days(2))
        for name in names {
            guard let name = NodeName(name) else { throw Unusable(what: name) }
            _ = try authority.issue(name, validity: .days(1))
        }
    }

    private static func store(_ directory: String, _ name: String) throws -> IdentityStore {
        guard let domain = TrustDomain("bench.chunkd") else { throw Unusable(what: "trust domain") }
        let files = IdentityFiles(
            bundle: "\(directory)/ca.crt", certificate: "\(directory)/\(name).crt", key: "\(directory)/\(name).key")
        let store = IdentityStore(files: files, trustDomain: domain)
        if let failure = store.failure { throw failure }
        return store
    }

    private static func serve(_ directory: String, _ name: String, _ files: String) async throws {
        let files = try Files(files)
        // One event loop, as nginx is given one worker.
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let pool = NIOThreadPool(numberOfThreads: 2)
        pool.start()
        let exchange = PeerExchangeServer(
            .init(chunks: files, gossip: files, mount: files, complaints: files),
            uploads: UploadGate(UploadLimits(), loop: group.next()), pool: pool)
        let server = try await PeerServer.start(
            host: "127.0.0.1", port: 0, group: group, store: try store(directory, name), handler: exchange)
        print(server.port)
        fflush(nil)
        while true { try await Task.sleep(for: .seconds(3600)) }
    }

    private static func fetch(_ words: [String]) async throws {
        guard let peer = NodeName(words[2]), let address = PeerAddress(words[3]), let count = Int(words[4]) else {
            throw Unusable(what: "arguments")
        }
        let client = PeerClient(store: try store(words[0], words[1]))
        let endpoint = PeerEndpoint(name: peer, address: address)
        let target = Memory(count: 4 << 20)
        var times: [Int64] = []
        for _ in 0..<count {
            let began = ContinuousClock.now
            target.rewind()
            let result = try await client.fetch(
                Files.request(0), from: endpoint, limit: 4 << 20, handle: try client.begin()
            ) { piece in
                target.take(piece)
                return .continue
            }
            guard case .delivered = result else { throw Unusable(what: "\(result)") }
            times.append(Int64((ContinuousClock.now - began) / .nanoseconds(1)))
        }
        for time in times { print(Double(time) / 1000) }
        await client.shutDown()
    }
}

private struct Unusable: Error { let what: String }

/// Where fetched bytes are copied to, as a chunk's slot is.
private final class Memory: @unchecked Sendable {
    // @unchecked: `take` and `rewind` are never called at once, the fetch's end lies between them.
    private let base: UnsafeMutableRawBufferPointer
    private var used = 0

    init(count: Int) { base = .allocate(byteCount: count, alignment: 4096) }
    deinit { base.deallocate() }

    func rewind() { used = 0 }

    func take(_ piece: UnsafeRawBufferPointer) {
        guard used + piece.count <= base.count, let start = base.baseAddress, let source = piece.baseAddress else {
            return
        }
        memcpy(start + used, source, piece.count)
        used += piece.count
    }
}

/// Files by number as chunks of one blob.
private struct Files: ChunkSupplier, GossipHandler, MountHandler, ComplaintHandler {
    private let files: [(file: File, size: UInt64)]

    init(_ directory: String) throws {
        var files: [(File, UInt64)] = []
        while let file = try? File(path: "\(directory)/\(files.count)", flags: O_RDONLY) {
            files.append((file, try file.size()))
        }
        self.files = files
    }

    static func request(_ chunk: Int) -> ChunkRequest { ChunkRequest(chunk: id(chunk), blob: id(-1), at: chunk) }

    private static func id(_ number: Int) -> WireID {
        var bytes = [UInt8](repeating: 0xC7, count: WireID.byteCount)
        bytes[31] = UInt8(truncatingIfNeeded: number)
        guard let id = WireID(rawBytes: bytes) else { fatalError("32 bytes are no id") }
        return id
    }

    func chunks(_ request: ChunkRequest, for peer: NodeName) async -> ChunkAnswer {
        guard files.indices.contains(request.at), request.chunk == Self.id(request.at) else { return .absent(nil) }
        let found = files[request.at]
        return .found([ChunkBytes(file: found.file, range: 0..<found.size)], residency: nil)
    }

    func part(_ request: PartRequest, for peer: NodeName) async -> ChunkAnswer { .absent(nil) }

    func residency(
        blob: WireID, proof: WireID, for peer: NodeName
    ) async -> (residency: PeerResidency, chunkCount: Int)? { nil }

    func gossip(_ frame: [UInt8], from peer: NodeName) async -> [UInt8]? { frame }
    func mount(_ request: [UInt8], from peer: NodeName) async -> [UInt8]? { request }
    func complaint(_ complaint: PeerComplaint, from peer: NodeName) async {}
}
