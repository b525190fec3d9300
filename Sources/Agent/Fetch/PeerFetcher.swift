import Catalogue
import ChunkModel
import ChunkResolution
import HTTPTransfer
import PeerTransport

/// How a request for chunks ended.
struct RangeEnd: Sendable {
    /// Nil when it ended well, however many came.
    var failure: FetchFailure?
    /// A word of a closed set (docs/formats/spans.md); nil when it ended well.
    var word: String?
    /// Not something that belongs to every day, as an absent chunk or a busy peer.
    var isError = false

    static let unknown = RangeEnd(failure: .permanent, word: "unknown", isError: true)
}

/// What the engine asks of peers. Whoever implements it keeps the `PeerSelector` and the `ContentIndex`, and tells them
/// how each request went before `fetch` returns: the engine asks for a new plan right after. Thread-safe.
protocol PeerFetcher: Sendable {
    /// Which peers to ask for chunks of one blob, a plan each. On the engine's thread: must not block.
    func plan(_ chunks: [(chunk: Int, rank: FetchRank)], of blob: BlobKey, layout: BlobLayout) -> [PeerSelector.Plan]

    /// Begins a request; its control resumes or cancels it. Nil when this node has no certificate.
    func begin() -> PeerHTTP.Handle?

    /// Streams the raw bytes of the plan's chunks, in order, from the peer it names; as many of them as it has. `trace` is
    /// handed to the peer. `sink` is called on the transfer thread and must not block.
    func fetch(
        _ plan: RangePlan, of blob: BlobKey, layout: BlobLayout, trace: TraceContext?, handle: PeerHTTP.Handle,
        sink: @escaping @Sendable (UnsafeRawBufferPointer) -> SinkDecision
    ) async -> RangeEnd

    /// The peer sent wrong bytes for this chunk: it is asked for nothing more, and told. Never blocks.
    func complain(to peer: NodeName, of blob: BlobKey, chunk: Int)

    /// The gate has the blob under this handle, with these chunks: bit n%8 of byte n/8 is chunk n. Never blocks.
    func attached(_ blob: BlobKey, handle: UInt32, residency: [UInt8])
    /// A chunk has become resident, or could not be had: who waits for it is told. Never blocks.
    func noteResident(_ blob: BlobKey, _ chunk: Int)
    func noteFailed(_ blob: BlobKey, _ chunk: Int)
}
