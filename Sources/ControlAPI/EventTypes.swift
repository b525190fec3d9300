/// `POST /v1/events`; `GET` asks for all that is kept.
package struct EventsRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// Only events after the one with this number; one that chunkd has not reached (it was restarted) means all.
    package var after: UInt64?

    package init(after: UInt64? = nil) { self.after = after }
}

/// Something worth knowing that happened.
package struct NodeEvent: Codable, Equatable, Sendable {
    /// Closed set; a kind of a newer chunkd reads as `other`.
    package enum Kind: String, Codable, CaseIterable, Sendable {
        case started
        case mounted, mountFailed, unmounted, imageRemoved
        /// Containers run on the image that somebody wanted unmounted.
        case unmountRefused
        /// Blobs became complete: reading them costs nothing any more.
        case graduated
        /// A reader got EIO or ENOSPC.
        case readFailed
        /// A source did not give what it was asked for.
        case sourceFailed
        /// A source sent wrong bytes.
        case sourceQuarantined
        case peerQuarantined
        /// Chunks on disk are damaged.
        case verifyFailed
        case peerJoined, peerSuspected, peerDied, peerLeft, peerRefused
        /// A peer says that this node sent it wrong bytes.
        case complaint
        case certificateLoaded, certificateRejected
        case gateConnected, gateLost, gateRestarted
        /// Readers may have seen wrong data.
        case integrityGap
        case draining
        /// An access trace was recorded on this node, or what one names was fetched.
        case traceRecorded, traceReplayed
        case other

        package init(from decoder: any Decoder) throws {
            self = Kind(rawValue: try decoder.singleValueContainer().decode(String.self)) ?? .other
        }
    }

    /// Counts up from 1 since chunkd started.
    package var number: UInt64
    package var unixSeconds: Double
    package var kind: Kind
    /// What it happened to: an image, a blob, a node, a registry.
    package var subject: String
    package var detail: String
    /// How often within ten seconds.
    package var count: UInt64

    package init(
        number: UInt64, unixSeconds: Double, kind: Kind, subject: String, detail: String, count: UInt64 = 1
    ) {
        self.number = number
        self.unixSeconds = unixSeconds
        self.kind = kind
        self.subject = subject
        self.detail = detail
        self.count = count
    }
}

/// Answer to `GET` and `POST /v1/events`: oldest first.
package struct EventsReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var events: [NodeEvent]
    /// Number of the last event there was; 0 before the first.
    package var last: UInt64
    /// Events between `after` and the first of these that are kept no more.
    package var missed: UInt64

    package init(events: [NodeEvent], last: UInt64, missed: UInt64 = 0) {
        self.events = events
        self.last = last
        self.missed = missed
    }
}
