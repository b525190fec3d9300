/// When and how often a request is sent again. Pure values: time, randomness and outcomes are arguments.
package struct RetryPolicy: Sendable, Equatable {
    /// Requests for one operation to one host, the first included.
    package var maxAttempts: Int
    /// Back-off before the second request; doubles with each further one.
    package var baseDelay: Duration
    package var maxDelay: Duration
    /// The longest Retry-After that is waited for; a longer one is cut to this.
    package var maxRetryAfter: Duration
    /// Extra requests allowed per first request of a host, in percent (10: one retry for ten requests).
    package var budgetPercent: Int
    /// Retries a host may have saved up, and starts with.
    package var budgetCap: Int
    /// Failures in a row that open a host's circuit.
    package var circuitThreshold: Int
    /// How long an open circuit fails fast before one request may probe the host.
    package var circuitOpenTime: Duration

    package init(
        maxAttempts: Int = 4, baseDelay: Duration = .milliseconds(100), maxDelay: Duration = .seconds(5),
        maxRetryAfter: Duration = .seconds(20), budgetPercent: Int = 10, budgetCap: Int = 10,
        circuitThreshold: Int = 8, circuitOpenTime: Duration = .seconds(5)
    ) {
        self.maxAttempts = maxAttempts
        self.baseDelay = baseDelay
        self.maxDelay = maxDelay
        self.maxRetryAfter = maxRetryAfter
        self.budgetPercent = budgetPercent
        self.budgetCap = budgetCap
        self.circuitThreshold = circuitThreshold
        self.circuitOpenTime = circuitOpenTime
    }

    /// The wait before attempt `attempt` (2 is the first retry): exponential, capped, with jitter over its upper half
    /// so that clients which failed together do not come back together. `random` is any 64 random bits.
    package func delay(beforeAttempt attempt: Int, retryAfter: Duration?, random: UInt64) -> Duration {
        let doublings = min(max(attempt - 2, 0), 20)
        let ceiling = min(baseDelay * (1 << doublings), maxDelay)
        let jittered = ceiling / 2 + ceiling / 2 * (Double(random >> 11) / Double(1 << 53))
        guard let retryAfter else { return jittered }
        return max(min(retryAfter, maxRetryAfter), jittered)
    }
}

/// What one host has shown lately: its retry budget and circuit. Pure; `now` is a monotonic time since any fixed start.
package struct HostHealth: Sendable {
    /// Whether a request may go out.
    package enum Admission: Sendable, Equatable {
        case go
        /// Fail fast: the circuit is open for that much longer.
        case refuse(Duration)
    }

    private enum Circuit: Equatable {
        case closed
        case open(until: Duration)
        /// One probe is on its way, since then.
        case probing(since: Duration)
    }

    private let policy: RetryPolicy
    private var circuit = Circuit.closed
    private var failures = 0
    /// Retries saved up, in hundredths.
    private var savings: Int
    /// The host has answered a range with the whole body.
    package var ignoresRange = false

    package init(policy: RetryPolicy) {
        self.policy = policy
        savings = policy.budgetCap * 100
    }

    package var isOpen: Bool { circuit != .closed }

    /// Asks to send the first request of an operation. It earns the host a part of a retry.
    package mutating func admit(now: Duration) -> Admission {
        switch circuit {
        case .closed: break
        case .open(let until):
            guard now >= until else { return .refuse(until - now) }
            circuit = .probing(since: now)
        case .probing(let since):
            // A probe that never reported back (its task was cancelled) must not hold the circuit for ever.
            guard now >= since + policy.circuitOpenTime else { return .refuse(since + policy.circuitOpenTime - now) }
            circuit = .probing(since: now)
        }
        savings = min(savings + policy.budgetPercent, policy.budgetCap * 100)
        return .go
    }

    /// Asks to send a request again; false when the budget is used up or the circuit is open.
    package mutating func admitRetry() -> Bool {
        // What `admit` will add for the repeated request is taken off with it: retries earn nothing.
        let cost = 100 + policy.budgetPercent
        guard circuit == .closed, savings >= cost else { return false }
        savings -= cost
        return true
    }

    /// The host answered (any status but 5xx). True when this closed the circuit.
    package mutating func succeeded() -> Bool {
        failures = 0
        defer { circuit = .closed }
        return circuit != .closed
    }

    /// The host did not answer or answered 5xx. True when this opened the circuit.
    package mutating func failed(now: Duration) -> Bool {
        failures += 1
        switch circuit {
        case .open: return false
        case .probing:
            circuit = .open(until: now + policy.circuitOpenTime)
            return false
        case .closed:
            guard failures >= policy.circuitThreshold else { return false }
            circuit = .open(until: now + policy.circuitOpenTime)
            return true
        }
    }
}
