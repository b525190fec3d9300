import ChunkModel
import ChunkResolution
import Testing

/// Runs a scheduler in virtual time. Its sources give at once what is asked of them; the gate takes it.
private struct Downloads {
    struct Start {
        let at: Duration
        let plan: RangePlan
    }

    var scheduler: FetchScheduler
    var now = Duration.zero
    private(set) var starts: [Start] = []
    private(set) var settled: [ChunkKey: (at: Duration, resident: Bool)] = [:]
    private(set) var ticks = 0
    /// Where a chunk comes from.
    var sources: (ChunkKey) -> [FetchSource] = { _ in [.registry] }
    /// How many chunks of a range its source gives.
    var delivers: (RangePlan) -> Int = { $0.chunks.count }
    /// How long a range takes.
    var takes = Duration.milliseconds(20)
    private var underWay: [(at: Duration, plan: RangePlan)] = []

    init(_ limits: DownloadLimits, chunks: Int = 4096, fetch: FetchLimits = FetchLimits()) {
        scheduler = FetchScheduler(limits: fetch, seed: 1)
        for blob in UInt32(1)...2 {
            scheduler.register(BlobID(blob), Blobs.layout(chunks: chunks, firstContent: Int(blob) * 1_000_000))
        }
        scheduler.setRates(limits)
    }

    mutating func send(_ event: FetchScheduler.Event) {
        var located: [LocatedChunk] = []
        for directive in scheduler.handle(event, now: now) {
            switch directive {
            case .locate(let key): located.append(LocatedChunk(key, sources(key)))
            case .fetch(let plan):
                starts.append(Start(at: now, plan: plan))
                underWay.append((now + takes, plan))
            case .settled(let key, _, let resident, _): settled[key] = (now, resident)
            case .copy, .cancel, .hasten, .fail, .quarantined, .complain, .released, .makeRoom: break
            }
        }
        if !located.isEmpty { send(.located(located)) }
    }

    mutating func want(_ chunks: Range<Int>, _ rank: FetchRank, blob: UInt32 = 1) {
        send(.want(chunks.map { ChunkKey(BlobID(blob), $0) }, rank, repair: false))
    }

    mutating func miss(_ chunk: Int, blob: UInt32 = 1) { send(.miss(ChunkKey(BlobID(blob), chunk))) }

    mutating func change(_ limits: DownloadLimits) { scheduler.setRates(limits) }

    /// Lets time pass until `end` as the shell does: ranges end, and a tick is sent whenever one is due.
    mutating func run(until end: Duration) {
        while true {
            let first = underWay.indices.min { underWay[$0].at < underWay[$1].at }
            let times = [first.map { underWay[$0].at }, scheduler.nextDeadline]
            guard let next = times.compactMap({ $0 }).min(), next <= end else { break }
            now = max(now, next)
            if let first, underWay[first].at <= now {
                finish(underWay.remove(at: first).plan)
            } else {
                ticks += 1
                send(.tick)
                // A tick that leaves its own deadline behind would be sent for ever.
                #expect((scheduler.nextDeadline ?? .seconds(1 << 30)) > now, "a tick at \(now) changed nothing")
            }
        }
        now = end
    }

    private mutating func finish(_ plan: RangePlan) {
        let delivered = delivers(plan)
        for chunk in plan.chunks.prefix(delivered) {
            send(.filled(ChunkKey(plan.blob, chunk), .resident, errno: 0, from: plan.source))
        }
        let isWhole = delivered == plan.chunks.count
        send(.rangeEnded(id: plan.id, delivered: delivered, failure: isWhole ? nil : .transient(retryAfter: nil)))
    }

    /// Bytes of the ranges of these starts.
    func bytes(where condition: (Start) -> Bool = { _ in true }) -> Int {
        starts.filter(condition).reduce(0) { $0 + $1.plan.stored.count }
    }
}

private let rate = 10 << 20
private let peer = FetchSource.peer(NodeName("a") ?? never, fetch: false)
private var never: NodeName { fatalError("a letter is a name") }

@Suite struct DownloadLimitTests {
    @Test func withoutLimitsEverythingStartsThatHasRoom() {
        var limits = FetchLimits()
        limits.speculativeChunks = 4096
        var downloads = Downloads(DownloadLimits(), fetch: limits)
        downloads.want(0..<1024, .background)
        #expect(downloads.starts.map(\.plan.stored.count) == [32 << 20, 32 << 20, 32 << 20])
        #expect(downloads.scheduler.nextDeadline == nil)
    }

    @Test func aLimitHoldsOnAverage() {
        var downloads = Downloads(DownloadLimits(registry: UInt64(rate)))
        downloads.want(0..<4000, .readAhead)
        downloads.run(until: .seconds(60))
        let bytes = downloads.bytes()
        #expect(abs(bytes - 60 * rate) < 60 * rate / 20, "\(bytes >> 20) MiB in 60 s at 10 MiB/s")
        #expect(downloads.starts.allSatisfy { $0.plan.stored.count <= rate / 2 })
        #expect(downloads.ticks < 300, "\(downloads.ticks) ticks for \(downloads.starts.count) ranges")
    }

    @Test func theTotalIsSharedByPeersAndTheRegistry() {
        var downloads = Downloads(DownloadLimits(total: UInt64(rate)))
        downloads.sources = { $0.blob == BlobID(1) ? [peer, .registry] : [.registry] }
        downloads.want(0..<2000, .readAhead, blob: 1)
        downloads.want(0..<2000, .readAhead, blob: 2)
        downloads.run(until: .seconds(60))
        let bytes = downloads.bytes()
        #expect(abs(bytes - 60 * rate) < 60 * rate / 20, "\(bytes >> 20) MiB in 60 s at 10 MiB/s")
        let registry = downloads.bytes { $0.plan.source == .registry }
        #expect(abs(registry - bytes / 2) < bytes / 10, "\(registry >> 20) of \(bytes >> 20) MiB from the registry")
    }

    @Test func theTotalIsForTheHigherRankWhicheverItsSource() {
        var downloads = Downloads(DownloadLimits(total: UInt64(rate)))
        downloads.sources = { $0.blob == BlobID(1) ? [peer] : [.registry] }
        downloads.want(0..<2000, .background, blob: 1)
        downloads.want(0..<100, .readAhead, blob: 2)
        downloads.run(until: .seconds(10))
        let last = downloads.starts.last { $0.plan.rank == .readAhead }?.at ?? .zero
        let background = downloads.bytes { $0.plan.rank == .background && $0.at < last }
        // What was saved up may be the background's, that was wanted first.
        #expect(background <= rate, "\(background >> 20) MiB of background before 50 MiB of read-ahead")
        #expect(downloads.bytes { $0.plan.rank == .readAhead } == 50 << 20)
    }

    @Test func theRegistrysLimitIsNotThePeers() {
        var downloads = Downloads(DownloadLimits(registry: 1 << 20))
        downloads.sources = { _ in [peer, .registry] }
        downloads.want(0..<1000, .readAhead)
        downloads.run(until: .seconds(2))
        #expect(downloads.bytes() == 500 << 20)
    }

    @Test func thePrefetchLimitIsNotTheReaders() {
        var downloads = Downloads(DownloadLimits(prefetch: 1 << 20))
        downloads.want(0..<2000, .background)
        downloads.want(0..<1000, .readAhead, blob: 2)
        downloads.run(until: .seconds(30))
        #expect(downloads.bytes { $0.plan.rank == .readAhead } == 500 << 20)
        let background = downloads.bytes { $0.plan.rank == .background }
        #expect(abs(background - 30 << 20) <= 2 << 20, "\(background >> 20) MiB in 30 s at 1 MiB/s")
    }

    @Test func aReaderStartsAtOnceWhateverIsAheadOfIt() {
        var downloads = Downloads(DownloadLimits(total: UInt64(rate), registry: UInt64(rate)))
        downloads.want(0..<2000, .readAhead)
        downloads.run(until: .seconds(5))
        for number in 0..<10 {
            downloads.miss(3000 + 10 * number)
            #expect(downloads.starts.last?.plan.rank == .demand)
            #expect(downloads.starts.last?.at == downloads.now)
            downloads.run(until: downloads.now + .milliseconds(500))
        }
    }

    @Test func readersAloneKeepToTheRateAndTheirDebtIsBounded() {
        var downloads = Downloads(DownloadLimits(total: UInt64(rate)))
        downloads.sources = { $0.chunk.isMultiple(of: 2) ? [peer] : [.registry] }
        // Four times what the limit lets through; each chunk alone, so none travels along.
        for number in 0..<100 {
            for step in 0..<8 { downloads.miss(8 * number + step) }
            downloads.run(until: downloads.now + .milliseconds(100))
        }
        let bytes = downloads.bytes()
        #expect(bytes <= (10 + 3) * rate, "\(bytes >> 20) MiB in 10 s at 10 MiB/s")
        #expect(bytes >= 10 * rate)
        // What is still owed is paid within the readers' debt and one request.
        downloads.change(DownloadLimits(total: UInt64(rate)))
        downloads.run(until: .seconds(40))
        #expect(downloads.scheduler.isIdle)
    }

    @Test func aChangeLetsWhatWaitsGoAtOnce() {
        var downloads = Downloads(DownloadLimits(registry: 1 << 20))
        downloads.want(0..<1000, .readAhead)
        downloads.run(until: .seconds(3))
        let before = downloads.starts.count
        downloads.change(DownloadLimits())
        #expect((downloads.scheduler.nextDeadline ?? .seconds(1 << 30)) <= downloads.now, "no tick is due")
        downloads.run(until: .seconds(3))
        #expect(downloads.starts.count > before)
        #expect(downloads.starts.last?.plan.stored.count == 32 << 20)
        downloads.run(until: .seconds(4))
        #expect(downloads.scheduler.isIdle)
    }

    @Test func aNewLimitHoldsFromThenOn() {
        var downloads = Downloads(DownloadLimits(total: UInt64(4 * rate)))
        downloads.want(0..<4000, .readAhead)
        downloads.run(until: .seconds(10))
        downloads.change(DownloadLimits(total: UInt64(rate)))
        downloads.run(until: .seconds(40))
        let bytes = downloads.bytes { $0.at > .seconds(10) }
        #expect(abs(bytes - 30 * rate) < 30 * rate / 10, "\(bytes >> 20) MiB in 30 s at 10 MiB/s")
    }

    @Test func whatASourceDoesNotGiveIsNotCharged() {
        var downloads = Downloads(DownloadLimits(total: UInt64(rate)))
        downloads.sources = { _ in [peer] }
        var number = 0
        downloads.delivers = { plan in
            number += 1
            return number.isMultiple(of: 4) ? plan.chunks.count : 0
        }
        downloads.want(0..<4000, .readAhead)
        downloads.run(until: .seconds(30))
        let bytes = downloads.settled.values.count { $0.resident } * 512 << 10
        #expect(abs(bytes - 30 * rate) < 30 * rate / 10, "\(bytes >> 20) MiB in 30 s at 10 MiB/s")
    }

    @Test(arguments: [FetchRank.demand, .background])
    func waitingForALimitIsNotThePeersTime(rank: FetchRank) {
        var downloads = Downloads(DownloadLimits(total: 1 << 20))
        downloads.sources = { _ in [peer, .registry] }
        // 20 and 150 s: twice what a reader leaves to peers, and others do.
        let chunks = 0..<(rank == .demand ? 40 : 300)
        if rank == .demand { for chunk in chunks { downloads.miss(chunk) } } else { downloads.want(chunks, rank) }
        // Every second request goes unanswered, so that its chunks are located again.
        var number = 0
        downloads.delivers = { plan in
            number += 1
            return rank == .demand || number.isMultiple(of: 2) ? plan.chunks.count : 0
        }
        downloads.run(until: .seconds(200))
        #expect(downloads.settled.values.allSatisfy(\.resident) && downloads.settled.count == chunks.count)
        #expect(downloads.bytes { $0.plan.source == .registry } == 0)
    }

    @Test(arguments: [UInt64(1), 2, 3, 4, 5, 6])
    func everyDeadlineLeadsOnAndEverythingEnds(seed: UInt64) {
        print("seed \(seed)")
        var random = SplitMix(state: seed)
        func limit() -> UInt64? { Bool.random(using: &random) ? .random(in: 4 << 20...64 << 20, using: &random) : nil }
        var downloads = Downloads(DownloadLimits(total: limit(), registry: limit(), prefetch: limit()))
        downloads.sources = { $0.chunk % 3 == 0 ? [.registry] : [peer, .registry] }
        var failures = SplitMix(state: seed &+ 99)
        downloads.delivers = { plan in
            Int.random(in: 0..<8, using: &failures) > 0
                ? plan.chunks.count : .random(in: 0..<plan.chunks.count, using: &failures)
        }
        for _ in 0..<400 {
            let chunk = Int.random(in: 0..<4000, using: &random)
            let blob = UInt32.random(in: 1...2, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0..<3: downloads.miss(chunk, blob: blob)
            case 3: downloads.want(chunk..<min(4096, chunk + 40), .relayed, blob: blob)
            case 4: downloads.want(chunk..<min(4096, chunk + 40), .readAhead, blob: blob)
            case 5: downloads.want(chunk..<min(4096, chunk + 40), .background, blob: blob)
            case 6: downloads.change(DownloadLimits(total: limit(), registry: limit(), prefetch: limit()))
            default: downloads.run(until: downloads.now + .milliseconds(.random(in: 0...500, using: &random)))
            }
        }
        downloads.run(until: downloads.now + .seconds(2000))
        #expect(downloads.scheduler.isIdle)
        #expect(downloads.scheduler.nextDeadline.map { $0 > downloads.now } ?? true)
    }
}

/// SplitMix64: a seed replays a run.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
