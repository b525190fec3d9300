/// Limits of one `FetchScheduler`.
package struct FetchLimits: Sendable, Equatable {
    /// Stored bytes of one registry range. Long, since a request costs a registry more than a few megabytes of body
    /// do; what has no room yet waits on the wire, see `SlotPool`.
    package var rangeBytes = 32 << 20
    /// A reader that asks for a chunk this many stored bytes behind the front of a range that is not for readers gets
    /// a range of its own: what it would wait for there is longer than a request takes.
    package var joinBytes = 4 << 20
    /// Ranges in flight for readers that are blocked.
    package var demandRanges = 8
    /// Ranges in flight for read-ahead, traces and background together: so many that their latencies overlap.
    package var speculativeRanges = 3
    /// Of these, those of access traces while readers are blocked.
    package var replayRangesBesideReaders = 1
    /// Stored bytes of one registry range of a trace: shorter, so that it soon makes way for readers.
    package var replayRangeBytes = 8 << 20
    /// Copies within the node in flight.
    package var copies = 32
    /// Chunks known to the scheduler because a reader waits: 32,768 × about 200 bytes = 6.5 MB.
    package var demandChunks = 32_768
    /// Chunks known for read-ahead and background.
    package var speculativeChunks = 4096
    /// How long a demand miss may take; the gate's own deadline is a little later.
    package var deadline = Duration.seconds(25)
    /// Attempts at one source for a reader, and for nobody.
    package var demandAttempts = 10
    package var speculativeAttempts = 3
    /// Back-off between attempts: doubles from the first to the second, with up to a quarter of jitter.
    package var firstBackoff = Duration.milliseconds(100)
    package var maxBackoff = Duration.seconds(3)
    package var quarantine = QuarantineLimits()

    /// Raw bytes of one range from a peer: one segment of the rendezvous (`Rendezvous.segmentBytes`).
    package var peerRangeBytes = 8 << 20
    /// Ranges from peers in flight: for readers, for other nodes, and for read-ahead and background together.
    package var peerDemandRanges = 16
    package var peerRelayedRanges = 16
    package var peerSpeculativeRanges = 8
    /// Ranges from the registry in flight for other nodes.
    package var relayedRanges = 8
    /// Chunks known because another node asked for them.
    package var relayedChunks = 8192
    /// Requests to peers that gave nothing, for one chunk, before a reader's goes to the registry and another one rests.
    package var peerTries = 16
    package var peerPace = Duration.milliseconds(250)
    /// The peers' part of a reader's deadline: 10 of 25 s, so that the registry has 15 with its retries, and no more of a
    /// longer one. Of a shorter one three fifths: peers never use up all of it.
    package var peerTime: Duration { min(.seconds(10), deadline * 3 / 5) }
    /// The same for what no reader here waits for.
    package var peerPatience = Duration.seconds(60)
    /// How long one peer may be waited for while it fetches, a reader waiting or not, and for background work, which
    /// holds no range idle.
    package var peerWait = Duration.seconds(8)
    package var peerBackgroundWait = Duration.seconds(2)
    /// Bytes asked for twice, in percent of what readers are sent by peers, and what may be saved up.
    package var hedgePercent = 10
    package var hedgeBurst = 4 << 20

    package init() {}
}
