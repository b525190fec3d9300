import ChunkModel
import PeerTransport
import Synchronization
import TestSupport

/// Collects what the transport tells.
package final class EventLog: Sendable {
    private let state = Mutex<[PeerTransportEvent]>([])

    package init() {}

    package var observer: PeerTransportObserver { { event in self.state.withLock { $0.append(event) } } }

    package var events: [PeerTransportEvent] { state.withLock { $0 } }

    /// Why somebody was refused, in order.
    package var refusals: [PeerRefusalReason] {
        events.compactMap { if case .refused(let reason, _, _, _) = $0 { reason } else { nil } }
    }

    package var rejected: [IdentityError] {
        events.compactMap { if case .identityRejected(let error) = $0 { error } else { nil } }
    }

    package var connected: [NodeName] {
        events.compactMap { if case .connected(let name) = $0 { name } else { nil } }
    }

    package var disconnected: [NodeName] {
        events.compactMap { if case .disconnected(let name) = $0 { name } else { nil } }
    }

    /// Waits for a refusal with this reason.
    package func sees(_ reason: PeerRefusalReason, within limit: Duration = .seconds(10)) async -> Bool {
        await Wait.eventually(limit) { refusals.contains(reason) }
    }
}
