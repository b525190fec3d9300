import ChunkModel
import Glibc
import LinuxSystem
import Synchronization

/// The socket on which chunkd serves containerd, kept here as long as the keeper lives: while chunkd is replaced,
/// containerd's calls wait in its queue instead of failing. This process never accepts on it. Thread-safe.
final class AgentListener: Sendable {
    private let keeper: KeeperClient
    private let current: Mutex<File?>

    private static let keptName = "agent-listener"

    init(kept: [String: File], keeper: KeeperClient) {
        self.keeper = keeper
        current = Mutex(kept[Self.keptName])
    }

    /// The socket; nil while there is none.
    var file: File? { current.withLock { $0 } }

    /// Keeps another socket, or with nil none. Returns the answer: EINVAL for anything but a unix stream socket that
    /// listens, since a program with privileges must not come to hold other things of one without.
    func keep(_ file: File?) -> GateProtocol.Event {
        if let file, !StreamListener.isListening(file) {
            return .reply(errno: UInt32(EINVAL), value: 0, message: "this is no listening unix socket")
        }
        do throws(SystemError) {
            if let file { try keeper.store(Self.keptName, file) } else { try keeper.drop(Self.keptName) }
            current.withLock { $0 = file }
            return .reply(errno: 0, value: 0, message: "")
        } catch {
            return .reply(errno: UInt32(error.errno), value: 0, message: "the keeper did not take it: \(error)")
        }
    }
}
