/// What one node says it has of one blob. It says it of itself; others take it as advice.
package struct ContentRecord: Equatable, Sendable {
    /// The state byte on the wire (docs/formats/content.md).
    package enum State: UInt8, Sendable, CaseIterable {
        /// The image is mounted or being fetched there; nothing is said of what is resident.
        case registered = 1
        /// Some chunks are resident, see the coverage.
        case partial = 2
        /// All chunks are.
        case complete = 3
        /// It was removed there.
        case gone = 4
    }

    package let state: State
    /// Meaningful for `partial` only.
    package let coverage: Coverage

    package init(_ state: State, coverage: Coverage = Coverage()) {
        self.state = state
        self.coverage = state == .partial ? coverage : Coverage()
    }

    /// What a node that has these chunks says: bit n % 8 of byte n / 8 is chunk n.
    package init(residency: [UInt8], chunkCount: Int) {
        let coverage = Coverage(residency: residency, chunkCount: chunkCount)
        if coverage.isFull { self.init(.complete) } else { self.init(.partial, coverage: coverage) }
    }

    /// How likely chunk `chunk` of `chunkCount` is resident there, 0...1.
    package func probability(ofChunk chunk: Int, of chunkCount: Int) -> Double {
        switch state {
        case .registered, .gone: 0
        case .complete: 1
        case .partial: coverage.probability(ofChunk: chunk, of: chunkCount)
        }
    }
}

/// How much of a blob is resident, in up to 64 buckets of equally many chunks, two bits each.
package struct Coverage: Equatable, Sendable {
    /// Buckets on the wire at most.
    package static let maxBuckets = 64

    /// Buckets in use; 0 says nothing.
    package let bucketCount: Int
    /// Bit n of `low` and of `high` are bucket n's level: 0 none, 1 below half, 2 half or more, 3 all.
    let low: UInt64
    let high: UInt64

    package init() { self.init(bucketCount: 0, low: 0, high: 0) }

    init(bucketCount: Int, low: UInt64, high: UInt64) {
        let mask = bucketCount >= 64 ? UInt64.max : (1 << UInt64(max(0, bucketCount))) - 1
        self.bucketCount = bucketCount
        self.low = low & mask
        self.high = high & mask
    }

    /// Counts residency bits (bit n % 8 of byte n / 8 is chunk n; missing bytes are zeros).
    package init(residency: [UInt8], chunkCount: Int) {
        let buckets = min(Self.maxBuckets, max(0, chunkCount))
        var low: UInt64 = 0
        var high: UInt64 = 0
        for bucket in 0..<buckets {
            let chunks = Self.chunks(ofBucket: bucket, of: buckets, chunkCount: chunkCount)
            let present = chunks.count { $0 >> 3 < residency.count && residency[$0 >> 3] >> UInt8($0 & 7) & 1 == 1 }
            let level = present == chunks.count ? 3 : present == 0 ? 0 : present * 2 < chunks.count ? 1 : 2
            low |= UInt64(level & 1) << UInt64(bucket)
            high |= UInt64(level >> 1) << UInt64(bucket)
        }
        self.init(bucketCount: buckets, low: low, high: high)
    }

    /// Every chunk is there.
    package var isFull: Bool {
        bucketCount > 0 && low.nonzeroBitCount == bucketCount && high.nonzeroBitCount == bucketCount
    }

    /// Level of a bucket, 0...3; 0 outside.
    package func level(_ bucket: Int) -> Int {
        guard bucket >= 0, bucket < bucketCount else { return 0 }
        return Int(low >> UInt64(bucket) & 1) | Int(high >> UInt64(bucket) & 1) << 1
    }

    /// How likely a chunk is resident: the middle of what its bucket's level says.
    package func probability(ofChunk chunk: Int, of chunkCount: Int) -> Double {
        guard chunk >= 0, chunk < chunkCount, bucketCount > 0 else { return 0 }
        return switch level(Self.bucket(ofChunk: chunk, of: bucketCount, chunkCount: chunkCount)) {
        case 0: 0
        case 1: 0.25
        case 2: 0.75
        default: 1
        }
    }

    /// The part of the blob that is resident, 0...1, by the same reckoning.
    package var fraction: Double {
        guard bucketCount > 0 else { return 0 }
        let sum = (0..<bucketCount).reduce(0.0) { $0 + [0, 0.25, 0.75, 1][level($1)] }
        return sum / Double(bucketCount)
    }

    /// Chunk n of c lies in bucket ⌊n × b / c⌋.
    private static func bucket(ofChunk chunk: Int, of buckets: Int, chunkCount: Int) -> Int {
        Int(UInt64(chunk) * UInt64(buckets) / UInt64(max(1, chunkCount)))
    }

    private static func chunks(ofBucket bucket: Int, of buckets: Int, chunkCount: Int) -> Range<Int> {
        // The first chunk n with n × b / c ≥ bucket.
        func first(_ bucket: Int) -> Int { (bucket * chunkCount + buckets - 1) / buckets }
        return first(bucket)..<first(bucket + 1)
    }
}

// MARK: - Payload

extension ContentRecord {
    /// Longest payload read; version 1 writes 18 bytes at most (state, bucket count, 64 buckets of two bits). What a
    /// newer version appends is not looked at.
    package static let maxPayload = 64

    /// Why a payload means nothing here; the raw value is a metric label.
    package enum Invalid: String, Error, CaseIterable, Sendable {
        case empty
        case tooLong = "too_long"
        /// A state of a newer version, or garbage.
        case state
        case truncated
        case buckets
    }

    /// Reads a payload. Never traps, whatever the bytes.
    package init(payload: [UInt8]) throws(Invalid) {
        guard payload.count <= Self.maxPayload else { throw .tooLong }
        guard let first = payload.first else { throw .empty }
        guard let state = State(rawValue: first) else { throw .state }
        guard state == .partial else {
            self.init(state)
            return
        }
        guard payload.count >= 2 else { throw .truncated }
        let buckets = Int(payload[1])
        guard (1...Coverage.maxBuckets).contains(buckets) else { throw .buckets }
        guard payload.count >= 2 + (buckets + 3) / 4 else { throw .truncated }
        var low: UInt64 = 0
        var high: UInt64 = 0
        for bucket in 0..<buckets {
            let level = payload[2 + bucket / 4] >> UInt8(bucket % 4 * 2)
            low |= UInt64(level & 1) << UInt64(bucket)
            high |= UInt64(level >> 1 & 1) << UInt64(bucket)
        }
        self.init(.partial, coverage: Coverage(bucketCount: buckets, low: low, high: high))
    }

    /// The payload of a content item, 1 byte or up to 18.
    package var payload: [UInt8] {
        guard state == .partial, coverage.bucketCount > 0 else {
            // Nothing is known of a partial record without buckets but that the node is interested.
            return [(state == .partial ? State.registered : state).rawValue]
        }
        var out = [state.rawValue, UInt8(coverage.bucketCount)]
        out += [UInt8](repeating: 0, count: (coverage.bucketCount + 3) / 4)
        for bucket in 0..<coverage.bucketCount {
            out[2 + bucket / 4] |= UInt8(coverage.level(bucket)) << UInt8(bucket % 4 * 2)
        }
        return out
    }
}
