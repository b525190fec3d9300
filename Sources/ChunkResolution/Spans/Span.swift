package import ChunkModel

/// One step of how a chunk came to be somewhere: docs/formats/spans.md. Value type.
package struct Span: Equatable, Sendable {
    /// Which chunk, and of what.
    package struct Subject: Equatable, Sendable {
        /// The blob, and the manifest of an image that has it; nil when this node knows neither.
        package var blob: Digest?
        package var manifest: Digest?
        /// Where the image came from: host and name of its repository. Empty when nothing is known.
        package var repository: String
        package var chunk: Int

        package init(blob: Digest? = nil, manifest: Digest? = nil, repository: String = "", chunk: Int) {
            self.blob = blob
            self.manifest = manifest
            self.repository = repository
            self.chunk = chunk
        }
    }

    /// A request to one source.
    package struct Asking: Equatable, Sendable {
        /// `disk`, `peer/NAME`, `registry/HOST`.
        package var source: String
        /// Chunks of the request, this one included.
        package var chunks: Int
        /// Another request for the same chunk was under way.
        package var isHedge: Bool
        /// It was under way when the chunk was missed: read ahead, or for somebody else.
        package var isJoined: Bool
        /// The span whose context the request carried, when that is another than this.
        package var carrier: TraceContext?

        package init(
            source: String, chunks: Int = 1, isHedge: Bool = false, isJoined: Bool = false,
            carrier: TraceContext? = nil
        ) {
            self.source = source
            self.chunks = chunks
            self.isHedge = isHedge
            self.isJoined = isJoined
            self.carrier = carrier
        }
    }

    package enum Step: Equatable, Sendable {
        /// A reader's miss, until chunkgate's verdict.
        case miss(Subject, source: String?)
        /// A chunk that another node waits for, the same way.
        case relay(Subject, source: String?)
        case ask(Asking)
        /// Bytes are with chunkgate: hashed, written, marked resident.
        case fill
        /// A peer's request, from its arrival to the last byte handed to the socket.
        case serve(Subject, peer: NodeName, rank: String, count: Int)
    }

    package let id: SpanID
    /// Nil for the first of its trace.
    package let parent: SpanID?
    package var step: Step
    /// Times of one monotonic clock of this node.
    package var begin: Duration
    package var end: Duration
    package var bytes: UInt64
    /// A word of a closed set: docs/formats/spans.md.
    package var result: String
    package var isError: Bool

    package init(
        id: SpanID, parent: SpanID?, step: Step, begin: Duration, end: Duration, bytes: UInt64 = 0, result: String,
        isError: Bool = false
    ) {
        self.id = id
        self.parent = parent
        self.step = step
        self.begin = begin
        self.end = end
        self.bytes = bytes
        self.result = result
        self.isError = isError
    }

    package var duration: Duration { max(.zero, end - begin) }

    /// It stands for a whole matter on this node, of which the others are parts.
    package var isHead: Bool {
        switch step {
        case .miss, .relay, .serve: true
        case .ask, .fill: false
        }
    }
}

/// The spans of one trace that this node made. Value type.
package struct Trace: Equatable, Sendable {
    package let id: TraceID
    /// In the order in which they ended.
    package internal(set) var spans: [Span]
    /// Spans over the limit.
    package internal(set) var dropped = 0
    /// Failed or slow: kept longer than others.
    package internal(set) var isNotable = false

    /// From the first begin to the last end of what stands for a whole matter.
    package var duration: Duration {
        let heads = spans.filter(\.isHead)
        guard let begin = heads.map(\.begin).min(), let end = heads.map(\.end).max() else { return .zero }
        return max(.zero, end - begin)
    }
}
