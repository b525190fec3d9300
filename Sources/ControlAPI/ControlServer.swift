import Glibc
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Bounds of the control server; each is per server unless it says otherwise.
package struct ControlServerLimits: Sendable {
    /// Connections at once: one administrator's tools, with room.
    package var connections = 32
    /// From accepting, or the end of the last answer, to the last byte of a request.
    package var requestDeadline = TimeAmount.seconds(10)
    /// For a call without streamed progress; a mount over a slow link is the longest.
    package var callDeadline = TimeAmount.seconds(180)
    /// Progress lines of one request come no closer than this.
    package var progressInterval = TimeAmount.milliseconds(200)

    package init() {}
}

/// The control API over HTTP/1.1 on a unix socket: docs/operations.md, "Control API".
///
/// The socket is a path (never abstract) with mode 0600 in a directory with mode 0700, and each connection's user is
/// checked by SO_PEERCRED besides.
package final class ControlServer: Sendable {
    private let channel: any Channel
    private let connections: OpenConnections
    private let path: String

    private init(channel: any Channel, connections: OpenConnections, path: String) {
        self.channel = channel
        self.connections = connections
        self.path = path
    }

    /// Binds `path` and serves until `stop`. A dead server's socket is replaced; a live one's is an error.
    /// - Parameter mayUse: whether a peer with this user id may call; the default lets root and our own user.
    /// - Throws: `ControlError` when the path cannot be used, NIO's `IOError` when it cannot be bound.
    package static func start(
        path: String, group: any EventLoopGroup, service: any ControlService, logger: Logger,
        limits: ControlServerLimits = ControlServerLimits(),
        mayUse: @escaping @Sendable (UInt32) -> Bool = { $0 == 0 || $0 == geteuid() }
    ) async throws -> ControlServer {
        try await SocketPath.prepare(path, group: group)
        let connections = OpenConnections(limit: limits.connections)
        let channel = try await ServerBootstrap(group: group)
            .serverChannelOption(ChannelOptions.backlog, value: 16)
            .childChannelInitializer { channel in
                PeerCredentials.of(channel).flatMapThrowing { peer in
                    let refusal: ControlError? =
                        if !mayUse(peer.uid) {
                            ControlError(.forbidden, "user \(peer.uid) may not use \(path)", hint: "run it as root")
                        } else if !connections.admit(channel) {
                            ControlError(.busy, "\(limits.connections) connections are open", hint: "try again later")
                        } else {
                            nil
                        }
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(
                        ControlHandler(service: service, limits: limits, refusal: refusal, logger: logger))
                }
            }
            .bind(unixDomainSocketPath: path).get()
        // Between bind and chmod the directory's mode protects it.
        guard chmod(path, 0o600) == 0 else {
            let text = String(cString: strerror(errno))
            try? await channel.close()
            throw ControlError(.internal, "chmod \(path): \(text)")
        }
        return ControlServer(channel: channel, connections: connections, path: path)
    }

    /// Stops accepting, cancels running calls, closes their connections and removes the socket.
    package func stop() async {
        try? await channel.close()
        unlink(path)
        await connections.closeAll()
    }
}

/// The user at the other end of a unix socket, as the kernel saw it at connect (unix(7), SO_PEERCRED).
struct PeerCredentials: Sendable {
    /// `struct ucred`, which Glibc's module leaves out.
    private struct Raw {
        var pid: Int32 = 0
        var uid: UInt32 = 0
        var gid: UInt32 = 0
    }

    let uid: UInt32

    static func of(_ channel: any Channel) -> EventLoopFuture<PeerCredentials> {
        guard let provider = channel as? any SocketOptionProvider else {
            return channel.eventLoop.makeFailedFuture(ControlError(.forbidden, "not a socket"))
        }
        let option = NIOBSDSocket.Option(rawValue: SO_PEERCRED)
        let raw: EventLoopFuture<Raw> = provider.unsafeGetSocketOption(level: .socket, name: option)
        return raw.map { PeerCredentials(uid: $0.uid) }
    }
}

/// The open connections of a server: bounded, and closed when it stops. Thread-safe.
final class OpenConnections: Sendable {
    private let limit: Int
    private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])

    init(limit: Int) { self.limit = limit }

    /// Whether there is room; the channel is counted until it closes.
    func admit(_ channel: any Channel) -> Bool {
        let id = ObjectIdentifier(channel)
        let admitted = channels.withLock { channels in
            guard channels.count < limit else { return false }
            channels[id] = channel
            return true
        }
        if admitted { channel.closeFuture.whenComplete { _ in self.forget(id) } }
        return admitted
    }

    private func forget(_ id: ObjectIdentifier) { channels.withLock { $0[id] = nil } }

    func closeAll() async {
        for channel in channels.withLock({ Array($0.values) }) { try? await channel.close() }
    }
}

/// Makes the place of a listening socket fit: the directory is ours alone, a dead socket is gone.
package enum SocketPath {
    /// - Throws: `ControlError` when the path cannot be used, or somebody listens there.
    package static func prepare(_ path: String, group: any EventLoopGroup) async throws(ControlError) {
        guard path.hasPrefix("/"), path.utf8.count <= 107 else {
            throw ControlError(
                .invalidRequest, "socket \(path): expected an absolute path of at most 107 bytes (unix(7))")
        }
        try prepareDirectory(of: path)
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw ControlError(.conflict, "\(path) exists and is no socket", hint: "remove it or set controlSocket")
        }
        if let other = try? await ClientBootstrap(group: group).connect(unixDomainSocketPath: path).get() {
            try? await other.close()
            throw ControlError(.conflict, "another chunkd listens on \(path)", hint: "stop it first")
        }
        unlink(path)
    }

    private static func prepareDirectory(of path: String) throws(ControlError) {
        let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
        let directory = parent.isEmpty ? "/" : parent
        if mkdir(directory, 0o700) != 0, errno != EEXIST {
            throw ControlError(.internal, "mkdir \(directory): \(String(cString: strerror(errno)))")
        }
        var status = stat()
        guard lstat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw ControlError(.conflict, "\(directory) is no directory", hint: "set controlSocket to another place")
        }
        guard status.st_uid == geteuid() || status.st_uid == 0 else {
            throw ControlError(
                .forbidden, "\(directory) belongs to user \(status.st_uid), not to us (\(geteuid())) or root",
                hint: "chown it, or set controlSocket to another place")
        }
        // What chunkgate makes: root's, sticky, and writable by chunkd's group alone.
        let isShared = status.st_uid == 0 && status.st_gid == getegid() && status.st_mode & 0o007 == 0
        guard status.st_mode & 0o077 == 0 || isShared || status.st_uid == geteuid() && chmod(directory, 0o700) == 0
        else {
            throw ControlError(
                .forbidden, "\(directory) is open to other users", hint: "chmod 0700 \(directory)")
        }
    }
}
