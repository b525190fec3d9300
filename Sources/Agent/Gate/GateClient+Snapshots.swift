import ChunkModel
import Glibc
import LinuxSystem

/// The directories of container snapshots, which the gate makes: docs/formats/gate-protocol.md.
extension GateClient {
    /// Makes `<state>/gate/snapshots/<id>/{fs,work}`. EEXIST when they are there; ENOENT when there is nothing to be
    /// like.
    package func makeSnapshot(_ id: UInt64, like: GateProtocol.SnapshotLike) async throws(AgentError) {
        _ = try await call(.makeSnapshot(id: id, like: like), timeout: Self.quickCall)
    }

    /// Takes them away; the gate deletes what is in them afterwards. False when there were none.
    @discardableResult
    package func removeSnapshot(_ id: UInt64) async throws(AgentError) -> Bool {
        let events = try await call(.removeSnapshot(id: id), timeout: Self.quickCall)
        guard case .reply(_, let value, _) = events.last else { throw Self.unexpected(events) }
        return value == 1
    }

    /// Allocated bytes and inodes of a snapshot's `fs`. Slow for large trees; EAGAIN when too many are being measured.
    package func snapshotUsage(_ id: UInt64) async throws(AgentError) -> (bytes: UInt64, inodes: UInt64) {
        let events = try await call(.snapshotUsage(id: id), timeout: Self.slowCall)
        guard case .snapshotUsage(_, let bytes, let inodes) = events.last else { throw Self.unexpected(events) }
        return (bytes, inodes)
    }

    /// The least numbers above `after`, ascending; `GateProtocol.maxListedSnapshots` of them when there may be more.
    package func snapshots(after: UInt64 = 0) async throws(AgentError) -> [UInt64] {
        let events = try await call(.listSnapshots(after: after), timeout: Self.slowCall)
        guard case .snapshots(let ids) = events.last else { throw Self.unexpected(events) }
        return ids
    }

    /// Has the gate keep a listening unix socket for the next chunkd, or with nil none.
    package func keepListener(_ file: File?) async throws(AgentError) {
        _ = try await call(.keepListener, descriptors: file.map { [$0] } ?? [], timeout: Self.quickCall)
    }

    /// The socket that the gate keeps; nil when there is none.
    package func keptListener() async throws(AgentError) -> File? {
        do { return try await file(.keptListener) } catch {
            guard error.errno == ENOENT else { throw error }
            return nil
        }
    }
}
