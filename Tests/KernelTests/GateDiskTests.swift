import ChunkModel
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// What chunkgate does with its disk: other file systems, no space, damage, removal, stopping.
@Suite(.serialized, .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct GateDiskTests {
    let scratch: ScratchDirectory
    let tree: String
    let big: [UInt8]
    let image: GateImage

    init() throws {
        scratch = try ScratchDirectory("disk")
        tree = try scratch.makeDirectory("tree")
        var random = SystemRandomNumberGenerator()
        big = (0..<10 * GateImage.chunkSize / 8).flatMap { _ in withUnsafeBytes(of: random.next()) { Array($0) } }
        try File(path: tree + "/big", flags: O_CREAT | O_WRONLY, mode: 0o644).writeAll(big, at: 0)
        image = try GateImage(tree: tree, in: scratch)
    }

    private func handle(_ info: GateProtocol.ImageInfo) throws -> UInt32 { try #require(info.blobs.first?.handle) }

    private func fillAll(_ client: GateClient, _ info: GateProtocol.ImageInfo, _ image: GateImage) throws {
        for chunk in 0..<image.index.count {
            let at = GateProtocol.ChunkAddress(blob: try handle(info), chunk: UInt32(chunk))
            #expect(try client.fill(at, image.chunk(chunk)) == .resident)
        }
    }

    @Test(arguments: LoopFileSystem.Kind.allCases)
    func lazyReadsWorkOnEveryFileSystemThatCarriesMarks(_ kind: LoopFileSystem.Kind) throws {
        let disk = try LoopFileSystem(kind, size: kind.smallestSize)
        let gate = try RunningGate(scratch, state: disk.path + "/state")
        let client = try gate.connect()
        let info = try client.open(image)
        let readers = try Readers(8, path: info.path + "/big", offset: 0, length: big.count)
        try client.serve(image) { readers.finished == 8 }
        #expect(try readers.wait().allSatisfy { $0 == .bytes(big) })
        #expect(try client.counters()[.selfEvents] == 0)
        #expect(try client.ask(.closeImage(manifest: image.digest)) == .reply(errno: 0, value: 0, message: ""))
        gate.stop()
    }

    @Test func aFullDiskIsAnErrorForThatChunkAndGoesOnWhenThereIsRoom() throws {
        let disk = try LoopFileSystem(.ext4, size: LoopFileSystem.Kind.ext4.smallestSize)
        let gate = try RunningGate(scratch, state: disk.path + "/state")
        let client = try gate.connect()
        let info = try client.open(image)
        // Takes every free block.
        let ballast = try File(path: disk.path + "/ballast", flags: O_CREAT | O_WRONLY)
        let block = [UInt8](repeating: 1, count: 1 << 20)
        var offset: UInt64 = 0
        var full: SystemError?
        for size in [1 << 20, 4096] {
            full = nil
            for _ in 0..<4096 where full == nil {
                do throws(SystemError) {
                    try ballast.writeAll(Array(block[..<size]), at: offset)
                    offset += UInt64(size)
                } catch { full = error }
            }
        }
        #expect(full?.errno == ENOSPC)
        let at = GateProtocol.ChunkAddress(blob: try handle(info), chunk: 3)
        #expect(try client.fill(at, image.chunk(3)) == .writeFailed)
        #expect(try client.counters()[.fillWriteErrors] == 1)
        try ballast.truncate(to: 0)
        try ballast.sync()
        let readers = try Readers(1, path: info.path + "/big", offset: 0, length: big.count)
        try client.serve(image) { readers.finished == 1 }
        #expect(try readers.wait() == [.bytes(big)])
        #expect(try client.ask(.closeImage(manifest: image.digest)) == .reply(errno: 0, value: 0, message: ""))
        gate.stop()
    }

    @Test func chunksOfAnotherBlobAreCopiedAndVerified() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let first = try client.open(image)
        try fillAll(client, first, image)
        let otherTree = try scratch.makeDirectory("other")
        try File(path: otherTree + "/big", flags: O_CREAT | O_WRONLY, mode: 0o644).writeAll(big, at: 0)
        try File(path: otherTree + "/zz", flags: O_CREAT | O_WRONLY, mode: 0o644)
            .writeAll([UInt8](repeating: 7, count: 70_000), at: 0)
        let other = try GateImage(tree: otherTree, in: scratch, name: "other")
        let second = try client.open(other)
        let to = GateProtocol.ChunkAddress(blob: try handle(second), chunk: 0)
        for (from, expected) in [(UInt32(1), GateProtocol.FillStatus.mismatch), (0, .resident)] {
            try client.send(.copy(to: to, from: .init(blob: try handle(first), chunk: from)))
            let status: GateProtocol.FillStatus = try client.event { event, _ in
                if case .filled(to, GateProtocol.noSlot, let status, _) = event { status } else { nil }
            }
            #expect(status == expected)
        }
        let readers = try Readers(1, path: second.path + "/big", offset: 0, length: 4096)
        #expect(try readers.wait() == [.bytes(Array(big[..<4096]))])
        #expect(try client.counters()[.localCopies] == 1)
    }

    @Test func damageIsFoundByVerifyAndRepairedByAnAskedForFill() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image, mount: false)
        try fillAll(client, info, image)
        let blob = try handle(info)
        let names = try Directory.names(gate.state + "/gate/blobs")
        let path = gate.state + "/gate/blobs/" + (try #require(names.first)) + "/data"
        try File(path: path, flags: O_RDWR).writeAll([0xAA, 0xBB], at: UInt64(4 * GateImage.chunkSize + 5))
        let verify = GateProtocol.Request.verify(blob: blob, first: 0, count: 256)
        let count = UInt32(image.index.count)
        #expect(try client.ask(verify) == .verified(blob: blob, checked: count, absent: 0, bad: [4]))
        #expect(try client.fill(.init(blob: blob, chunk: 4), image.chunk(4), repair: true) == .resident)
        #expect(try client.ask(verify) == .verified(blob: blob, checked: count, absent: 0, bad: []))
        #expect(try client.counters()[.verifyFailures] == 1)
    }

    @Test func whatIsMountedIsNeitherRemovedNorUnmountedUnderItsUsers() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        let info = try client.open(image)
        let user = try scratch.makeDirectory("user")
        try Mount.bind(info.path, onto: user, isConfined: true)
        for request in [GateProtocol.Request.removeImage(manifest: image.digest), .closeImage(manifest: image.digest)] {
            guard case .reply(let errno, _, let message) = try client.ask(request) else {
                Issue.record("no reply to \(request)")
                continue
            }
            #expect(errno == UInt32(EBUSY), "\(message)")
        }
        // Not even SIGTERM: its readers would get zeros.
        kill(gate.process.pid, SIGTERM)
        #expect(Wait.until(.seconds(5)) { gate.process.log.contains("not stopping") })
        let readers = try Readers(1, path: user + "/big", offset: 0, length: big.count)
        try client.serve(image) { readers.finished == 1 }
        #expect(try readers.wait() == [.bytes(big)])
        try Mount.unmount(user)
        #expect(try client.ask(.closeImage(manifest: image.digest)) == .reply(errno: 0, value: 0, message: ""))
        guard case .reply(0, let bytes, _) = try client.ask(.removeImage(manifest: image.digest)) else {
            Issue.record("not removed")
            return
        }
        #expect(bytes >= UInt64(big.count))
        #expect(try Directory.names(gate.state + "/gate/blobs").isEmpty)
        #expect(try Directory.names(gate.state + "/gate/images").isEmpty)
        gate.stop()
    }

    @Test func oneDamagedImageDoesNotStopTheOthers() throws {
        let first = try RunningGate(scratch)
        let client = try first.connect()
        _ = try client.open(image, mount: false)
        let otherTree = try scratch.makeDirectory("other")
        try File(path: otherTree + "/f", flags: O_CREAT | O_WRONLY, mode: 0o644)
            .writeAll([UInt8](repeating: 7, count: 70_000), at: 0)
        let other = try GateImage(tree: otherTree, in: scratch, name: "other")
        _ = try client.open(other, mount: false)
        client.close()
        first.stop()
        try File(path: first.state + "/gate/images/\(image.digest.hex)/manifest", flags: O_RDWR).writeAll([0], at: 3)
        let second = try RunningGate(scratch)
        let again = try second.connect()
        try again.send(.list, number: 77)
        let listed: Digest = try again.event { event, number in
            if case .image(let info) = event, number == 77 { info.manifest } else { nil }
        }
        #expect(listed == other.digest)
        // And the damaged one is taken in anew when it is brought again.
        #expect(try again.open(image).mounted)
    }

    @Test func aHostileBootstrapIsRefusedBeforeTheKernelSeesIt() throws {
        let gate = try RunningGate(scratch)
        let client = try gate.connect()
        for (offset, name) in [(1024, "magic"), (1024 + 12, "block size"), (1024 + 14, "root inode")] {
            let hostile = try image.with(bootstrapByte: offset)
            guard
                case .reply(let errno, _, let message) = try client.ask(
                    .openImage(manifest: hostile.digest, mount: true, blobCount: 1), try hostile.files())
            else {
                Issue.record("\(name): accepted")
                continue
            }
            #expect(errno == UInt32(EINVAL), "\(name): \(message)")
        }
    }
}
