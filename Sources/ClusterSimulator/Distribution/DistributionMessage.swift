internal import ChunkModel
internal import ChunkResolution
internal import ContentIndex

/// What goes over the simulated network: the requests and answers of the peer protocol and of a registry.
enum DistributionMessage {
    /// A request for consecutive chunks. `id` is the asker's number of the range.
    struct Request {
        let id: UInt64
        let chunks: Range<Int>
        let rank: FetchRank
        let fetch: Bool
        let wait: Duration
    }

    enum End: Equatable {
        /// All that could be given was given.
        case over
        case absent(ResidencyWindow?)
        case busy(retryAfter: Duration, holders: [NodeName])
    }

    case ask(Request)
    /// One chunk of an answer; `content` stands for its bytes.
    case chunk(id: UInt64, chunk: Int, content: UInt64)
    case end(id: UInt64, End)
    case cancel(id: UInt64)
    /// Who else is interested? Everybody the tracker knows after its first `known`.
    case mount(known: Int)
    /// Names in the order they came to the tracker, from `known` on, and how many it knows now.
    case mounted(names: [NodeName], count: Int)
    case complaint(chunk: Int)

    /// Bytes of an HTTP request or an answer's head with its TLS record, about.
    static let headBytes = 400
    /// A name and a content record in an answer to `mount`: the node itself is known from the membership.
    static let nameBytes = 40

    var byteCount: Int {
        switch self {
        case .ask, .complaint, .mount: Self.headBytes
        case .chunk: 0  // The payload is added by the sender.
        case .end(_, .absent): Self.headBytes + 64
        case .end: Self.headBytes / 2
        case .cancel: 80
        case .mounted(let names, _): Self.headBytes + names.count * Self.nameBytes
        }
    }
}

/// What the simulation's timers stand for.
enum DistributionTimer {
    /// A node mounts, or asks its trackers once more (`attempt` > 0).
    case mount(node: Int, attempt: Int)
    /// A mount waits for its trackers no longer.
    case mounted(node: Int)
    /// A record of a node reaches a part of the others.
    case gossip(node: Int, wave: Int, version: UInt64, ContentRecord)
    /// Nothing may have come of a range since `progress`.
    case stall(node: Int, range: UInt64, progress: Int)
    /// A node's asker may have waited long enough on this upload.
    case uploadEnd(node: Int, upload: UInt64, progress: Int)
    case crash(node: Int)
}
