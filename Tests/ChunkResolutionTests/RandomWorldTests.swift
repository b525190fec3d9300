import ChunkModel
import ChunkResolution
import Testing

/// Random interleavings of everything that can happen, with the invariants that hold in all of them.
@Suite struct RandomWorldTests {
    /// SplitMix64: a seed replays a run.
    private struct Random: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var value = state
            value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
            return value ^ value >> 31
        }
    }

    /// What the shell and the gate would hold: ranges on their way, copies, readers.
    private struct World {
        var scheduler: FetchScheduler
        var ranges: [RangePlan] = []
        /// Chunks handed to the gate, and copies asked of it.
        var fills: [ChunkKey] = []
        var copies: [ChunkKey] = []
        var locates: [ChunkKey] = []
        var waiting: [ChunkKey: Int] = [:]
        var roomAsked = false
        /// Ranges of a gate that went away: what they deliver reaches nobody.
        var cancelled: Set<UInt64> = []
        var now = Duration.zero

        mutating func send(_ event: FetchScheduler.Event) {
            for directive in scheduler.handle(event, now: now) {
                switch directive {
                case .locate(let key): locates.append(key)
                case .copy(let to, _):
                    #expect(!copies.contains(to), "copied twice at once")
                    copies.append(to)
                case .fetch(let plan):
                    #expect(ranges.count < 11, "more ranges than the limits allow")
                    #expect(!plan.chunks.isEmpty)
                    ranges.append(plan)
                case .fail(let key, _, _): waiting[key] = nil
                case .settled(let key, _, let resident, _): if resident { waiting[key] = nil }
                case .makeRoom: roomAsked = true
                case .cancel(let id): cancelled.insert(id)
                case .quarantined, .released, .hasten, .complain: break
                }
            }
        }
    }

    @Test(arguments: [UInt64(1), 2, 3, 4, 5, 6, 7, 8])
    func everyReaderIsAnsweredAndNothingIsLeft(seed: UInt64) {
        print("seed \(seed)")
        var random = Random(state: seed)
        var limits = FetchLimits()
        limits.rangeBytes = 8 << 20
        limits.joinBytes = 2 << 20
        var world = World(scheduler: FetchScheduler(limits: limits, seed: seed))
        // Blobs 2 and 3 share half of their content with blob 1.
        for number in UInt32(1)...3 {
            let offset = number == 1 ? 0 : Int(number) * 1000 - 32
            let index = Blobs.index(chunks: 64) { $0 < 32 ? $0 : offset + $0 }
            world.scheduler.register(BlobID(number), BlobLayout(raw: index))
        }
        for _ in 0..<3000 { step(&world, &random) }
        drain(&world)
        #expect(world.waiting.isEmpty, "unanswered: \(world.waiting.keys.sorted())")
        #expect(world.scheduler.isIdle)
        #expect(world.scheduler.pendingDemand == 0 && world.scheduler.pendingSpeculative == 0)
    }

    private func step(_ world: inout World, _ random: inout Random) {
        world.now += .milliseconds(Int.random(in: 0...20, using: &random))
        let key = ChunkKey(BlobID(.random(in: 1...3, using: &random)), .random(in: 0..<64, using: &random))
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<4:
            world.waiting[key] = 1
            world.send(.miss(key))
        case 4:
            let end = min(64, key.chunk + Int.random(in: 1...16, using: &random))
            let rank = Bool.random(using: &random) ? FetchRank.readAhead : .background
            world.send(.want((key.chunk..<end).map { ChunkKey(key.blob, $0) }, rank, repair: false))
        case 5..<9: locate(&world, &random)
        case 9..<13: endRange(&world, &random)
        case 13..<18: verdict(&world, &random)
        case 18: world.send(.tick)
        default:
            if world.roomAsked {
                world.roomAsked = false
                world.send(.roomMade(.random(using: &random)))
            } else if Int.random(in: 0..<40, using: &random) == 0 {
                world.fills = []
                world.copies = []
                world.locates = []
                let waiting = world.waiting.keys.sorted()
                world.send(.gateLost)
                // The gate comes back and says again who waits.
                for key in waiting { world.send(.miss(key)) }
            }
        }
    }

    private func locate(_ world: inout World, _ random: inout Random) {
        guard let at = world.locates.indices.randomElement(using: &random) else { return }
        let key = world.locates.remove(at: at)
        let isLocal = Int.random(in: 0..<6, using: &random) == 0
        world.send(.located([LocatedChunk(key, isLocal ? [.local(ChunkKey(BlobID(9), 0)), .registry] : [.registry])]))
    }

    private func endRange(_ world: inout World, _ random: inout Random) {
        guard let at = world.ranges.indices.randomElement(using: &random) else { return }
        let plan = world.ranges.remove(at: at)
        let isWhole = Int.random(in: 0..<4, using: &random) > 0
        let delivered = isWhole ? plan.chunks.count : Int.random(in: 0..<plan.chunks.count, using: &random)
        for offset in 0..<delivered where !world.cancelled.contains(plan.id) {
            let key = ChunkKey(plan.blob, plan.chunks.lowerBound + offset)
            if Int.random(in: 0..<30, using: &random) == 0 {
                world.send(.undecodable(key))
            } else {
                world.fills.append(key)
            }
        }
        world.send(
            .rangeEnded(id: plan.id, delivered: delivered, failure: isWhole ? nil : .transient(retryAfter: nil)))
    }

    private func verdict(_ world: inout World, _ random: inout Random) {
        let key: ChunkKey
        if let at = world.copies.indices.randomElement(using: &random), Bool.random(using: &random) {
            key = world.copies.remove(at: at)
        } else {
            guard let at = world.fills.indices.randomElement(using: &random) else { return }
            key = world.fills.remove(at: at)
        }
        switch Int.random(in: 0..<20, using: &random) {
        case 0: world.send(.filled(key, .mismatch, errno: 0))
        case 1: world.send(.filled(key, .writeFailed, errno: 28))
        default: world.send(.filled(key, .resident, errno: 0))
        }
    }

    /// Everything under way ends well; retries run out of time.
    private func drain(_ world: inout World) {
        for _ in 0..<500 {
            world.now += .seconds(1)
            if world.roomAsked {
                world.roomAsked = false
                world.send(.roomMade(true))
            }
            while !world.locates.isEmpty {
                world.send(.located([LocatedChunk(world.locates.removeFirst(), [.registry])]))
            }
            while !world.ranges.isEmpty {
                let plan = world.ranges.removeFirst()
                for chunk in plan.chunks where !world.cancelled.contains(plan.id) {
                    world.fills.append(ChunkKey(plan.blob, chunk))
                }
                world.send(.rangeEnded(id: plan.id, delivered: plan.chunks.count, failure: nil))
            }
            while !world.fills.isEmpty { world.send(.filled(world.fills.removeFirst(), .resident, errno: 0)) }
            while !world.copies.isEmpty { world.send(.filled(world.copies.removeFirst(), .resident, errno: 0)) }
            world.send(.tick)
        }
    }
}
