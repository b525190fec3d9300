/// `POST /v1/limits`: other limits until chunkd restarts. What is left out stays as it is.
package struct LimitsRequest: Codable, Equatable, Sendable {
    /// Left out, or `chunkd/v1`.
    package var apiVersion: String? = ControlVersion.current
    /// From the registry and peers together. Here and below: 0 is no limit.
    package var downloadBytesPerSecond: UInt64?
    /// From registries.
    package var registryBytesPerSecond: UInt64?
    /// What nobody waits for, from wherever.
    package var prefetchBytesPerSecond: UInt64?
    /// To all peers together.
    package var uploadBytesPerSecond: UInt64?
    /// To one peer.
    package var uploadPerPeerBytesPerSecond: UInt64?

    package init() {}

    /// It asks for nothing.
    package var isEmpty: Bool { self == LimitsRequest() }
}

/// Answer to `GET` and `POST /v1/limits`: what is in force; a limit that is left out is none.
package struct LimitsReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var downloadBytesPerSecond: UInt64?
    package var registryBytesPerSecond: UInt64?
    package var prefetchBytesPerSecond: UInt64?
    package var uploadBytesPerSecond: UInt64?
    package var uploadPerPeerBytesPerSecond: UInt64?

    package init() {}

    /// Takes over what the request names.
    package mutating func apply(_ request: LimitsRequest) {
        func take(_ field: WritableKeyPath<LimitsReply, UInt64?>, _ asked: UInt64?) {
            if let asked { self[keyPath: field] = asked == 0 ? nil : asked }
        }
        take(\.downloadBytesPerSecond, request.downloadBytesPerSecond)
        take(\.registryBytesPerSecond, request.registryBytesPerSecond)
        take(\.prefetchBytesPerSecond, request.prefetchBytesPerSecond)
        take(\.uploadBytesPerSecond, request.uploadBytesPerSecond)
        take(\.uploadPerPeerBytesPerSecond, request.uploadPerPeerBytesPerSecond)
    }
}
