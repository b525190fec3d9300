import ChunkModel
import PeerTestSupport
import TestSupport
import Testing

@testable import PeerExchange

/// A scheduler with uploads that always want more: what each was granted, in slices.
private struct World {
    var scheduler: UploadScheduler
    var now = Duration.zero
    var granted: [UInt64: Int] = [:]
    var ranks: [UInt64: PeerRank] = [:]
    /// Uploads whose slice is awaited.
    var waiting: Set<UInt64> = []

    static let slice = 65_536

    init(_ limits: UploadLimits) { scheduler = UploadScheduler(limits, now: .zero) }

    mutating func open(_ id: UInt64, _ peer: NodeName, _ rank: PeerRank = .demand) -> UploadScheduler.Opening {
        scheduler.open(id, peer, rank)
    }

    mutating func ask(_ id: UInt64) {
        let answer = scheduler.ask(id, bytes: Self.slice, now: now)
        if answer.now { granted[id, default: 0] += 1 } else { waiting.insert(id) }
        take(answer.others)
    }

    mutating func take(_ directives: [UploadScheduler.Directive]) {
        for case .send(let id) in directives {
            waiting.remove(id)
            granted[id, default: 0] += 1
        }
    }

    /// Lets every upload ask again and again for a while.
    mutating func run(_ ids: [UInt64], until end: Duration) {
        while now < end {
            for id in ids where !waiting.contains(id) { ask(id) }
            now = max(scheduler.nextWake ?? now, now + .microseconds(1))
            take(scheduler.advance(now: now))
        }
    }
}

@Suite struct SchedulerTests {
    let a: NodeName
    let b: NodeName
    let c: NodeName

    init() throws {
        a = try TestAuthority.name("a")
        b = try TestAuthority.name("b")
        c = try TestAuthority.name("c")
    }

    @Test func withoutACapNobodyWaits() {
        var world = World(UploadLimits())
        #expect(world.open(1, a) == .started)
        for _ in 0..<1000 { world.ask(1) }
        #expect(world.granted[1] == 1000)
        #expect(world.scheduler.nextWake == nil)
    }

    @Test func theCapHoldsOverTime() {
        var world = World(UploadLimits(bytesPerSecond: 10 << 20))
        for id in UInt64(1)...4 { _ = world.open(id, a) }
        world.run([1, 2, 3, 4], until: .seconds(10))
        let bytes = world.granted.values.reduce(0, +) * World.slice
        #expect(Double(bytes) / Double(100 << 20) < 1.02, "10 seconds at 10 MiB/s, and a burst")
        #expect(Double(bytes) / Double(100 << 20) > 0.98)
    }

    @Test func peersShareAlikeHoweverManyConnectionsTheyHave() {
        var world = World(UploadLimits(bytesPerSecond: 10 << 20))
        for id in UInt64(1)...8 { _ = world.open(id, a) }
        _ = world.open(9, b)
        _ = world.open(10, c)
        world.run(Array(1...10), until: .seconds(10))
        let shares = [
            (1...8).map { world.granted[$0] ?? 0 }.reduce(0, +), world.granted[9] ?? 0, world.granted[10] ?? 0,
        ]
        #expect(shares.allSatisfy { abs($0 - shares[1]) <= 10 }, "\(shares)")
        // And within a peer its connections do.
        let own = (1...8).map { world.granted[$0] ?? 0 }
        #expect((own.max() ?? 0) - (own.min() ?? 0) <= 1, "\(own)")
    }

    @Test func onDemandGoesBeforeAheadBeforeBackground() {
        var world = World(UploadLimits(bytesPerSecond: 10 << 20))
        _ = world.open(1, a, .background)
        _ = world.open(2, a, .ahead)
        _ = world.open(3, b, .demand)
        world.run([1, 2, 3], until: .seconds(2))
        #expect((world.granted[3] ?? 0) > 300)
        // What the burst at the start left to them.
        #expect((world.granted[1] ?? 0) + (world.granted[2] ?? 0) <= 16)
        world.take(world.scheduler.close(3, now: world.now))
        world.granted = [:]
        world.run([1, 2], until: .seconds(4))
        #expect((world.granted[2] ?? 0) > 300)
        #expect((world.granted[1] ?? 0) <= 2)
    }

    @Test func aPeersOwnCapHoldsAndLeavesTheRestToOthers() {
        var world = World(UploadLimits(bytesPerSecond: 100 << 20, bytesPerSecondPerPeer: 10 << 20))
        _ = world.open(1, a)
        _ = world.open(2, a)
        _ = world.open(3, b)
        world.run([1, 2, 3], until: .seconds(10))
        for share in [(world.granted[1] ?? 0) + (world.granted[2] ?? 0), world.granted[3] ?? 0] {
            #expect((1568...1650).contains(share), "100 MiB in slices of 64 KiB, found \(share)")
        }
    }

    @Test func slotsAreBoundedAndHandedOnInOrder() {
        var limits = UploadLimits()
        limits.slots = 2
        limits.slotsPerPeer = 2
        limits.queue = 3
        limits.queuePerPeer = 2
        var world = World(limits)
        #expect(world.open(1, a) == .started)
        #expect(world.open(2, a) == .started)
        #expect(world.open(3, a, .background) == .queued)
        #expect(world.open(4, a) == .queued)
        #expect(world.open(5, a) == .refused, "two of a peer wait already")
        #expect(world.open(6, b) == .queued)
        #expect(world.open(7, c) == .refused, "three wait already")
        #expect(world.scheduler.load.sending == 2)
        // A has had its slots: within a rank the turn is by peer, and demand goes before background.
        #expect(world.scheduler.close(1, now: .zero) == [.start(4)])
        #expect(world.scheduler.close(2, now: .zero) == [.start(6)])
        #expect(world.scheduler.close(6, now: .zero) == [.start(3)])
        #expect(world.scheduler.close(99, now: .zero) == [])
        #expect(world.scheduler.load == (2, 0))
    }

    @Test func whoGivesUpWaitingLeavesNothingBehind() {
        var limits = UploadLimits(bytesPerSecond: 1 << 20)
        limits.slots = 1
        var world = World(limits)
        #expect(world.open(1, a) == .started)
        #expect(world.open(2, b) == .queued)
        #expect(world.scheduler.close(2, now: .zero) == [])
        for _ in 0..<10 where !world.waiting.contains(1) { world.ask(1) }
        #expect(world.waiting == [1])
        #expect(world.scheduler.close(1, now: .zero) == [])
        #expect(world.scheduler.nextWake == nil)
        #expect(world.scheduler.load == (0, 0))
    }

    @Test func limitsChangeInTheMiddle() {
        var world = World(UploadLimits(bytesPerSecond: 1 << 20))
        _ = world.open(1, a)
        world.run([1], until: .seconds(1))
        for _ in 0..<10 where world.waiting.isEmpty { world.ask(1) }
        #expect(world.waiting == [1])
        world.take(world.scheduler.change(UploadLimits(), now: world.now))
        #expect(world.waiting.isEmpty)
        world.granted = [:]
        for _ in 0..<100 { world.ask(1) }
        #expect(world.granted[1] == 100)
        world.take(world.scheduler.change(UploadLimits(bytesPerSecondPerPeer: 1 << 20), now: world.now))
        world.granted = [:]
        world.run([1], until: world.now + .seconds(4))
        #expect((64...67).contains(world.granted[1] ?? 0), "4 MiB and a burst of two slices")
    }

    @Test func randomWorldsNeverLoseASlotOrASlice() {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<50 {
            var limits = UploadLimits(
                bytesPerSecond: Bool.random(using: &generator) ? 1 << 20 : nil,
                bytesPerSecondPerPeer: Bool.random(using: &generator) ? 1 << 19 : nil)
            limits.slots = Int.random(in: 1...4, using: &generator)
            limits.slotsPerPeer = Int.random(in: 1...3, using: &generator)
            limits.queue = 6
            var world = World(limits)
            var started: Set<UInt64> = []
            var queued: Set<UInt64> = []
            func note(_ directives: [UploadScheduler.Directive], _ world: inout World) {
                for case .start(let id) in directives {
                    #expect(queued.remove(id) != nil)
                    started.insert(id)
                }
                world.take(directives)
            }
            for id in UInt64(1)...400 {
                let peer = [a, b, c].randomElement(using: &generator) ?? a
                let rank = PeerRank.allCases.randomElement(using: &generator) ?? .demand
                switch world.open(id, peer, rank) {
                case .started: started.insert(id)
                case .queued: queued.insert(id)
                case .refused: break
                }
                for one in started.sorted() where !world.waiting.contains(one) { world.ask(one) }
                world.now += .milliseconds(Int.random(in: 0...200, using: &generator))
                note(world.scheduler.advance(now: world.now), &world)
                if Bool.random(using: &generator),
                    let gone = (started.sorted() + queued.sorted()).randomElement(using: &generator)
                {
                    started.remove(gone)
                    queued.remove(gone)
                    world.waiting.remove(gone)
                    note(world.scheduler.close(gone, now: world.now), &world)
                }
                #expect(started.count <= limits.slots)
                #expect(world.scheduler.load == (started.count, queued.count))
            }
            // Everybody who waits is served in the end.
            for _ in 0..<10_000 {
                guard let wake = world.scheduler.nextWake else { break }
                world.now = max(wake, world.now)
                note(world.scheduler.advance(now: world.now), &world)
            }
            #expect(world.waiting.isEmpty)
        }
    }

    @Test func aPeerMayAskOnlySoOften() {
        var budget = RequestBudget(RequestBudget.Limits())
        var went = 0
        for _ in 0..<20_000 {
            if budget.begin(a, isComplaint: false, now: .zero) == .go {
                went += 1
                budget.end(a)
            }
        }
        #expect(went == 8000)
        let other = budget.begin(b, isComplaint: false, now: .zero)
        #expect(other == .go)
        let later = budget.begin(a, isComplaint: false, now: .seconds(1))
        #expect(later == .go)
        var complaints = 0
        for _ in 0..<100 where budget.begin(c, isComplaint: true, now: .zero) == .go {
            complaints += 1
            budget.end(c)
        }
        #expect(complaints == 16)
    }

    @Test func requestsThatWaitAreCounted() {
        var budget = RequestBudget(RequestBudget.Limits())
        for _ in 0..<64 {
            let verdict = budget.begin(a, isComplaint: false, now: .zero)
            #expect(verdict == .go)
        }
        let full = budget.begin(a, isComplaint: false, now: .zero)
        #expect(full == .tooMany)
        budget.end(a)
        let again = budget.begin(a, isComplaint: false, now: .zero)
        #expect(again == .go)
    }
}
