internal import ChunkModel

/// A mean and how far samples stray from it, as TCP estimates its round trip (RFC 6298, section 2): cheap, and it
/// follows change. In seconds.
struct Estimate: Sendable {
    private(set) var mean: Double
    private(set) var deviation: Double
    private(set) var samples = 0

    init(_ guess: Double) {
        mean = guess
        deviation = guess / 2
    }

    mutating func add(_ sample: Double) {
        if samples == 0 {
            mean = sample
            deviation = sample / 2
        } else {
            deviation += (abs(sample - mean) - deviation) / 4
            mean += (sample - mean) / 8
        }
        samples += 1
    }

    /// What about 95 of 100 samples lie below: the mean absolute deviation of what is not far from normal is 0.8 of
    /// the standard one, and 95 % lie below 1.65 of those.
    var p95: Double { mean + 2 * deviation }
}

/// What is known of one peer.
struct PeerRecord: Sendable {
    /// Time to the first byte of what it has, in seconds.
    var firstByte: Estimate
    /// Bytes a second while it sends.
    var throughput: Double
    var throughputSamples = 0
    /// Bytes asked of it and not come yet.
    var inFlight = 0
    /// Failures in a row.
    var failures = 0
    var backOffUntil = Duration.zero
    var quarantine: (reason: String, until: Duration)?
    /// How often it was quarantined: each time is longer.
    var offences = 0
    var bytesServed: UInt64 = 0
    var lastServed: Duration?
    var requests: UInt64 = 0
    var failed: UInt64 = 0
    /// For making room: the one unheard of for longest goes.
    var lastUse = Duration.zero

    init(_ limits: PeerSelector.Limits) {
        firstByte = Estimate(limits.guessedRoundTrip / .seconds(1))
        throughput = limits.guessedThroughput
    }

    func isUsable(_ now: Duration) -> Bool {
        if let quarantine, now < quarantine.until { return false }
        return now >= backOffUntil
    }

    /// Seconds until `bytes` more would have come from it.
    func expectedTime(bytes: Int) -> Double {
        let time = firstByte.mean + Double(inFlight + bytes) / max(1, throughput)
        return time * Double(1 + failures)
    }

    mutating func noteThroughput(_ bytes: Int, _ elapsed: Double) {
        // Too little to tell the rate from the latency.
        guard bytes >= 64 << 10, elapsed > 0 else { return }
        let rate = Double(bytes) / elapsed
        throughput = throughputSamples == 0 ? rate : throughput + (rate - throughput) / 4
        throughputSamples += 1
    }
}
