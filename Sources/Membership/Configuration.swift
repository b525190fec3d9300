/// The tunables of a `Membership`, each with its formula. The defaults are for up to 10,000 nodes in one region.
package struct MembershipConfiguration: Sendable {
    /// A random-order round-robin probe of one member starts this often, × (1 + local health).
    package var probeInterval: Duration = .seconds(1)
    /// Other members are asked for help after this long without an answer, × (1 + local health). Above the p99 of a
    /// round trip; a lost segment costs TCP 200 ms and more.
    package var probeTimeout: Duration = .milliseconds(500)
    /// Members asked to probe on our behalf. One lost probe in 50 (1 % loss each way) and three lost relays of four
    /// legs each make 0.02 × 0.04³, about one false suspicion in 800,000 probes.
    package var indirectProbes = 3
    /// A member that was asked to probe says after this part of its probe timeout that there is no answer.
    package var nackAfter = 0.8
    /// Upper end of local health (Lifeguard, section III.A): timeouts at most × (1 + this).
    package var maxLocalHealth = 8
    /// A suspicion lasts at least this × max(1, log10 N) × probe interval: 4 × 4 × 1 s at 10,000 nodes.
    package var suspicionMinimum = 4.0
    /// … and without confirmation this many times the minimum (Lifeguard's beta).
    package var suspicionMaximum = 6.0
    /// Independent accusers after whom a suspicion lasts its minimum (Lifeguard's K).
    package var confirmations = 3

    /// News are sent at most this often …
    package var gossipInterval: Duration = .milliseconds(200)
    /// … and not before this long after they came, so that those that come together go together.
    package var gossipDelay: Duration = .milliseconds(20)
    /// … to this many of the partners.
    package var gossipFanout = 3
    /// Long-lived connections for gossip. A random graph of out-degree 16 is connected for all practical purposes
    /// (isolated nodes expected at 10,000: 10,000 × e^-16 = 0.001), and one is replaced at each anti-entropy round.
    package var partners = 16
    /// A piece of news is sent this × log10(N + 1) times, rounded up: 16 times at 10,000 nodes, once to each partner. It
    /// misses a node when all that have this one as a partner lose it: expected 10,000 × e^(-16 × 0.99) = 0.001 nodes.
    package var retransmission = 4.0
    /// A record, which is long for its signature and certificate, is sent whole this many times, after that announced in 24
    /// bytes to be asked for. Two times reach all but e^-2, so that most nodes are sent a record twice, not 16 times.
    package var wholeRecords = 2
    /// Bytes of news in a frame of gossip.
    package var gossipBytes = 32 * 1024
    /// Bytes of news in other frames.
    package var piggybackBytes = 4 * 1024

    /// A digest is compared with one random member this often (± 20 %).
    package var syncInterval: Duration = .seconds(30)
    /// A node whose view did not change for this long says its digest in its probes; one that did not change for as long
    /// either answers when its own is another. What gossip missed is so found a second or two after it, at 11 bytes a
    /// probe. While answers bring nothing they are given half as often each time, down to `syncInterval`.
    package var quietTime: Duration = .seconds(1)
    /// Next comparison while there was more than one exchange could carry.
    package var syncPause: Duration = .milliseconds(50)
    /// Bytes of items per second that are given out in anti-entropy, and that can be given at once.
    package var syncBytesPerSecond = 4 * 1024 * 1024

    /// A seed that is not known as alive, and a dead member, are tried this often (± 20 %).
    package var rejoinInterval: Duration = .seconds(15)
    /// Seeds are tried this often while no member is known.
    package var joinInterval: Duration = .seconds(1)
    /// Seeds asked at once while no member is known.
    package var joinFanout = 3

    /// Refutations and other changes of the own record are at least this far apart, so that a liar cannot make this node
    /// flood the others.
    package var recordInterval: Duration = .milliseconds(500)
    /// Dead and departed members, and content that is gone, are forgotten after this.
    package var forgetAfter: Duration = .seconds(3600)
    /// A departing node gossips that for this long at most.
    package var leaveLinger: Duration = .seconds(3)

    package init() {}
}

/// Logarithms without a mathematics library: exact at powers of two, linear between, at most 0.09 too low in base 2.
enum Logarithm {
    static func base2(_ value: Int) -> Double {
        guard value > 1 else { return 0 }
        let exponent = Int.bitWidth - 1 - value.leadingZeroBitCount
        return Double(exponent) + Double(value) / Double(1 << exponent) - 1
    }

    static func base10(_ value: Int) -> Double { base2(value) * 0.301_029_995_663_981_2 }
}
