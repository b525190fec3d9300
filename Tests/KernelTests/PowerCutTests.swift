import ChunkModel
import FoundationEssentials
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The gate on a disk whose power goes while it fills: docs/formats/map.md, "Rules".
@Suite(.serialized, .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct PowerCutTests {
    private struct Sample {
        let image: GateImage
        let big: [UInt8]
    }
    private let scratch: ScratchDirectory
    private let seed: UInt64

    init() throws {
        scratch = try ScratchDirectory("power")
        seed = SeededGenerator.seedOfThisRun(environment: ProcessInfo.processInfo.environment)
    }

    @Test(arguments: [LoopFileSystem.Kind.ext4, .xfs])
    func whatTheMapCallsResidentIsThereWhenThePowerComesBack(_ kind: LoopFileSystem.Kind) throws {
        print("seed \(seed) (CHUNKD_TEST_SEED repeats it)")
        var random = SeededGenerator(seed: seed)
        // Each image that is complete has the gate sync at once, and what of the others is there with it.
        let samples = try (0..<6).map { number in
            let chunks = Int.random(in: 3...24, using: &random)
            let (image, big) = try GateImage.random("\(number)", chunks: chunks, using: &random, in: scratch)
            return Sample(image: image, big: big)
        }
        let disk = try FaultyDisk(kind, size: 64 << 20, seed: seed)
        defer { disk.remove() }
        // In the first round the power goes when all is done, which says how many writes that takes.
        var commands = 0
        for round in 0..<4 {
            let state = disk.path + "/state-\(round)"
            let last = round == 0 ? nil : Int.random(in: 1...max(1, commands), using: &random)
            let graduated = try fill(samples, state, on: disk, cutAfter: last, using: &random)
            let cut = try #require(disk.cut)
            if round == 0 {
                commands = cut.commands
                #expect(graduated == samples.count)
            }
            print(
                "\(kind), power cut after \(cut.commands) of about \(commands) writes: \(graduated) images complete,",
                "\(cut.keptSectors) of \(cut.unflushedSectors) unflushed sectors kept")
            try disk.remount()
            try check(samples, state, complete: graduated)
        }
    }

    /// Brings every chunk, in random order, until the power goes; how many images were complete on disk by then.
    private func fill(
        _ samples: [Sample], _ state: String, on disk: FaultyDisk, cutAfter last: Int?,
        using random: inout SeededGenerator
    ) throws -> Int {
        let gate = try RunningGate(scratch, state: state)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let handles = try samples.map { try #require(try client.open($0.image, mount: false).blobs.first).handle }
        var work = zip(samples, handles).flatMap { sample, handle in
            (0..<sample.image.index.count).map { (sample.image, handle, $0) }
        }
        work.shuffle(using: &random)
        try disk.cutPower(after: last ?? 1_000_000)
        var left = work.count
        for (image, handle, chunk) in work where left > 0 {
            left -= 1
            // Either is right on a disk that is gone: the page cache takes writes for a while.
            let status = try client.fill(.init(blob: handle, chunk: UInt32(chunk)), image.chunk(chunk))
            #expect(status == .resident || status == .writeFailed)
            // Some more, for a gate that goes on as if nothing were.
            if disk.cut != nil { left = min(left, 8) }
        }
        func graduated() throws -> Int { Int(try client.counters()[.graduations] ?? 0) }
        let ended = try Wait.until(.seconds(20)) { try disk.cut != nil || graduated() == samples.count }
        #expect(ended, "neither cut nor complete")
        try disk.cutPower()
        // Its status is the disk's: nobody's now.
        _ = try Command("sync", ["--file-system", disk.path]).run()
        return try graduated()
    }

    /// A new gate on what the medium holds: what its maps call resident is right, and the rest can be had.
    private func check(_ samples: [Sample], _ state: String, complete: Int) throws {
        let durable = try samples.map { try $0.image.durable(state) }
        #expect(durable.filter(\.isComplete).count >= complete, "complete and synced, and yet lost")
        let gate = try RunningGate(scratch, state: state)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        var absent = 0
        for (sample, map) in zip(samples, durable) {
            let info = try client.open(sample.image)
            let blob = try #require(info.blobs.first?.handle)
            #expect(try client.residency(blob) == map.bits)
            let (checked, bad) = try client.verify(blob)
            #expect(checked == map.residentCount && bad.isEmpty, "chunks \(bad) are not what the map says")
            absent += map.chunkCount - map.residentCount
            let readers = try Readers(1, path: info.path + "/big", offset: 0, length: sample.big.count)
            try client.serve(sample.image) { readers.finished == 1 }
            #expect(try readers.wait() == [.bytes(sample.big)])
        }
        let counters = try client.counters()
        #expect(counters[.fills] == UInt64(absent), "what was there was fetched again")
        #expect(counters[.selfEvents] == 0 && counters[.integrityGaps] == 0)
        for sample in samples {
            let closed = try client.ask(.closeImage(manifest: sample.image.digest))
            #expect(closed == .reply(errno: 0, value: 0, message: ""))
        }
        gate.stop()
    }
}
