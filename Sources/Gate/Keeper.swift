import CLinux
import Glibc
import LinuxSystem

/// The parent process: it holds descriptors for its child and starts the child again when it dies.
///
/// As long as it lives the fanotify groups live, so no reader is let through unanswered (kernel-facts, laws 3 and 4).
/// It touches no file, no image and no socket but its own pair with the child. docs/architecture.md, "Keeper".
///
/// Messages on the pair, one SOCK_SEQPACKET message each: the child sends `S name` with a descriptor (keep it, in place of
/// any of that name), `D name` (drop), `G name` (give: `F name` with the descriptor, or `N`), `A` (give all: `F`…, `E`).
package struct Keeper: ~Copyable {
    /// The child finds its end of the pair here.
    package static let childDescriptor: Int32 = 3
    /// Set in the child's environment.
    package static let childVariable = "CHUNKGATE_CHILD"
    /// The child ended because it was asked to be replaced.
    package static let replaceStatus: Int32 = 75
    /// Longest name of a descriptor, in bytes.
    package static let maxName = 128
    /// Descriptors kept: groups, journal, two listeners, and two for each blob on the node.
    package static let maxKept = 16_384

    private let program: String
    private let arguments: [String]
    private var kept: [(name: String, file: File)] = []
    /// Ends of children, for the pause between restarts: 100 ms after the third within ten seconds.
    private var deaths: [Monotonic] = []

    /// `program` is the executable to run as the child, by path, so that a replaced binary is what starts next.
    package init(program: String, arguments: [String]) {
        self.program = program
        self.arguments = arguments
    }

    /// Runs children until one ends well; returns the exit status for this process.
    package mutating func run() throws(SystemError) -> Int32 {
        let signals = try Signals(blocking: [SIGTERM, SIGINT, SIGHUP, SIGCHLD])
        while true {
            let (socket, child) = try start()
            let status = try serve(socket, child: child, signals: signals)
            if status != Self.replaceStatus {
                let code = status & 0xFF
                // 0: stopped on request. 2: refused its arguments. Both are ends; anything else is a death.
                if status >= 0 && (code == 0 || code == 2) { return code }
                if deaths.isEmpty && !kept.contains(where: { $0.name.hasPrefix("group.") }) { return 1 }
                pauseAfterDeath()
            }
        }
    }

    private mutating func pauseAfterDeath() {
        let now = Monotonic.now
        deaths = deaths.filter { now.milliseconds(since: $0) < 10_000 } + [now]
        if deaths.count > 3 { usleep(100_000) }
    }

    /// A child and our end of its pair; its own end is closed here, so that its death is an end of file.
    private func start() throws(SystemError) -> (PacketSocket, pid_t) {
        let (mine, theirs) = try PacketSocket.pair()
        return (mine, try spawn(theirs))
    }

    private func spawn(_ socket: PacketSocket) throws(SystemError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // A dup2 onto the same number would leave close-on-exec set.
        let copy = File(owning: try retrying("fcntl F_DUPFD") { clinux_dup_at_least(socket.file.descriptor, 64) })
        posix_spawn_file_actions_adddup2(&actions, copy.descriptor, Self.childDescriptor)
        var argv: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = []
        var at = environ
        while let entry = at.pointee {
            environment.append(strdup(entry))
            at += 1
        }
        environment += [strdup("\(Self.childVariable)=1"), nil]
        defer {
            for pointer in argv { free(pointer) }
            for pointer in environment { free(pointer) }
        }
        var child = pid_t()
        let code = posix_spawn(&child, program, &actions, nil, &argv, &environment)
        guard code == 0 else { throw SystemError(code, "posix_spawn", program) }
        return child
    }

    /// Serves one child until it ends; its exit status, or -1 for death by signal.
    private mutating func serve(
        _ socket: PacketSocket, child: pid_t, signals: borrowing Signals
    ) throws(SystemError) -> Int32 {
        var open = true
        var isRested = false
        while true {
            // With nothing to do for a second, it rests: until something comes, it needs no memory for code.
            let ready = try signals.wait(alsoFor: open ? socket.file : nil, milliseconds: isRested ? -1 : 1000)
            isRested = !ready.file && ready.signals.isEmpty
            if isRested { ProgramText.release() }
            if ready.file {
                if let message = try? socket.receive(limit: Self.maxName + 2, maxDescriptors: 1) {
                    answer(message, on: socket)
                } else {
                    // The child closed its end, is ending, or sent what it must not: wait for its end.
                    open = false
                }
            }
            for signal in ready.signals where signal != SIGCHLD { kill(child, signal) }
            guard ready.signals.contains(SIGCHLD) else { continue }
            var status: Int32 = 0
            if waitpid(child, &status, WNOHANG) == child {
                // What it stored last must not be lost: it relied on it from the moment it was sent.
                while let message = try? socket.receive(limit: Self.maxName + 2, maxDescriptors: 1) {
                    answer(message, on: socket)
                }
                return status & 0x7F == 0 ? status >> 8 & 0xFF : -1
            }
        }
    }

    private mutating func answer(_ message: PacketSocket.Message, on socket: PacketSocket) {
        let text = String(decoding: message.bytes, as: UTF8.self)
        let name = String(text.dropFirst())
        switch text.first {
        case "S":
            guard let file = message.descriptors.first, kept.count < Self.maxKept else { return }
            kept.removeAll { $0.name == name }
            kept.append((name, file))
        case "D": kept.removeAll { $0.name == name }
        case "G":
            let found = kept.first { $0.name == name }
            reply(socket, found.map { "F" + $0.name } ?? "N", found?.file)
        case "A":
            for (name, file) in kept { reply(socket, "F" + name, file) }
            reply(socket, "E", nil)
        default: return
        }
    }

    private func reply(_ socket: PacketSocket, _ text: String, _ file: File?) {
        // A child that is gone cannot be answered; its end is noticed by SIGCHLD.
        try? socket.send(Array(text.utf8), descriptors: file.map { [$0] } ?? [])
    }
}

/// The child's side of `Keeper`. Thread-safe.
package final class KeeperClient: Sendable {
    private let socket: PacketSocket

    /// `socket` is the descriptor the keeper put at `Keeper.childDescriptor`.
    package init(socket: PacketSocket) { self.socket = socket }

    /// Hands a descriptor over, in place of any of that name. It is safe there when this returns.
    package func store(_ name: String, _ file: File) throws(SystemError) {
        precondition(name.utf8.count <= Keeper.maxName, "descriptor name \(name)")
        // A unix socket holds the descriptor from here on, whoever dies first.
        try socket.send(Array(("S" + name).utf8), descriptors: [file])
    }

    /// Lets a descriptor go.
    package func drop(_ name: String) throws(SystemError) { try socket.send(Array(("D" + name).utf8)) }

    /// The descriptor kept under a name.
    package func get(_ name: String) throws(SystemError) -> File? {
        try socket.send(Array(("G" + name).utf8))
        return try socket.receive(limit: Keeper.maxName + 2, maxDescriptors: 1)?.descriptors.first
    }

    /// Every descriptor kept, by name. Only at start, before other threads use this.
    package func all() throws(SystemError) -> [String: File] {
        try socket.send(Array("A".utf8))
        var out: [String: File] = [:]
        for _ in 0...Keeper.maxKept {
            guard let message = try socket.receive(limit: Keeper.maxName + 2, maxDescriptors: 1) else {
                throw SystemError(EPIPE, "recvmsg", "the keeper is gone")
            }
            guard let file = message.descriptors.first else { break }
            out[String(decoding: message.bytes.dropFirst(), as: UTF8.self)] = file
        }
        return out
    }
}
