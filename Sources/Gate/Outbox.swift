import ChunkModel
import LinuxSystem

/// Frames on their way to chunkd. Whoever puts one in never waits for the socket: a thread of its own sends.
package final class Outbox: Sendable {
    private struct Frame {
        let bytes: [UInt8]
        /// Travels beside the frame.
        var file: File?
    }

    private struct State {
        var socket: PacketSocket?
        var frames: [Frame] = []
        /// Touches since the last miss: they go out as one frame, before whatever is missed next.
        var touched: [GateProtocol.ChunkAddress] = []

        mutating func flushTouched() {
            for start in stride(from: 0, to: touched.count, by: GateProtocol.maxTouched) {
                let some = Array(touched[start..<min(touched.count, start + GateProtocol.maxTouched)])
                frames.append(Frame(bytes: GateProtocol.encode(.touched(some))))
            }
            touched = []
        }
    }

    /// Frames that may wait: every miss is one (bounded by the descriptors of parked readers), with one of touches before
    /// it at most, and every request has one answer. A peer this far behind is not reading.
    private static let maxFrames = 1 << 16
    /// Touches that may wait in a row, and frames that may wait when another is taken; more are dropped, they only steer
    /// read-ahead.
    private static let maxTouched = 4096
    private static let maxFramesForTouched = maxFrames / 2

    private let state = Monitor(State())

    /// Starts the sending thread.
    package func start() throws(SystemError) {
        try Thread.start("outbox") { [self] in drain() }
    }

    /// From here on frames go to `socket`; those for a predecessor are dropped.
    func attach(_ socket: PacketSocket) {
        state.update { state in
            state.socket = socket
            state.frames = []
            state.touched = []
        }
    }

    /// Nobody is connected: misses stay in the tables and are asked again on `attach`.
    func detach(_ socket: PacketSocket) {
        state.update { state in
            guard state.socket === socket else { return }
            state.socket = nil
            state.frames = []
            state.touched = []
        }
    }

    /// Whether a chunkd is connected.
    var isAttached: Bool { state.withLock { $0.socket != nil } }

    func misses(_ addresses: [GateProtocol.ChunkAddress]) {
        push(addresses.map { Frame(bytes: GateProtocol.encode(.miss($0))) })
    }

    /// First accesses in the order in which readers made them, each a miss or of a chunk that was there: chunkd follows
    /// sequential readers by that order.
    func accesses(_ list: [(at: GateProtocol.ChunkAddress, isMiss: Bool)]) {
        state.update { state in
            guard let socket = state.socket else { return }
            for access in list {
                if access.isMiss {
                    state.flushTouched()
                    state.frames.append(Frame(bytes: GateProtocol.encode(.miss(access.at))))
                } else if state.touched.count < Self.maxTouched, state.frames.count < Self.maxFramesForTouched {
                    state.touched.append(access.at)
                }
            }
            if state.frames.count > Self.maxFrames { socket.shutdown() }
        }
    }

    /// Queues a reply, with a descriptor beside it.
    func send(_ event: GateProtocol.Event, number: UInt32 = 0, file: File? = nil) {
        push([Frame(bytes: GateProtocol.encode(event, number: number), file: file)])
    }

    private func push(_ frames: [Frame]) {
        state.update { state in
            guard let socket = state.socket else { return }
            state.frames += frames
            if state.frames.count > Self.maxFrames { socket.shutdown() }
        }
    }

    private func drain() {
        while true {
            let batch: (PacketSocket, [Frame])? = state.wait { state in
                guard let socket = state.socket else { return nil }
                state.flushTouched()
                let frames = state.frames
                state.frames = []
                return frames.isEmpty ? nil : (socket, frames)
            }
            guard let (socket, frames) = batch else { continue }
            for frame in frames {
                do throws(SystemError) {
                    try socket.send(frame.bytes, descriptors: frame.file.map { [$0] } ?? [])
                } catch {
                    // Gone or stuck: its reader thread sees the end and detaches; readers stay parked for the next.
                    socket.shutdown()
                    break
                }
            }
        }
    }
}
