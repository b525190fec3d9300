import ChunkModel
import ChunkStore
import LinuxSystem
import Synchronization

/// The blobs the gate serves, by handle and by key. Thread-safe.
package final class BlobTable: Sendable {
    private struct State {
        var byHandle: [OpenBlob?] = []
        var byKey: [ResidencyMap.Key: OpenBlob] = [:]
    }

    private let state = Mutex(State())
    private let shards: [Shard]

    init(shards: [Shard]) { self.shards = shards }

    /// The blob and chunk an address names; nil when the handle is unknown or the chunk past the end.
    subscript(address: GateProtocol.ChunkAddress) -> OpenBlob? {
        guard let open = self[address.blob], Int(address.chunk) < open.blob.boundaries.count else { return nil }
        return open
    }

    subscript(handle: UInt32) -> OpenBlob? {
        state.withLock { Int(handle) < $0.byHandle.count ? $0.byHandle[Int(handle)] : nil }
    }

    /// All, in handle order.
    var all: [OpenBlob] { state.withLock { $0.byHandle.compactMap { $0 } } }

    /// The open blob for `blob`, made and served by its shard when it is new.
    func open(_ blob: Blob) -> OpenBlob {
        state.withLock { state in
            if let open = state.byKey[blob.key] { return open }
            // By inode, not by Hasher: the same blob must meet the same group after a restart, where its mark is.
            let shard = shards[Int(blob.inode.inode % UInt64(shards.count))]
            let open = OpenBlob(handle: UInt32(state.byHandle.count), blob: blob, shard: shard)
            state.byHandle.append(open)
            state.byKey[blob.key] = open
            shard.serve(open)
            return open
        }
    }

    /// Forgets a removed blob; its handle is never used again.
    func close(_ blob: Blob) -> OpenBlob? {
        state.withLock { state in
            guard let open = state.byKey.removeValue(forKey: blob.key) else { return nil }
            state.byHandle[Int(open.handle)] = nil
            open.shard.forget(open)
            return open
        }
    }
}
