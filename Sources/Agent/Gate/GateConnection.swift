import ChunkModel
import Glibc
import LinuxSystem
import Synchronization

/// One connection to chunkgate: frames out, replies to those who asked, everything else to the owner.
///
/// Thread-safe. Handles the gate gives out are valid as long as this object is the current connection.
package final class GateConnection: Sendable {
    /// Counts up from connection to connection.
    package let number: UInt64
    private let socket: PacketSocket
    private let pending = Mutex<Pending>(Pending())

    private struct Pending {
        var isClosed = false
        var next: UInt32 = 1
        var calls: [UInt32: Call] = [:]
    }

    private struct Call {
        let continuation: CheckedContinuation<Result<Reply, AgentError>, Never>
        /// The reply is many `image` frames and an `end`.
        let isList: Bool
        let timeout: Duration
        let deadline: Monotonic
        var reply = Reply()
    }

    /// All frames of one answer, and the descriptors beside them.
    struct Reply {
        var events: [GateProtocol.Event] = []
        var files: [File] = []
    }

    /// Calls under way at once; more are refused.
    static let maxCalls = 256
    /// How often calls are looked through for those whose time is over.
    private static let lookSeconds = 1

    init(number: UInt64, socket: PacketSocket) {
        self.number = number
        self.socket = socket
    }

    // MARK: - Sending

    /// Sends a frame nobody waits for: fills, copies, failures. May block while the gate's queue is full, so never call
    /// it from a task. False when the connection is gone, which its owner learns by itself.
    @discardableResult
    package func send(_ request: GateProtocol.Request) -> Bool {
        do throws(SystemError) {
            try socket.send(GateProtocol.encode(request, number: 0))
            return true
        } catch {
            close()
            return false
        }
    }

    /// Sends a request, on `queue` if the gate is behind, and waits for its reply: all frames up to the last.
    /// - Parameter timeout: checked once a second.
    func call(
        _ request: GateProtocol.Request, descriptors: [File] = [], timeout: Duration, on queue: WorkQueue
    ) async throws(AgentError) -> Reply {
        let result: Result<Reply, AgentError> = await withCheckedContinuation { continuation in
            let opened: Result<UInt32, AgentError> = pending.withLock { pending in
                guard !pending.isClosed else { return .failure(Self.away) }
                guard pending.calls.count < Self.maxCalls else {
                    return .failure(AgentError(.gateTimeout, "\(Self.maxCalls) requests wait for chunkgate"))
                }
                let number = pending.next
                pending.next = number == .max ? 1 : number + 1
                pending.calls[number] = Call(
                    continuation: continuation, isList: request == .list, timeout: timeout,
                    deadline: .now.adding(milliseconds: Int(timeout / .milliseconds(1))))
                return .success(number)
            }
            switch opened {
            case .failure(let error): continuation.resume(returning: .failure(error))
            case .success(let number):
                transmit(GateProtocol.encode(request, number: number), descriptors, queue)
            }
        }
        return try result.get()
    }

    private func transmit(_ frame: [UInt8], _ descriptors: [File], _ queue: WorkQueue) {
        do throws(SystemError) {
            if try socket.trySend(frame, descriptors: descriptors) { return }
        } catch { return close() }
        queue.post { [self] in
            do throws(SystemError) { try socket.send(frame, descriptors: descriptors) } catch { close() }
        }
    }

    private func expireCalls(_ now: Monotonic) {
        let overdue = pending.withLock { pending in
            let overdue = pending.calls.filter { $0.value.deadline < now }
            for number in overdue.keys { pending.calls[number] = nil }
            return overdue.values
        }
        for call in overdue {
            call.continuation.resume(
                returning: .failure(AgentError(.gateTimeout, "chunkgate did not answer in \(call.timeout)")))
        }
    }

    static let away = AgentError(.gateAway, "no connection to chunkgate")

    // MARK: - Receiving

    /// Reads frames until the connection ends, on the caller's thread. What nobody asked for goes to `onEvent`.
    func receiveAll(_ onEvent: (GateProtocol.Event) -> Void) -> AgentError {
        do throws(SystemError) {
            try socket.setReceiveTimeout(seconds: Self.lookSeconds)
            var nextLook = Monotonic.now
            while true {
                let now = Monotonic.now
                if nextLook <= now {
                    expireCalls(now)
                    nextLook = now.adding(milliseconds: Self.lookSeconds * 1000)
                }
                let message: PacketSocket.Message?
                do throws(SystemError) {
                    message = try socket.receive(limit: GateProtocol.maxFrameSize, maxDescriptors: 1)
                } catch {
                    guard error.errno == EAGAIN else { throw error }
                    continue
                }
                guard let message else { return Self.away }
                let (event, number) = try decode(message.bytes)
                if !deliver(event, message.descriptors, number) { onEvent(event) }
            }
        } catch { return AgentError(.gateProtocol, "connection to chunkgate: \(error)") }
    }

    /// Receives one frame: the answer to `hello`.
    func receiveOne() throws(AgentError) -> GateProtocol.Event {
        do throws(SystemError) {
            let message: PacketSocket.Message?
            do throws(SystemError) { message = try socket.receive(limit: GateProtocol.maxFrameSize) } catch {
                // A gate that sends us away does not read our hello: the kernel says so first, its answer comes after.
                guard error.errno == ECONNRESET else { throw error }
                message = try socket.receive(limit: GateProtocol.maxFrameSize)
            }
            guard let message else { throw SystemError(EPIPE, "recvmsg") }
            return try decode(message.bytes).0
        } catch { throw AgentError(.gateAway, "chunkgate ended the connection: \(error)") }
    }

    /// Says hello. A gate that ends the connection at once has still said why: that is for `receiveOne` to find.
    func sendHello(_ arena: Arena) throws(SystemError) {
        let hello = GateProtocol.Request.hello(slotSize: UInt32(arena.slotSize), slotCount: UInt32(arena.slotCount))
        do throws(SystemError) {
            try socket.send(GateProtocol.encode(hello, number: 0), descriptors: [arena.file])
        } catch { guard [EPIPE, ECONNRESET].contains(error.errno) else { throw error } }
    }

    private func decode(_ bytes: [UInt8]) throws(SystemError) -> (GateProtocol.Event, UInt32) {
        do throws(GateProtocol.Malformed) {
            let decoded = try GateProtocol.decodeEvent(bytes)
            return (decoded.event, decoded.number)
        } catch { throw SystemError(EPROTO, "recvmsg", "frame of \(bytes.count) bytes: \(error)") }
    }

    /// Hands a reply to who asked; false when nobody did.
    private func deliver(_ event: GateProtocol.Event, _ files: [File], _ number: UInt32) -> Bool {
        switch event {
        case .miss, .touched, .filled, .helloReply: return false
        case .image, .end, .reply, .residencyBits, .counters, .verified, .snapshotUsage, .snapshots, .blocked: break
        }
        let done: Call?? = pending.withLock { pending in
            guard var call = pending.calls[number] else { return nil }
            call.reply.events.append(event)
            call.reply.files += files
            if case .image = event, call.isList {
                pending.calls[number] = call
                return .some(nil)
            }
            pending.calls[number] = nil
            return .some(call)
        }
        guard let done else { return number != 0 }
        if let done { done.continuation.resume(returning: .success(done.reply)) }
        return true
    }

    // MARK: - Ending

    /// Ends the connection; its reader returns, its calls fail.
    package func close() {
        socket.shutdown()
        let calls = pending.withLock { pending in
            pending.isClosed = true
            defer { pending.calls = [:] }
            return Array(pending.calls.values)
        }
        for call in calls { call.continuation.resume(returning: .failure(Self.away)) }
    }
}
