import ChunkModel
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// chunkgate on the real kernel, with the test as chunkd.
@Suite(.serialized, .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct GateTests {
    let scratch: ScratchDirectory
    let image: GateImage
    let tree: String
    /// Bytes of `tree/big`: 20 chunks of random data.
    let big: [UInt8]

    init() throws {
        scratch = try ScratchDirectory("gate")
        tree = try scratch.makeDirectory("tree")
        var random = SystemRandomNumberGenerator()
        big = (0..<20 * GateImage.chunkSize / 8).flatMap { _ in
            withUnsafeBytes(of: random.next()) { Array($0) }
        }
        try File(path: tree + "/big", flags: O_CREAT | O_WRONLY, mode: 0o644).writeAll(big, at: 0)
        try File(path: tree + "/small", flags: O_CREAT | O_WRONLY, mode: 0o644).writeAll(Array("small\n".utf8), at: 0)
        image = try GateImage(tree: tree, in: scratch)
    }

    private func requireNoSelfEvents(_ client: GateClient) throws {
        #expect(try client.counters()[.selfEvents] == 0)
    }

    @Test func aColdReadWaitsForItsChunkAndGetsItsBytes() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let readers = try Readers(1, path: info.path + "/big", offset: 0, length: big.count)
        try client.serve(image) { readers.finished == 1 }
        #expect(try readers.wait() == [.bytes(big)])
        let counters = try client.counters()
        #expect(counters[.fillBytes, default: 0] >= UInt64(big.count))
        #expect(counters[.blockedReaders] == 0)
        try requireNoSelfEvents(client)
    }

    @Test func wrongBytesAreNeverWrittenAndTheReaderWaitsForTheRightOnes() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let readers = try Readers(1, path: info.path + "/small", offset: 0, length: 6)
        let wanted = try client.miss()
        var wrong = image.chunk(Int(wanted.chunk))
        wrong[0] ^= 1
        #expect(try client.fill(wanted, wrong) == .mismatch)
        #expect(try client.fill(wanted, Array(wrong.dropLast())) == .mismatch)
        #expect(readers.finished == 0)
        #expect(try client.fill(wanted, image.chunk(Int(wanted.chunk))) == .resident)
        #expect(try readers.wait() == [.bytes(Array("small\n".utf8))])
        #expect(try client.counters()[.fillMismatches] == 2)
        try requireNoSelfEvents(client)
    }

    @Test func aFailedChunkIsAnErrorAndALaterReadRecovers() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let readers = try Readers(1, path: info.path + "/small", offset: 0, length: 6)
        // The kernel asks again for the single folio after the read-ahead window was denied: both are refused.
        for _ in 0..<8 where readers.finished == 0 {
            guard let wanted = try? client.miss() else { break }
            try client.send(.fail(at: wanted, errno: UInt32(EIO)))
            _ = Wait.until(.milliseconds(300)) { readers.finished == 1 }
        }
        #expect(try readers.wait() == [.failed(EIO)])
        let again = try Readers(1, path: info.path + "/small", offset: 0, length: 6)
        try client.serve(image) { again.finished == 1 }
        #expect(try again.wait() == [.bytes(Array("small\n".utf8))])
        try requireNoSelfEvents(client)
    }

    @Test func whoIsBlockedOnWhatCanBeAsked() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        #expect(try client.ask(.listBlocked) == .blocked([]))
        let readers = try Readers(3, path: info.path + "/small", offset: 0, length: 6)
        let wanted = try client.miss()
        func blocked() throws -> [GateProtocol.BlockedReader] {
            guard case .blocked(let list) = try client.ask(.listBlocked) else { throw FixtureError("no list") }
            return list
        }
        // One of the three raises the event; the others wait for its page.
        let list = try blocked()
        #expect(!list.isEmpty && list.allSatisfy { $0.pid == UInt32(getpid()) && $0.at == wanted })
        #expect(Wait.until(.seconds(5)) { ((try? blocked().first?.milliseconds) ?? 0) > 20 })
        try client.serve(image) { readers.finished == 3 }
        #expect(try readers.wait().count == 3)
        #expect(try client.ask(.listBlocked) == .blocked([]))
        try requireNoSelfEvents(client)
    }

    @Test func readersBlockedWhileChunkdIsAwayAreServedWhenItIsBack() throws {
        let gate = try RunningGate(scratch)
        let first = try gate.connect()
        let info = try first.open(image)
        let readers = try Readers(200, path: info.path + "/big", offset: 0, length: big.count)
        _ = try first.miss()
        first.close()
        #expect(first.waitClosed())
        #expect(readers.finished == 0)
        let second = try gate.connect()
        try second.serve(image) { readers.finished == 200 }
        #expect(try readers.wait().allSatisfy { $0 == .bytes(big) })
        try requireNoSelfEvents(second)
    }

    @Test func aKilledWorkerIsReplacedAndItsBlockedReadersGetTheirBytes() throws {
        let gate = try RunningGate(scratch)
        let first = try gate.connect()
        let info = try first.open(image)
        let readers = try Readers(50, path: info.path + "/big", offset: 0, length: big.count)
        let wanted = try first.miss()
        try first.fill(wanted, image.chunk(Int(wanted.chunk)))
        _ = try first.miss()
        let worker = try gate.child()
        kill(worker, SIGKILL)
        #expect(first.waitClosed())
        let second = try gate.connect()
        try second.serve(image) { readers.finished == 50 }
        // Right bytes or EIO, never anything else.
        let outcomes = try readers.wait()
        #expect(outcomes.allSatisfy { $0 == .bytes(big) || $0 == .failed(EIO) })
        let counters = try second.counters()
        #expect(counters[.restarts] == 1)
        #expect(counters[.adopted, default: 0] > 0)
        #expect(counters[.integrityGaps] == 0)
        try requireNoSelfEvents(second)
        let after = try Readers(1, path: info.path + "/big", offset: 0, length: big.count)
        try second.serve(image) { after.finished == 1 }
        #expect(try after.wait() == [.bytes(big)])
    }

    @Test func whatWasFetchedJustBeforeAReplacementIsThereAfterIt() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image, mount: false)
        let blob = try #require(info.blobs.first?.handle)
        let few = 5
        for chunk in 0..<few {
            #expect(try client.fill(.init(blob: blob, chunk: UInt32(chunk)), image.chunk(chunk)) == .resident)
        }
        kill(gate.process.pid, SIGHUP)
        #expect(client.waitClosed())
        let after = try gate.connect().open(image, mount: false)
        #expect(after.blobs.first?.residentCount == UInt32(few))
    }

    @Test func firstAccessesAreToldInTheReadersOrderWhateverIsThereAlready() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let blob = try #require(info.blobs.first?.handle)
        // Two of three chunks are here: some reads find all they want, some a part, some nothing.
        for chunk in 0..<image.index.count where chunk % 3 != 1 {
            try client.fill(.init(blob: blob, chunk: UInt32(chunk)), image.chunk(chunk))
        }
        let readers = try Readers(1, path: info.path + "/big", offset: 0, length: big.count)
        var told: [UInt32] = []
        let isRead = try Wait.until(.seconds(20)) {
            for access in client.accesses() {
                told.append(access.at.chunk)
                if access.isMiss { try client.fill(access.at, image.chunk(Int(access.at.chunk))) }
            }
            return readers.finished == 1
        }
        #expect(isRead)
        #expect(try readers.wait() == [.bytes(big)])
        // The last touches may still be on their way.
        let first = try #require(told.first)
        let all = Array(first..<first + UInt32(big.count / GateImage.chunkSize))
        #expect(
            Wait.until(.seconds(5)) {
                told += client.accesses().map(\.at.chunk)
                return told.count >= all.count
            })
        #expect(told == all)
        try requireNoSelfEvents(client)
    }

    @Test func theAgentReadsWhatIsResidentWithoutEventsAndCannotWriteIt() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let blob = try #require(info.blobs.first?.handle)
        try client.fill(.init(blob: blob, chunk: 0), image.chunk(0))
        let before = try client.counters()[.events]
        let file = try client.blobFile(blob)
        #expect(try file.contents(limit: 1 << 30).starts(with: image.chunk(0)))
        #expect(try client.counters()[.events] == before, "reading for a peer is nobody's access")
        var byte: UInt8 = 1
        #expect(pwrite(file.descriptor, &byte, 1, 0) == -1 && errno == EBADF)
        #expect(throws: (any Error).self) { try client.blobFile(blob + 1000) }
        #expect(try client.bootstrapFile(image.digest).contents(limit: 1 << 30) == image.bootstrap)
        let unknown = try #require(Digest(rawBytes: [UInt8](repeating: 1, count: 32)))
        #expect(throws: (any Error).self) { try client.bootstrapFile(unknown) }
        try requireNoSelfEvents(client)
    }

    @Test func aRequestThatANewerAgentMakesIsRefusedAndItStaysConnected() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        var frame = GateProtocol.encode(.stat, number: 77)
        frame[0] = 63
        guard case .reply(UInt32(ENOSYS), _, let message) = try client.ask(frame: frame, number: 77) else {
            throw FixtureError("not refused")
        }
        #expect(message.contains("request 63"))
        try requireNoSelfEvents(client)
    }

    @Test func aListenerOutlivesTheAgentAndTheWorkerAndNothingElseIsKept() throws {
        let gate = try RunningGate(scratch)
        let path = scratch.appending("kept.sock")
        do {
            let client = try gate.connect()
            let tcp = File(owning: socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
            #expect(listen(tcp.descriptor, 1) == 0)
            let frames = try PacketSocket.listen(path: scratch.appending("frames.sock"), mode: 0o600)
            for other in [try File.memory(name: "other"), tcp, frames.file] {
                guard case .reply(UInt32(EINVAL), _, _) = try client.ask(.keepListener, [other]) else {
                    throw FixtureError("it was kept")
                }
            }
            #expect(try client.ask(.keptListener) == .reply(errno: UInt32(ENOENT), value: 0, message: "none is kept"))
            #expect(
                try client.ask(.keepListener, [try StreamListener.listen(path: path)])
                    == .reply(errno: 0, value: 0, message: ""))
            client.close()
        }
        let worker = try gate.child()
        kill(worker, SIGKILL)
        #expect(Wait.until(.seconds(10)) { (try? gate.child()).map { $0 != worker } ?? false })
        let caller = try connectStream(path: path)
        let client = try gate.connect()
        let kept = try client.keptListener()
        #expect(StreamListener.isFound(kept, at: path) && !StreamListener.isFound(kept, at: path + "x"))
        // Holds for accept(2) too.
        try PacketSocket(owning: kept).setReceiveTimeout(seconds: 10)
        let accepted = File(owning: accept(kept.descriptor, nil, nil))
        try #require(accepted.descriptor >= 0)
        try PacketSocket(owning: accepted).setReceiveTimeout(seconds: 10)
        #expect(write(caller.descriptor, "waited", 6) == 6)
        var bytes = [UInt8](repeating: 0, count: 6)
        #expect(read(accepted.descriptor, &bytes, 6) == 6 && bytes == Array("waited".utf8))

        #expect(try client.ask(.keepListener) == .reply(errno: 0, value: 0, message: ""))
        #expect(try client.ask(.keptListener) == .reply(errno: UInt32(ENOENT), value: 0, message: "none is kept"))
    }

    @Test func aCompleteBlobGraduatesAndIsNeverAskedForAgain() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let handle = try #require(info.blobs.first?.handle)
        for chunk in 0..<image.index.count {
            try client.fill(.init(blob: handle, chunk: UInt32(chunk)), image.chunk(chunk))
        }
        let graduated = Wait.until(.seconds(10)) { (try? client.counters()[.graduations]) == 1 }
        #expect(graduated)
        let before = try client.counters()[.events]
        #expect(
            try Readers(4, path: info.path + "/big", offset: 0, length: big.count).wait()
                .allSatisfy { $0 == .bytes(big) })
        #expect(try client.counters()[.events] == before)
        // What is durable is there after everything stopped and started.
        #expect(try client.ask(.closeImage(manifest: image.digest)) == .reply(errno: 0, value: 0, message: ""))
        kill(gate.process.pid, SIGTERM)
        #expect(gate.process.wait(atMost: .seconds(10)) == 0)
        let again = try RunningGate(scratch)
        let other = try again.connect()
        let reopened = try other.open(image)
        #expect(reopened.blobs.first?.graduated == true)
        #expect(reopened.tainted == false)
    }

    @Test func noReaderWaitsPastTheDeadline() throws {
        let gate = try RunningGate(scratch, arguments: ["--deadline", "1s", "--agent-away-deadline", "1s"])
        let client = try gate.connect()
        let info = try client.open(image)
        let readers = try Readers(3, path: info.path + "/small", offset: 0, length: 6)
        #expect(try readers.wait(seconds: 15).allSatisfy { $0 == .failed(EIO) })
        #expect(try client.counters()[.deniedDeadline, default: 0] > 0)
        try requireNoSelfEvents(client)
    }

    @Test func aSecondChunkdIsTurnedAway() throws {
        let gate = try RunningGate(scratch)
        let first = try gate.connect()
        #expect(throws: (any Error).self) { try GateClient(path: gate.socket) }
        try requireNoSelfEvents(first)
    }

    @Test func aGroupThatWasLostLeavesAMountTaintedAndSaysSo() throws {
        let first = try RunningGate(scratch)
        let client = try first.connect()
        let info = try client.open(image)
        first.kill()
        let second = try RunningGate(scratch)
        let other = try second.connect()
        #expect(try other.counters()[.integrityGaps] == 1)
        let seen = try other.open(image)
        #expect(seen.tainted)
        // Guarded again: a read of what nobody read meanwhile waits and gets its bytes.
        let readers = try Readers(1, path: info.path + "/big", offset: 0, length: big.count)
        try other.serve(image) { readers.finished == 1 }
        #expect(try readers.wait() == [.bytes(big)])
    }

    @Test func filesThatAreNotTheManifestsAreRefused() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        var forged = image.indexFile
        forged[72] ^= 1
        let cases: [(String, [File], Digest)] = [
            (
                "index of another blob",
                [
                    try GateImage.sealed(image.manifest), try GateImage.sealed(image.bootstrap),
                    try GateImage.sealed(forged),
                ],
                image.digest
            ),
            (
                "another manifest", try image.files(),
                image.digest == image.index[0].digest ? image.digest : image.index[0].digest
            ),
            (
                "unsealed",
                [
                    try GateImage.sealed(image.manifest), try File.memory(name: "open", size: 4096),
                    try GateImage.sealed(image.indexFile),
                ], image.digest
            ),
        ]
        for (name, files, digest) in cases {
            let reply = try client.ask(.openImage(manifest: digest, mount: true, blobCount: 1), files)
            guard case .reply(let errno, _, _) = reply else {
                Issue.record("\(name): \(reply)")
                continue
            }
            #expect(errno != 0, "\(name)")
        }
        #expect(try client.open(image).mounted)
    }

    @Test func aThousandReadersOfOneChunkCostOneFill() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let readers = try Readers(1000, path: info.path + "/small", offset: 0, length: 6)
        let wanted = try client.miss()
        #expect(try client.fill(wanted, image.chunk(Int(wanted.chunk))) == .resident)
        #expect(try readers.wait(seconds: 30).allSatisfy { $0 == .bytes(Array("small\n".utf8)) })
        #expect(try client.counters()[.fills] == 1)
        try requireNoSelfEvents(client)
    }

    @Test func theGateHasNoNetworkSocket() throws {
        let gate = try RunningGate(scratch)
        _ = try gate.connect()
        for pid in [gate.process.pid, try gate.child()] {
            let inodes = try Directory.names("/proc/\(pid)/fd").compactMap { name -> String? in
                var buffer = [CChar](repeating: 0, count: 256)
                let count = readlink("/proc/\(pid)/fd/\(name)", &buffer, 255)
                let target = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
                return target.hasPrefix("socket:[") ? String(target.dropFirst(8).dropLast()) : nil
            }
            for protocolName in ["tcp", "tcp6", "udp", "udp6", "raw", "packet", "netlink"] {
                let path = "/proc/\(pid)/net/\(protocolName)"
                guard Directory.exists(path) else { continue }
                let table = String(decoding: try readProcFile(path), as: UTF8.self)
                for line in table.split(separator: "\n").dropFirst() {
                    #expect(!inodes.contains { line.split(separator: " ").contains(Substring($0)) }, "\(protocolName)")
                }
            }
        }
    }
}
