import ChunkResolution
import ControlAPI
import Logging
import PeerExchange
import Settings
import Synchronization

/// Bandwidth: the limits of the configuration, until a call changes them.
extension AgentService {
    /// Before the first call: what is configured holds.
    func startLimits(_ settings: AgentSettings) {
        limits.withLock { limits in
            limits.downloadBytesPerSecond = settings.limits.downloadBytesPerSecond
            limits.registryBytesPerSecond = settings.limits.registryBytesPerSecond
            limits.prefetchBytesPerSecond = settings.limits.prefetchBytesPerSecond
            // The cluster starts with these itself.
            limits.uploadBytesPerSecond = settings.cluster.uploadBytesPerSecond
            limits.uploadPerPeerBytesPerSecond = settings.cluster.uploadBytesPerSecondPerPeer
            pipeline.post(.rates(Self.downloads(limits)))
        }
    }

    package func limits(_ request: LimitsRequest) async throws -> LimitsReply {
        if request.isEmpty { return limits.withLock { $0 } }
        try check(request)
        let reply = limits.withLock { limits in
            let old = limits
            limits.apply(request)
            // Under the lock: of two calls at once, what is said to be in force is.
            if Self.downloads(limits) != Self.downloads(old) { pipeline.post(.rates(Self.downloads(limits))) }
            if Self.uploads(limits) != Self.uploads(old) { cluster?.change(Self.uploads(limits)) }
            return limits
        }
        func text(_ rate: UInt64?) -> Logger.MetadataValue { "\(rate.map(String.init) ?? "none")" }
        logger.notice(
            "bandwidth limits changed, in bytes a second",
            metadata: [
                "download": text(reply.downloadBytesPerSecond), "registry": text(reply.registryBytesPerSecond),
                "prefetch": text(reply.prefetchBytesPerSecond), "upload": text(reply.uploadBytesPerSecond),
                "uploadPerPeer": text(reply.uploadPerPeerBytesPerSecond),
            ])
        return reply
    }

    private func check(_ request: LimitsRequest) throws(ControlError) {
        let least = AgentSettings.Limits.leastBytesPerSecond
        for (name, rate) in [
            ("downloadBytesPerSecond", request.downloadBytesPerSecond),
            ("registryBytesPerSecond", request.registryBytesPerSecond),
        ] {
            if let rate, rate != 0, rate < least {
                throw ControlError(
                    .invalidRequest, "\(name): expected 0 (none) or at least \(least), found \(rate)",
                    hint: "below that readers would meet their deadlines")
            }
        }
        let namesUploads = request.uploadBytesPerSecond != nil || request.uploadPerPeerBytesPerSecond != nil
        if namesUploads, cluster == nil {
            throw ControlError(
                .conflict, "nothing is uploaded: chunkd has no certificate",
                hint: "set cluster.certFile, docs/operations.md \"Cluster\"")
        }
    }

    private static func downloads(_ limits: LimitsReply) -> DownloadLimits {
        DownloadLimits(
            total: limits.downloadBytesPerSecond, registry: limits.registryBytesPerSecond,
            prefetch: limits.prefetchBytesPerSecond)
    }

    private static func uploads(_ limits: LimitsReply) -> UploadLimits {
        UploadLimits(
            bytesPerSecond: limits.uploadBytesPerSecond, bytesPerSecondPerPeer: limits.uploadPerPeerBytesPerSecond)
    }
}
