import Catalogue
import ChunkModel
import ChunkResolution
import OCISpec

/// What is being done for a chunk that a reader waits for.
struct ChunkWait: Sendable {
    let blob: BlobKey
    var chunkBytes: Int?
    /// Where its image came from; nil while nothing is known of how to fetch it.
    var registry: String?
    /// Nil when the scheduler has not got it: its miss is on the way here, or its bytes are being written.
    var whereabouts: Whereabouts?
    /// How long the request under way has taken.
    var asking: Duration?

    /// A source as people are told of it: `disk`, `peer/NAME`, `registry/HOST`.
    func name(of source: FetchSource) -> String {
        switch source {
        case .local: "disk"
        case .peer(let name, _): "peer/\(name)"
        case .registry: "registry/\(registry ?? "unknown")"
        }
    }
}

extension FetchEngine {
    /// Chunks of blobs that nobody has described yet are left out.
    func waits(for addresses: [GateProtocol.ChunkAddress]) -> [GateProtocol.ChunkAddress: ChunkWait] {
        var out: [GateProtocol.ChunkAddress: ChunkWait] = [:]
        for at in addresses {
            guard let id = book.id(ofHandle: at.blob) else { continue }
            let (entry, chunk) = (book[id], Int(at.chunk))
            var wait = ChunkWait(blob: entry.key)
            if let description = entry.description {
                wait.registry = description.reference.registry
                if chunk < description.layout.index.count { wait.chunkBytes = description.layout.index[chunk].size }
            }
            wait.whereabouts = scheduler.whereabouts(of: ChunkKey(id, chunk))
            wait.asking = wait.whereabouts?.begun.map { now - $0 }
            out[at] = wait
        }
        return out
    }
}
