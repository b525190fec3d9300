import ChunkModel
import ControlAPI
import FoundationEssentials
import Glibc
import Integrity
import LinuxSystem
import Settings
import TestSupport
import Testing

@testable import Agent

/// The agent in this process: a real registry on one side, a gate in memory on the other.
@Suite(.serialized, .timeLimit(.minutes(3))) struct AgentTests {
    private func image(
        _ workshop: Workshop, _ name: String, megabytes: Int = 8, compressed: Bool, seed: UInt64 = 1
    ) async throws -> TestImage {
        var random = SeededGenerator(seed: seed)
        return try await TestImage.push(
            random.compressibleBytes(megabytes << 20), to: "\(workshop.host)/test/\(name):1", compressed: compressed,
            host: workshop.host)
    }

    private func read(_ gate: FakeGate, _ image: TestImage, _ chunks: Range<Int>) async -> FakeGate.Read {
        let (blob, range) = (image.blob, image.range(chunks))
        return await off { gate.read(blob, range) }
    }

    private func expect(
        _ gate: FakeGate, _ image: TestImage, _ chunks: Range<Int>, location: SourceLocation = #_sourceLocation
    ) async {
        let found = await read(gate, image, chunks)
        #expect(found == .bytes(image.bytes(image.range(chunks))), sourceLocation: location)
    }

    @Test(arguments: [false, true])
    func aMountedImageIsReadThroughTheRegistryAndOnlyWhatIsReadIsFetched(compressed: Bool) async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "basic", compressed: compressed)
        try await workshop.run { agent in
            let reply = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(reply.manifestDigest == image.manifest)
            #expect(reply.chunks == 32 && reply.residentChunks == 0 && !reply.alreadyMounted)
            #expect(reply.rawBytes == 8 << 20)
            await expect(workshop.gate, image, 5..<6)
            await expect(workshop.gate, image, 20..<22)
            #expect(workshop.gate.resident(image.blob) == 3)
            await expect(workshop.gate, image, 0..<32)
            #expect(workshop.gate.counts.fills == 32)
            #expect(workshop.gate.counts.mismatches == 0)
            let again = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(again.alreadyMounted && again.residentChunks == 32)
            try await expectStat(agent) { $0.sources.first?.chunks == 32 }
            #expect(try await agent.service.stat().bytesFetched == UInt64(image.storedEnds[31]))
        }
    }

    @Test func aSequentialReaderIsFedAheadInLongRanges() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "sequential", megabytes: 32, compressed: false)
        try await workshop.run(workshop.settings { $0.readAheadWindowMaxBytes = 32 << 20 }) { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            let before = workshop.registry.log.split(separator: "\n").count
            for chunk in 0..<image.chunkCount { await expect(workshop.gate, image, chunk..<chunk + 1) }
            let requests = workshop.registry.log.split(separator: "\n").count - before
            #expect(workshop.gate.counts.fills == 128, "nothing is fetched twice")
            #expect(requests < 64, "128 chunks took \(requests) log lines")
        }
    }

    @Test func aThousandReadersOfOneChunkCostOneFetch() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "crowd", compressed: true)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            let found = await withTaskGroup(of: Bool.self) { group in
                for _ in 0..<200 {
                    group.addTask {
                        await self.read(workshop.gate, image, 3..<4) == .bytes(image.bytes(image.range(3..<4)))
                    }
                }
                return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
            }
            #expect(found == 200)
            #expect(workshop.gate.counts.fills == 1)
        }
    }

    @Test func sharedContentIsCopiedNotFetched() async throws {
        let workshop = try Workshop()
        var random = SeededGenerator(seed: 9)
        let shared = random.bytes(4 << 20)
        let first = try await TestImage.push(
            shared + random.bytes(1 << 20), to: "\(workshop.host)/test/one:1", compressed: false, host: workshop.host)
        let second = try await TestImage.push(
            random.bytes(1 << 20) + shared, to: "\(workshop.host)/test/two:1", compressed: true, host: workshop.host)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: first.reference))
            await expect(workshop.gate, first, 0..<20)
            _ = try await agent.service.mount(MountRequest(reference: second.reference))
            await expect(workshop.gate, second, 0..<20)
            #expect(workshop.gate.counts.copies == 16)
            #expect(workshop.gate.counts.fills == 24)
            try await expectStat(agent) { $0.sources.first { $0.source == "local" }?.chunks == 16 }
        }
    }

    @Test(arguments: [false, true])
    func aFlippedBitIsEIOAndQuarantineUntilTheRegistryIsHealed(compressed: Bool) async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "flip", compressed: compressed)
        let file = try #require(try workshop.registry.largestBlob())
        func flip() throws {
            let data = try File(path: file, flags: O_RDWR)
            var byte: [UInt8] = [0]
            let offset = UInt64(image.storedEnds[6] + 1000)
            _ = try byte.withUnsafeMutableBytes { try data.readAll(into: $0, at: offset) }
            byte[0] ^= 4
            try byte.withUnsafeBytes { try data.writeAll($0, at: offset) }
        }
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            try flip()
            #expect(await read(workshop.gate, image, 7..<8) == .failed(errno: UInt32(EIO)))
            let bad = try await agent.service.stat()
            #expect(bad.integrity.mismatches > 0)
            #expect(bad.integrity.quarantined.map(\.name) == [image.blob.description])
            #expect(try await agent.service.images().images.first?.quarantined == true)
            // Its neighbours are right, and are still to be had.
            await expect(workshop.gate, image, 9..<10)
            try flip()
            var healed = FakeGate.Read.late
            for _ in 0..<200 where healed != .bytes(image.bytes(image.range(7..<8))) {
                healed = await read(workshop.gate, image, 7..<8)
            }
            if case .bytes = healed {} else { try await waitForHealing(workshop, image) }
            try await expectStat(agent) { $0.integrity.quarantined.isEmpty }
        }
    }

    /// A reader has its bytes before the agent has heard of the gate's verdict: what the agent counts comes true soon.
    private func expectStat(
        _ agent: AgentRuntime, location: SourceLocation = #_sourceLocation, _ condition: (StatReply) -> Bool
    ) async throws {
        var stat = try await agent.service.stat()
        let isTrue = try await Wait.eventually(.seconds(10)) {
            stat = try await agent.service.stat()
            return condition(stat)
        }
        #expect(isTrue, "\(stat)", sourceLocation: location)
    }

    /// Reads until the quarantine's time is over.
    private func waitForHealing(_ workshop: Workshop, _ image: TestImage) async throws {
        let gate = workshop.gate
        let (blob, range) = (image.blob, image.range(7..<8))
        let isHealed = await off {
            Wait.until(.seconds(10)) { gate.read(blob, range) == .bytes(image.bytes(range)) }
        }
        try #require(isHealed, "the quarantine does not end")
    }

    @Test func aGateThatComesBackIsServedWhatItStillWaitsFor() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "reconnect", compressed: true)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            await expect(workshop.gate, image, 0..<4)
            workshop.registry.pause()
            let gate = workshop.gate
            let (blob, range) = (image.blob, image.range(10..<12))
            async let blocked = off { gate.read(blob, range) }
            let connections = gate.connections
            _ = await off { Wait.until(.seconds(5)) { gate.resident(blob) == 4 } }
            gate.dropConnection()
            let isBack = await off { gate.waitConnected(after: connections) }
            #expect(isBack)
            workshop.registry.resume()
            let found = await blocked
            #expect(found == .bytes(image.bytes(range)))
            #expect(gate.counts.fills == 6, "what was resident is not fetched again")
        }
    }

    @Test func aNewAgentServesWhatAnOldOneMountedAndFetchesNothingTwice() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "restart", compressed: true)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            await expect(workshop.gate, image, 0..<4)
        }
        let gate = workshop.gate
        let (blob, range) = (image.blob, image.range(0..<8))
        let blocked = Task { await off { gate.read(blob, range) } }
        try await workshop.run { agent in
            let found = await blocked.value
            #expect(found == .bytes(image.bytes(range)))
            #expect(gate.counts.fills == 8)
            let images = try await agent.service.images().images
            #expect(images.map(\.references) == [[image.reference]])
            let isKnown = try await Wait.eventually(.seconds(10)) {
                try await agent.service.images().images.first?.residentChunks == 8
            }
            #expect(isKnown)
        }
    }

    @Test func aLostCatalogueIsMadeAgainFromStoredFiles() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "relearn", compressed: true)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
        }
        let database = workshop.state + "/agent/catalogue.sqlite"
        // A connection that is still open, or a log, would make good what the file loses.
        let isClosed = await Wait.eventually(.seconds(20)) { !isOpen(database) }
        #expect(isClosed, "the agent is gone and its catalogue is still open")
        for suffix in ["-wal", "-shm"] { unlink(database + suffix) }
        let file = try File(path: database, flags: O_RDWR | O_TRUNC)
        try [UInt8](repeating: 0x55, count: 9000).withUnsafeBytes { try file.writeAll($0, at: 0) }
        // Everything it needs is on disk: no registry.
        try await workshop.run { agent in
            #expect(Directory.exists(database + ".damaged-1"))
            let images = try await agent.service.images().images
            #expect(images.map(\.references) == [[image.reference]])
            await expect(workshop.gate, image, 2..<3)
            workshop.registry.stop()
            let again = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(again.manifestDigest == image.manifest)
        }
    }

    @Test func aCachedImageMountsWithTheRegistryDownAndAnUnknownOneSaysWhy() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "offline", compressed: false)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            await expect(workshop.gate, image, 0..<2)
            #expect(try await agent.service.umount(UmountRequest(manifestDigest: image.manifest)).released)
            workshop.registry.stop()
            let reply = try await agent.service.mount(MountRequest(reference: image.reference))
            #expect(reply.residentChunks == 2)
            await expect(workshop.gate, image, 0..<2)
            let byDigest = "\(workshop.host)/test/offline@\(image.manifest)"
            #expect(try await agent.service.mount(MountRequest(reference: byDigest)).alreadyMounted)
            let error = await #expect(throws: ControlError.self) {
                try await agent.service.mount(MountRequest(reference: "\(workshop.host)/test/other:1"))
            }
            #expect(error?.code == .unreachable)
        }
    }

    @Test func prefetchFetchesTheRestAndReportsProgress() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "prefetch", megabytes: 16, compressed: true)
        try await workshop.run { agent in
            let progress = Monitor<[ProgressReport]>([])
            let reply = try await agent.service.prefetch(PrefetchRequest(reference: image.reference)) { report in
                progress.update { $0.append(report) }
            }
            #expect(reply.chunks == 64 && reply.filledChunks == 64)
            #expect(reply.fetchedBytes == UInt64(image.storedEnds[63]))
            #expect(workshop.gate.resident(image.blob) == 64)
            let reports = progress.withLock { $0 }
            #expect(reports.last?.doneChunks == 64)
            #expect(reports.map(\.doneChunks) == reports.map(\.doneChunks).sorted())
            let again = try await agent.service.prefetch(PrefetchRequest(reference: image.reference)) { _ in }
            #expect(again.filledChunks == 0 && again.fetchedBytes == 0)
        }
    }

    @Test func aMountedImageIsHydratedInTheBackground() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "hydrate", compressed: true)
        let settings = workshop.settings { settings in
            settings.hydrate.enabled = true
            settings.hydrate.delay = .zero
        }
        try await workshop.run(settings) { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            let gate = workshop.gate
            let blob = image.blob
            let isComplete = await off { gate.waitResident(blob, 32) }
            #expect(isComplete)
            #expect(gate.counts.fills == 32)
        }
    }

    @Test func damageOnDiskIsFoundAndRepaired() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "verify", compressed: true)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: image.reference))
            await expect(workshop.gate, image, 0..<16)
            workshop.gate.rot(image.blob, 3)
            workshop.gate.rot(image.blob, 11)
            let found = try await agent.service.verify(VerifyRequest(reference: image.reference, repair: false)) { _ in
            }
            #expect(found.checkedChunks == 16 && found.absentChunks == 16)
            #expect(found.bad.map(\.chunk) == [3, 11] && found.repairedChunks == 0)
            let fixed = try await agent.service.verify(VerifyRequest(reference: image.reference, repair: true)) { _ in }
            #expect(fixed.badChunks == 2 && fixed.repairedChunks == 2)
            let after = try await agent.service.verify(VerifyRequest(reference: image.reference, repair: false)) { _ in
            }
            #expect(after.badChunks == 0)
            await expect(workshop.gate, image, 0..<16)
        }
    }

    @Test func garbageIsWhatNoMountKeepsOldestFirst() async throws {
        let workshop = try Workshop()
        let old = try await image(workshop, "old", compressed: false, seed: 1)
        let recent = try await image(workshop, "recent", compressed: false, seed: 2)
        let used = try await image(workshop, "used", compressed: false, seed: 3)
        try await workshop.run { agent in
            for image in [old, recent, used] {
                _ = try await agent.service.mount(MountRequest(reference: image.reference))
                await expect(workshop.gate, image, 0..<2)
            }
            for image in [old, recent] {
                #expect(try await agent.service.umount(UmountRequest(manifestDigest: image.manifest)).released)
            }
            workshop.gate.setInUse(used.manifest, true)
            #expect(try await !agent.service.umount(UmountRequest(manifestDigest: used.manifest)).released)
            let dry = try await agent.service.collectGarbage(GarbageRequest(dryRun: true))
            #expect(dry.removed.map(\.manifestDigest) == [old.manifest, recent.manifest])
            #expect(try await agent.service.images().images.count == 3)
            let real = try await agent.service.collectGarbage(GarbageRequest(dryRun: false))
            #expect(real.removed.map(\.manifestDigest) == [old.manifest, recent.manifest])
            #expect(real.freedBytes == 4 * 256 << 10)
            #expect(try await agent.service.images().images.map(\.manifestDigest) == [used.manifest])
            // It can come back.
            _ = try await agent.service.mount(MountRequest(reference: old.reference))
            await expect(workshop.gate, old, 0..<1)
        }
    }

    @Test func aFullDiskIsRelievedOfWhatNobodyUses() async throws {
        let workshop = try Workshop()
        let old = try await image(workshop, "old", compressed: false, seed: 1)
        let new = try await image(workshop, "new", compressed: false, seed: 2)
        try await workshop.run { agent in
            _ = try await agent.service.mount(MountRequest(reference: old.reference))
            await expect(workshop.gate, old, 0..<4)
            _ = try await agent.service.umount(UmountRequest(manifestDigest: old.manifest))
            _ = try await agent.service.mount(MountRequest(reference: new.reference))
            workshop.gate.failWrites(UInt32(ENOSPC))
            // The old image goes, the write is tried again.
            await expect(workshop.gate, new, 0..<1)
            #expect(try await agent.service.images().images.map(\.manifestDigest) == [new.manifest])
            // Nothing is left that could go: the reader is told.
            workshop.gate.failWrites(UInt32(ENOSPC))
            #expect(await read(workshop.gate, new, 1..<2) == .failed(errno: UInt32(ENOSPC)))
            workshop.gate.failWrites(nil)
            await expect(workshop.gate, new, 1..<2)
        }
    }

    @Test func aSecondAgentIsRefusedAndSaysSo() async throws {
        let workshop = try Workshop()
        try await workshop.run { _ in
            let other = try TemporaryDirectory(prefix: "chunkd-second")
            let settings = workshop.settings { settings in
                settings.stateDirectory = other.path
                settings.controlSocket = other.path + "/control.sock"
            }
            var said = ""
            do { try await workshop.run(settings) { _ in } } catch {
                said = "\(error)"
            }
            #expect(said.contains("refuses this agent"), "\(said)")
        }
    }

    @Test func withoutAGateTheControlAPISaysSoAndGoesOn() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "away", compressed: false)
        try await workshop.run { agent in
            workshop.gate.stop()
            let gone = await off { Wait.until(.seconds(5)) { !workshop.gate.isConnected } }
            #expect(gone)
            let error = await #expect(throws: ControlError.self) {
                try await agent.service.mount(MountRequest(reference: image.reference))
            }
            #expect(error?.code == .gateAway)
            let stat = try await agent.service.stat()
            #expect(!stat.gateConnected)
            let version = try await agent.service.version()
            #expect(!version.gateConnected)
            let doctor = try await agent.service.doctor()
            #expect(doctor.checks.first { $0.name == "gate" }?.status == .fail)
        }
    }

    @Test func anImageWhosePartsAreLostIsRefusedUntilTheRegistryIsBackAndStopsNobodyElse() async throws {
        let workshop = try Workshop()
        let good = try await image(workshop, "good", compressed: true, seed: 1)
        let lost = try await image(workshop, "lost", compressed: true, seed: 2)
        try await workshop.run { agent in
            for image in [good, lost] {
                _ = try await agent.service.mount(MountRequest(reference: image.reference))
            }
            await expect(workshop.gate, good, 0..<1)
        }
        unlink("\(workshop.state)/agent/content/\(lost.manifest.hex).manifest")
        workshop.registry.pause()
        try await workshop.run { agent in
            // Its registry does not answer, but the other image is served from what is here.
            await expect(workshop.gate, good, 0..<1)
            let images = try await agent.service.images().images
            #expect(images.count == 2)
            workshop.registry.resume()
            let gate = workshop.gate
            let (blob, range) = (lost.blob, lost.range(3..<4))
            let isServed = await off {
                Wait.until(.seconds(30)) { gate.read(blob, range) == .bytes(lost.bytes(range)) }
            }
            #expect(isServed)
            await expect(workshop.gate, good, 4..<6)
        }
    }
}

/// Whether this process has a file open.
private func isOpen(_ path: String) -> Bool {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    return names.contains { name in
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/" + name)) == path
    }
}
