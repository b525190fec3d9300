import ChunkModel
import ControlAPI
import LinuxSystem
import Logging
import NIOCore

/// The listening socket on which containerd is served.
///
/// chunkgate keeps it beside this process: while chunkd is replaced, or has died, containerd's calls wait in its queue and
/// are answered by the next chunkd. Refused ones would cost containers their start, and containerd does not repeat the
/// removal of a snapshot that failed. docs/formats/snapshots.md, "Restarts".
actor SnapshotSocket {
    /// Nil: containerd is not served.
    private let path: String?
    private let gate: GateClient
    private let group: any EventLoopGroup
    private let logger: Logger
    private var file: File?
    /// Gives the socket once, as soon as there is one.
    nonisolated let found: AsyncStream<File>
    private let give: AsyncStream<File>.Continuation

    init(path: String?, gate: GateClient, group: any EventLoopGroup, logger: Logger) {
        self.path = path
        self.gate = gate
        self.group = group
        self.logger = logger
        (found, give) = AsyncStream.makeStream()
    }

    /// To be called for each connection to chunkgate, which may be another one than before and keep nothing.
    /// - Throws: `ControlError` and `SystemError` when there can be no socket at that path. Without an answer from
    ///   chunkgate nothing is thrown: there will be another connection.
    func gateConnected() async throws {
        do {
            if let path, file == nil { try await listen(at: path) }
            // None, if there is none: nobody would answer on what a predecessor with other settings had.
            try await gate.keepListener(file)
        } catch let error as AgentError {
            if path != nil, file == nil {
                logger.warning("containerd is not served yet", metadata: ["error": "\(error)"])
                return gate.reconnect()
            }
            logger.warning(
                "chunkgate does not keep containerd's socket: calls will fail while chunkd is away",
                metadata: ["error": "\(error)"])
        }
    }

    private func listen(at path: String) async throws {
        let kept = try await takeOver(path)
        if kept == nil { try await SocketPath.prepare(path, group: group) }
        let socket = try kept ?? StreamListener.listen(path: path)
        logger.info("serving containerd", metadata: ["socket": "\(path)", "takenOver": "\(kept != nil)"])
        file = socket
        give.yield(socket)
    }

    /// What a predecessor listened on, if containerd finds it where the settings have it.
    private func takeOver(_ path: String) async throws(AgentError) -> File? {
        let kept: File?
        do throws(AgentError) { kept = try await gate.keptListener() } catch {
            // An older chunkgate keeps none, which is said when it is asked to.
            guard error.code == .gateRefused else { throw error }
            return nil
        }
        guard let kept, !StreamListener.isFound(kept, at: path) else { return kept }
        try await gate.keepListener(nil)
        return nil
    }
}
