/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): the same seed gives
/// the same test on every machine and in every process.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    /// `count` bytes that do not compress.
    package mutating func bytes(_ count: Int) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(count + 8)
        while out.count < count {
            let word = next()
            for shift in stride(from: 0, to: 64, by: 8) { out.append(UInt8(truncatingIfNeeded: word >> UInt64(shift))) }
        }
        out.removeLast(out.count - count)
        return out
    }

    /// `count` bytes that compress about as programs and text do: random words, each repeated a few times.
    package mutating func compressibleBytes(_ count: Int) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(count + 256)
        while out.count < count {
            let word = bytes(Int.random(in: 4...24, using: &self))
            for _ in 0..<Int.random(in: 1...6, using: &self) { out += word }
        }
        out.removeLast(out.count - count)
        return out
    }

    /// The seed of this run: `CHUNKD_TEST_SEED`, or a new one. A test that takes it prints it first.
    package static func seedOfThisRun(environment: [String: String]) -> UInt64 {
        environment["CHUNKD_TEST_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0...UInt64.max)
    }
}
