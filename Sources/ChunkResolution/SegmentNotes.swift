internal import ChunkModel

/// What answers have lately taught about one segment of a blob: who is too busy to give it, and whom it was given to.
struct SegmentNotes: Sendable {
    struct Key: Hashable, Sendable {
        let blob: WireID
        let segment: UInt64
    }

    /// Hints and busy peers remembered of one segment.
    static let maxEntries = 16

    /// The way up as it was last found, and when it no longer is: the index and the peers' standing change.
    var path: (nodes: [NodeName], interest: UInt64, troubles: UInt64)?
    /// Not to be asked for it before `until`; in the order they said so. `times` in a row, for the first time `since`.
    struct Busy: Sendable {
        let peer: NodeName
        let until: Duration
        let times: Int
        let since: Duration
    }
    private var busy: [Busy] = []
    /// Passed over: they were to fetch it and did not.
    private var passed: [(peer: NodeName, until: Duration)] = []
    /// How many had not got it, since one had.
    private(set) var absences = 0
    /// Said to have it by a peer that had to refuse; the latest first.
    private var hints: [(peer: NodeName, until: Duration)] = []

    /// Not before `wish` from now, and the longer the more often in a row. Returns how often, and for how long now.
    @discardableResult
    mutating func noteBusy(
        _ peer: NodeName, wish: Duration, longest: Duration, now: Duration
    ) -> (times: Int, span: Duration) {
        let before = busy.first { $0.peer == peer }
        let times = (before?.times ?? 0) + 1
        var wait = wish
        for _ in 1..<min(times, 16) where wait < longest { wait *= 2 }
        busy.removeAll { $0.peer == peer }
        if busy.count >= Self.maxEntries { busy.removeFirst() }
        busy.append(Busy(peer: peer, until: now + min(wait, longest), times: times, since: before?.since ?? now))
        hints.removeAll { $0.peer == peer }
        return (times, now - (before?.since ?? now))
    }

    mutating func notePassed(_ peer: NodeName, until: Duration) {
        passed.removeAll { $0.peer == peer }
        if passed.count >= Self.maxEntries { passed.removeFirst() }
        passed.append((peer, until))
        busy.removeAll { $0.peer == peer }
        path = nil
    }

    mutating func noteAbsent(_ peer: NodeName, until: Duration) {
        absences += 1
        busy.removeAll { $0.peer == peer }
        if busy.count >= Self.maxEntries { busy.removeFirst() }
        busy.append(Busy(peer: peer, until: until, times: 1, since: until))
        hints.removeAll { $0.peer == peer }
    }

    mutating func noteServed(_ peer: NodeName) {
        busy.removeAll { $0.peer == peer }
        absences = 0
    }

    func isPassed(_ peer: NodeName, _ now: Duration) -> Bool { passed.contains { $0.peer == peer && now < $0.until } }

    mutating func noteHint(_ peer: NodeName, until: Duration) {
        hints.removeAll { $0.peer == peer }
        if hints.count >= Self.maxEntries { hints.removeLast() }
        hints.insert((peer, until), at: 0)
    }

    /// How many nodes stand above this one on the way up.
    func levels(above peer: NodeName) -> Int {
        guard let nodes = path?.nodes, let at = nodes.firstIndex(of: peer) else { return 0 }
        return nodes.count - 1 - at
    }

    func isBusy(_ peer: NodeName, _ now: Duration) -> Bool {
        busy.contains { $0.peer == peer && now < $0.until }
    }

    /// When the first of those who are busy now will not be.
    func nextFree(_ now: Duration) -> Duration? { busy.map(\.until).filter { $0 > now }.min() }

    func hinted(_ now: Duration) -> [NodeName] { hints.filter { now < $0.until }.map(\.peer) }

    /// The last moment anything here means something.
    var end: Duration { (busy.map(\.until) + hints.map(\.until) + passed.map(\.until)).max() ?? .zero }
}
