package import ChunkModel

/// Who is served at once when many ask: a bounded number of uploads, no node or segment more than its share, readers
/// before everybody else; and those who have to be refused are told who has just been given what they want.
///
/// A value without clock or I/O; one user at a time.
package struct UploadDesk: Sendable {
    package struct Limits: Sendable, Equatable {
        /// Uploads at once: 32 × a 64 KiB slice = 2 MiB.
        package var uploads = 32
        /// Of these, what only readers' requests may take, wherever the reader is.
        package var demandReserve = 8
        /// Uploads to one node: what one reader's window needs.
        package var perPeer = 12
        /// Uploads of one segment: twice the fan-out of the tree, since views of the tree differ.
        package var perSegment = 8
        /// Who was given a segment is remembered this long, so many of them, for so many segments.
        package var givenFor = Duration.seconds(5)
        package var givenPerSegment = 16
        package var segments = 256
        /// Nodes named in one refusal.
        package var hints = 4
        /// What a refused node is told to wait: about a chunk's time on a busy link.
        package var retryAfter = Duration.milliseconds(50)

        package init() {}
    }

    package enum Answer: Equatable, Sendable {
        /// Send it, then say `finish`.
        case serve(ticket: UInt64)
        /// Come again after this, or ask one of these.
        case busy(retryAfter: Duration, holders: [NodeName])
    }

    private struct Upload: Sendable {
        let peer: NodeName
        let key: SegmentNotes.Key
        var hasSent = false
    }

    private struct Given: Sendable {
        /// The latest last.
        var peers: [(peer: NodeName, until: Duration)] = []
        /// Which of them were named last: each refusal names others.
        var turn = 0
    }

    private let limits: Limits
    private var uploads: [UInt64: Upload] = [:]
    private var byPeer: [NodeName: Int] = [:]
    private var bySegment: [SegmentNotes.Key: Int] = [:]
    private var given: [SegmentNotes.Key: Given] = [:]
    private var nextTicket: UInt64 = 1

    package init(limits: Limits = Limits()) { self.limits = limits }

    /// Uploads under way.
    package var active: Int { uploads.count }

    /// A node asks for a part of a segment that is here, or is being fetched for it.
    package mutating func ask(
        _ peer: NodeName, _ blob: WireID, segment: UInt64, rank: FetchRank, now: Duration
    ) -> Answer {
        let key = SegmentNotes.Key(blob: blob, segment: segment)
        let room = rank <= .relayed ? limits.uploads : limits.uploads - limits.demandReserve
        guard uploads.count < room, byPeer[peer, default: 0] < limits.perPeer,
            bySegment[key, default: 0] < limits.perSegment
        else { return .busy(retryAfter: limits.retryAfter, holders: hints(key, for: peer, now)) }
        let ticket = nextTicket
        nextTicket += 1
        uploads[ticket] = Upload(peer: peer, key: key)
        byPeer[peer, default: 0] += 1
        bySegment[key, default: 0] += 1
        return .serve(ticket: ticket)
    }

    /// A whole chunk went out on this upload: its receiver can give it on.
    package mutating func noteSent(_ ticket: UInt64, now: Duration) {
        guard let upload = uploads[ticket], !upload.hasSent else { return }
        uploads[ticket]?.hasSent = true
        if given[upload.key] == nil, given.count >= limits.segments {
            given = given.filter { $0.value.peers.contains { $0.until > now } }
            if given.count >= limits.segments { given = [:] }
        }
        let entry = (upload.peer, now + limits.givenFor)
        given[upload.key, default: Given()].peers.removeAll { $0.peer == upload.peer }
        given[upload.key, default: Given()].peers.append(entry)
        if given[upload.key, default: Given()].peers.count > limits.givenPerSegment {
            given[upload.key]?.peers.removeFirst()
        }
    }

    /// The upload is over, however it went.
    package mutating func finish(_ ticket: UInt64) {
        guard let upload = uploads.removeValue(forKey: ticket) else { return }
        Self.decrement(&byPeer, upload.peer)
        Self.decrement(&bySegment, upload.key)
    }

    private static func decrement<Key: Hashable>(_ counts: inout [Key: Int], _ key: Key) {
        let left = counts[key, default: 1] - 1
        counts[key] = left > 0 ? left : nil
    }

    /// A few who were given the segment, in turn.
    private mutating func hints(_ key: SegmentNotes.Key, for peer: NodeName, _ now: Duration) -> [NodeName] {
        guard var known = given[key] else { return [] }
        known.peers.removeAll { $0.until <= now }
        let others = known.peers.map(\.peer).filter { $0 != peer }
        let count = min(limits.hints, others.count)
        let named = (0..<count).map { others[(known.turn + $0) % others.count] }
        known.turn += count
        given[key] = known
        return named
    }
}
