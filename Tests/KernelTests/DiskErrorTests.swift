import ChunkModel
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The gate on disks that fail: errors of writes, syncs and reads, a file system that gives up.
@Suite(.serialized, .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct DiskErrorTests {
    let scratch: ScratchDirectory
    /// The image whose disk fails, and one on a disk that does not.
    let sick: GateImage
    let well: GateImage
    let sickBytes: [UInt8]
    let wellBytes: [UInt8]

    init() throws {
        scratch = try ScratchDirectory("errors")
        var random = SeededGenerator(seed: 5)
        (sick, sickBytes) = try GateImage.random("sick", chunks: 12, using: &random, in: scratch)
        (well, wellBytes) = try GateImage.random("well", chunks: 12, using: &random, in: scratch)
    }

    private func handle(_ info: GateProtocol.ImageInfo) throws -> UInt32 { try #require(info.blobs.first?.handle) }

    private func fill(
        _ client: GateClient, _ image: GateImage, _ handle: UInt32, _ chunks: Range<Int>
    ) throws -> [GateProtocol.FillStatus] {
        try chunks.map { try client.fill(.init(blob: handle, chunk: UInt32($0)), image.chunk($0)) }
    }

    private func counter(_ client: GateClient, _ counter: GateProtocol.Counter) throws -> UInt64 {
        try client.counters()[counter] ?? 0
    }

    /// Whether the gate says no to an image it is brought.
    private func isRefused(_ client: GateClient, _ image: GateImage) throws -> Bool {
        let open = GateProtocol.Request.openImage(manifest: image.digest, mount: true, blobCount: 1)
        guard case .reply(let errno, _, _) = try client.ask(open, try image.files()) else { return false }
        return errno != 0
    }

    /// Reads chunks of `big` through the mount, while misses are answered.
    private func read(
        _ client: GateClient, _ image: GateImage, _ info: GateProtocol.ImageInfo, _ chunks: Range<Int>
    ) throws -> Readers.Outcome {
        let readers = try Readers(
            1, path: info.path + "/big", offset: UInt64(chunks.lowerBound * GateImage.chunkSize),
            length: chunks.count * GateImage.chunkSize)
        try client.serve(image) { readers.finished == 1 }
        return try readers.wait()[0]
    }

    private func bytes(_ big: [UInt8], _ chunks: Range<Int>) -> Readers.Outcome {
        .bytes(Array(big[chunks.lowerBound * GateImage.chunkSize..<chunks.upperBound * GateImage.chunkSize]))
    }

    @Test func whatAFailedSyncLostIsFetchedAgainAndOtherImagesGoOn() throws {
        let disk = try FaultyDisk(.ext4, size: 32 << 20, journal: .onHealthyDisk)
        defer { disk.remove() }
        let gate = try RunningGate(scratch, blobOf: sick, on: disk.path)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let (info, other) = (try client.open(sick), try client.open(well))
        let blob = try handle(info)

        #expect(try fill(client, sick, blob, 0..<4).allSatisfy { $0 == .resident })
        #expect(try Wait.until(.seconds(10)) { try sick.durable(gate.state).residentCount == 4 })
        let durable = try sick.durable(gate.state).bits
        try disk.fail([.write])
        // The page cache takes them; that they are lost is known when they are synced.
        _ = try fill(client, sick, blob, 4..<8)
        #expect(try Wait.until(.seconds(10)) { try counter(client, .syncErrors) > 0 })
        #expect(try client.residency(blob) == durable)
        #expect(try read(client, well, other, 0..<2) == bytes(wellBytes, 0..<2))
        #expect(try read(client, sick, info, 0..<4) == bytes(sickBytes, 0..<4))

        try disk.fail([])
        let recovered = try Wait.until(.seconds(10)) {
            try read(client, sick, info, 0..<12) == bytes(sickBytes, 0..<12)
        }
        #expect(recovered, "no recovery")
        #expect(try Wait.until(.seconds(10)) { try sick.durable(gate.state).isComplete }, "no recovery")
        #expect(try read(client, well, other, 0..<12) == bytes(wellBytes, 0..<12))
        // What the disk has, not what a cache does.
        try dropPageCache()
        #expect(try read(client, sick, info, 0..<12) == bytes(sickBytes, 0..<12))
        #expect(try counter(client, .selfEvents) == 0)
    }

    @Test func aReaderThatWaitsAcrossAFailedSyncNeverGetsZeros() throws {
        let disk = try FaultyDisk(.ext4, size: 32 << 20, journal: .onHealthyDisk)
        defer { disk.remove() }
        let gate = try RunningGate(scratch, blobOf: sick, on: disk.path)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let info = try client.open(sick)
        let blob = try handle(info)
        // One access to two chunks. The first of them comes.
        let half = GateImage.chunkSize / 2
        let readers = try Readers(1, path: info.path + "/big", offset: UInt64(half), length: 2 * half)
        for chunk in UInt32(0)..<2 { #expect(try client.miss() == .init(blob: blob, chunk: chunk)) }
        try disk.fail([.write])
        #expect(try fill(client, sick, blob, 0..<1) == [.resident])
        #expect(try Wait.until(.seconds(10)) { try counter(client, .syncErrors) > 0 })
        // The kernel keeps what it could not write as if it had: until it needs the memory.
        try dropPageCache()
        try disk.fail([])
        #expect(readers.finished == 0)
        #expect(try Wait.until(.seconds(10)) { try fill(client, sick, blob, 1..<2) == [.resident] })
        try client.serve(sick) { readers.finished == 1 }
        #expect(try readers.wait() == [.bytes(Array(sickBytes[half..<3 * half]))])
    }

    @Test func aFileSystemThatGivesUpIsAnErrorUntilItIsMountedAgain() throws {
        let disk = try FaultyDisk(.ext4, size: 32 << 20)
        defer { disk.remove() }
        let state = disk.path + "/state"
        let gate = try RunningGate(scratch, state: state)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let info = try client.open(sick)
        let blob = try handle(info)
        #expect(try fill(client, sick, blob, 0..<3).allSatisfy { $0 == .resident })
        #expect(try Wait.until(.seconds(10)) { try sick.durable(state).residentCount == 3 })
        try disk.fail([.write])
        // The first failed sync ends the journal; from then on the file system takes nothing.
        let refused = try Wait.until(.seconds(20)) { try fill(client, sick, blob, 3..<4) == [.writeFailed] }
        #expect(refused, "the file system takes writes still")
        #expect(try read(client, sick, info, 5..<6) == .failed(EIO))
        #expect(try read(client, sick, info, 0..<1) == bytes(sickBytes, 0..<1))
        #expect(try counter(client, .fillWriteErrors) > 0 && counter(client, .syncErrors) > 0)
        #expect(try isRefused(client, well), "an image was taken in on a dead file system")
        client.close()
        kill(gate.process.pid, SIGTERM)
        #expect(gate.process.wait(atMost: .seconds(10)) == 0, "it does not stop: \(gate.process.log.suffix(2000))")

        try disk.remount()
        let again = try RunningGate(scratch, state: state)
        defer { again.killAndUnmount() }
        let second = try again.connect()
        let reopened = try second.open(sick)
        #expect(try sick.durable(state).bits == second.residency(handle(reopened)))
        #expect(try sick.durable(state).residentCount == 3)
        #expect(try read(second, sick, reopened, 0..<12) == bytes(sickBytes, 0..<12))
        again.stop()
    }

    @Test func aChunkThatCannotBeReadIsAnErrorAsLongAsItCannot() throws {
        let disk = try FaultyDisk(.ext4, size: 32 << 20)
        defer { disk.remove() }
        let gate = try RunningGate(scratch, state: disk.path + "/state")
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let info = try client.open(sick)
        let blob = try handle(info)
        _ = try fill(client, sick, blob, 0..<8)
        #expect(try Wait.until(.seconds(10)) { try sick.durable(gate.state).residentCount == 8 })
        try dropPageCache()
        try disk.fail([.read])
        #expect(try read(client, sick, info, 0..<2) == .failed(EIO))
        guard case .reply(UInt32(EIO), _, _) = try client.ask(.verify(blob: blob, first: 0, count: 256)) else {
            Issue.record("verified what cannot be read")
            return
        }
        try disk.fail([])
        #expect(try read(client, sick, info, 0..<2) == bytes(sickBytes, 0..<2))
        #expect(try client.verify(blob).bad == [])
        gate.stop()
    }

    @Test func aFileSystemThatShutsDownHangsNobody() throws {
        let disk = try LoopFileSystem(.xfs, size: LoopFileSystem.Kind.xfs.smallestSize)
        let gate = try RunningGate(scratch, state: disk.path + "/state", arguments: ["--deadline", "1s"])
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let worker = try gate.child()
        let info = try client.open(sick)
        let blob = try handle(info)
        _ = try fill(client, sick, blob, 0..<2)
        #expect(try Wait.until(.seconds(10)) { try sick.durable(gate.state).residentCount == 2 })
        let blocked = try Readers(
            5, path: info.path + "/big", offset: UInt64(10 * GateImage.chunkSize), length: GateImage.chunkSize)
        _ = try client.miss()
        try Command.run("xfs_io", "-x", "-c", "shutdown", disk.path)
        #expect(try fill(client, sick, blob, 10..<11) == [.writeFailed])
        #expect(try blocked.wait(seconds: 10).allSatisfy { $0 == .failed(EIO) })
        let late = try Readers(
            2, path: info.path + "/big", offset: UInt64(6 * GateImage.chunkSize), length: GateImage.chunkSize)
        #expect(try late.wait(seconds: 10).allSatisfy { $0 == .failed(EIO) })
        // In the page cache or gone with the disk: right or an error.
        let here = try Readers(2, path: info.path + "/big", offset: 0, length: GateImage.chunkSize).wait(seconds: 10)
        #expect(here.allSatisfy { $0 == bytes(sickBytes, 0..<1) || $0 == .failed(EIO) })
        #expect(try isRefused(client, well), "an image was taken in on a dead file system")
        #expect(try counter(client, .fillWriteErrors) > 0 && counter(client, .blockedReaders) == 0)
        #expect(try gate.child() == worker, "the gate's worker was replaced")
        client.close()
        kill(gate.process.pid, SIGTERM)
        #expect(gate.process.wait(atMost: .seconds(10)) == 0, "it does not stop: \(gate.process.log.suffix(2000))")
    }
}
