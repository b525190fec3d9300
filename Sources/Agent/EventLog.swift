import ControlAPI
import LinuxSystem
import Synchronization

/// The last things worth knowing that happened, for `chunkctl events`. Thread-safe, never blocks for long.
final class EventLog: Sendable {
    private struct State {
        var events: [NodeEvent] = []
        /// When the newest of each was noted, parallel to `events`.
        var times: [Monotonic] = []
        var last: UInt64 = 0
    }

    /// Events that are kept: 1,024 × at most about 500 bytes.
    static let capacity = 1024
    /// Characters of a subject and of a detail.
    static let maxText = 200
    /// The same again within this long is the same event, so that one source that fails does not drive out the rest.
    static let sameForMilliseconds = 10_000
    /// Newest events that are looked at for that.
    private static let lookBack = 16

    private let state = Mutex(State())

    /// Notes an event. Of what is equal in kind and subject the last detail counts.
    func note(_ kind: NodeEvent.Kind, _ subject: String, _ detail: String = "", count: UInt64 = 1) {
        let (subject, detail) = (String(subject.prefix(Self.maxText)), String(detail.prefix(Self.maxText)))
        let (now, unix) = (Monotonic.now, ImageService.unixTime())
        state.withLock { state in
            let recent = state.events.indices.suffix(Self.lookBack).last {
                state.events[$0].kind == kind && state.events[$0].subject == subject
                    && now.milliseconds(since: state.times[$0]) < Self.sameForMilliseconds
            }
            if let recent {
                state.events[recent].count += count
                state.events[recent].detail = detail
                return
            }
            if state.events.count == Self.capacity {
                state.events.removeFirst()
                state.times.removeFirst()
            }
            state.last += 1
            state.times.append(now)
            state.events.append(
                NodeEvent(
                    number: state.last, unixSeconds: unix, kind: kind, subject: subject, detail: detail, count: count))
        }
    }

    /// What came after the event with this number.
    func events(after: UInt64) -> EventsReply {
        state.withLock { state in
            let after = after > state.last ? 0 : after
            let events = state.events.filter { $0.number > after }
            return EventsReply(
                events: events, last: state.last, missed: events.first.map { $0.number - after - 1 } ?? 0)
        }
    }
}
