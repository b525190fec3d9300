import ChunkModel
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The gate while the file system beneath a blob is frozen, as for a snapshot: nobody can write there, and whoever
/// tries sleeps where no signal reaches (kernel-facts, law 10).
@Suite(.serialized, .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct FrozenDiskTests {
    let scratch: ScratchDirectory
    let sick: GateImage
    let well: GateImage
    let sickBytes: [UInt8]
    let wellBytes: [UInt8]

    init() throws {
        scratch = try ScratchDirectory("frozen")
        var random = SeededGenerator(seed: 6)
        (sick, sickBytes) = try GateImage.random("sick", chunks: 12, using: &random, in: scratch)
        (well, wellBytes) = try GateImage.random("well", chunks: 12, using: &random, in: scratch)
    }

    private func chunk(_ big: [UInt8], _ number: Int) -> Readers.Outcome {
        .bytes(Array(big[number * GateImage.chunkSize..<(number + 1) * GateImage.chunkSize]))
    }

    private func readers(_ count: Int, _ info: GateProtocol.ImageInfo, chunk number: Int) throws -> Readers {
        try Readers(
            count, path: info.path + "/big", offset: UInt64(number * GateImage.chunkSize),
            length: GateImage.chunkSize)
    }

    @Test func aMissEndsAtItsDeadlineHitsGoOnAndAfterTheThawEverythingDoes() throws {
        let disk = try LoopFileSystem(.ext4, size: 32 << 20)
        let gate = try RunningGate(scratch, blobOf: sick, on: disk.path, arguments: ["--deadline", "1s"])
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let (info, other) = (try client.open(sick), try client.open(well))
        let (blob, otherBlob) = (try #require(info.blobs.first?.handle), try #require(other.blobs.first?.handle))
        for number in 0..<2 {
            try client.fill(.init(blob: blob, chunk: UInt32(number)), sick.chunk(number))
            try client.fill(.init(blob: otherBlob, chunk: UInt32(number)), well.chunk(number))
        }
        let freeze = try Freeze(disk.path)
        defer { freeze.thaw() }
        #expect(try Wait.until(.seconds(10)) { try freeze.isComplete() })

        let missing = try readers(3, info, chunk: 8)
        let wanted = try client.miss()
        // More fills than there are threads to write: all of them wait for the thaw.
        for slot in UInt32(0)..<4 {
            let at = GateProtocol.ChunkAddress(blob: blob, chunk: wanted.chunk + slot % 2)
            try client.startFill(at, sick.chunk(Int(at.chunk)), slot: slot)
        }
        #expect(try missing.wait(seconds: 10).allSatisfy { $0 == .failed(EIO) })
        #expect(try client.counters()[.deniedDeadline, default: 0] > 0)
        #expect(try readers(4, info, chunk: 0).wait(seconds: 5).allSatisfy { $0 == chunk(sickBytes, 0) })
        #expect(try readers(4, other, chunk: 1).wait(seconds: 5).allSatisfy { $0 == chunk(wellBytes, 1) })

        freeze.thaw()
        for slot in UInt32(0)..<4 {
            let at = GateProtocol.ChunkAddress(blob: blob, chunk: wanted.chunk + slot % 2)
            #expect(try client.filled(at, slot: slot) == .resident)
        }
        for (image, info, big) in [(sick, info, sickBytes), (well, other, wellBytes)] {
            let all = try Readers(1, path: info.path + "/big", offset: 0, length: big.count)
            try client.serve(image) { all.finished == 1 }
            #expect(try all.wait() == [.bytes(big)])
        }
        #expect(try Wait.until(.seconds(10)) { try sick.durable(gate.state).isComplete })
        #expect(try client.counters()[.selfEvents] == 0)
    }

    @Test func aWriterThatReadsAMissHoldsUpTheFreezeNoLongerThanTheDeadline() throws {
        let disk = try LoopFileSystem(.ext4, size: 32 << 20)
        // The kernel asks for a read-ahead window in pieces, each with a deadline of its own: here it is one.
        let arguments = ["--deadline", "1s", "--read-ahead", "64KiB"]
        let gate = try RunningGate(scratch, blobOf: sick, on: disk.path, arguments: arguments)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let info = try client.open(sick)
        // Copies from a mapping of the mount to the file system that is about to freeze: it has begun to write when it
        // finds that the page is missing. The freeze waits for it, the gate for the freeze, and it for the gate.
        let written = Monitor<Int32?>(nil)
        let source = try File(path: info.path + "/big", flags: O_RDONLY)
        let target = try File(path: disk.path + "/copy", flags: O_WRONLY | O_CREAT)
        try Thread.start("copier") {
            guard let map = mmap(nil, 4096, PROT_READ, MAP_PRIVATE, source.descriptor, 0), map != MAP_FAILED else {
                return written.update { $0 = errno }
            }
            let count = pwrite(target.descriptor, map, 4096, 0)
            let code = count < 0 ? errno : 0
            munmap(map, 4096)
            written.update { $0 = code }
        }
        let wanted = try client.miss()
        let freeze = try Freeze(disk.path)
        defer { freeze.thaw() }
        #expect(try Wait.until(.seconds(10)) { try freeze.holdsWrites() })
        try client.startFill(wanted, sick.chunk(Int(wanted.chunk)), slot: 0)
        let code = written.wait(until: .now.adding(milliseconds: 10_000)) { $0 }
        #expect(code == EFAULT, "not denied, or not in time")
        #expect(try Wait.until(.seconds(10)) { try freeze.isComplete() })
        freeze.thaw()
        #expect(try client.filled(wanted, slot: 0) == .resident)
        let all = try Readers(1, path: info.path + "/big", offset: 0, length: sickBytes.count)
        try client.serve(sick) { all.finished == 1 }
        #expect(try all.wait() == [.bytes(sickBytes)])
    }
}
