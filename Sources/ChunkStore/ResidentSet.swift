import Synchronization

/// A set of chunk numbers that many threads read and write without a lock.
package final class ResidentSet: @unchecked Sendable {
    // @unchecked: every word is an Atomic; the pointer never changes.
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private let wordCount: Int
    private let members: Atomic<Int>
    /// Chunk numbers are below this.
    package let capacity: Int

    /// A set from a bit map (bit n%8 of byte n/8).
    package init(capacity: Int, bits: [UInt8] = []) {
        self.capacity = capacity
        wordCount = (capacity + 63) / 64
        words = .allocate(capacity: max(1, wordCount))
        var count = 0
        for number in 0..<wordCount {
            var word: UInt64 = 0
            for byte in 0..<8 where number * 8 + byte < bits.count {
                word |= UInt64(bits[number * 8 + byte]) << UInt64(byte * 8)
            }
            count += word.nonzeroBitCount
            (words + number).initialize(to: Atomic(word))
        }
        members = Atomic(count)
    }

    deinit {
        words.deinitialize(count: wordCount)
        words.deallocate()
    }

    /// Number of members.
    package var count: Int { members.load(ordering: .acquiring) }

    package func contains(_ chunk: Int) -> Bool {
        precondition(chunk >= 0 && chunk < capacity, "chunk \(chunk) of \(capacity)")
        return words[chunk >> 6].load(ordering: .acquiring) >> UInt64(chunk & 63) & 1 == 1
    }

    /// Whether every chunk of a range is a member; true for an empty range.
    package func containsAll(_ range: Range<Int>) -> Bool {
        for chunk in range where !contains(chunk) { return false }
        return true
    }

    /// Adds a chunk; true when it was not a member. Writes made before are visible to who sees the member.
    @discardableResult
    package func insert(_ chunk: Int) -> Bool {
        precondition(chunk >= 0 && chunk < capacity, "chunk \(chunk) of \(capacity)")
        let bit: UInt64 = 1 << UInt64(chunk & 63)
        let old = words[chunk >> 6].bitwiseOr(bit, ordering: .acquiringAndReleasing).oldValue
        guard old & bit == 0 else { return false }
        members.add(1, ordering: .acquiringAndReleasing)
        return true
    }

    /// Replaces all members (after a failed sync; with no mutation under way).
    package func replace(bits: [UInt8]) {
        var count = 0
        for number in 0..<wordCount {
            var word: UInt64 = 0
            for byte in 0..<8 where number * 8 + byte < bits.count {
                word |= UInt64(bits[number * 8 + byte]) << UInt64(byte * 8)
            }
            count += word.nonzeroBitCount
            words[number].store(word, ordering: .releasing)
        }
        members.store(count, ordering: .releasing)
    }

    /// The members as a bit map.
    package func bits() -> [UInt8] {
        var out = [UInt8](repeating: 0, count: (capacity + 7) / 8)
        for number in 0..<wordCount {
            let word = words[number].load(ordering: .acquiring)
            for byte in 0..<8 where number * 8 + byte < out.count {
                out[number * 8 + byte] = UInt8(truncatingIfNeeded: word >> UInt64(byte * 8))
            }
        }
        return out
    }
}
