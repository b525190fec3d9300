import ChunkModel
import ChunkResolution
import Glibc
import HTTPTransfer
import LinuxSystem
import Synchronization

/// Takes the bytes of one range as they come and turns them into fills, each the moment its chunk is whole.
///
/// `take` is called on the transfer thread, one piece after the other; it never blocks and keeps no piece. While there
/// is no slot for the next chunk the transfer is paused, and the rest of the range waits on the wire.
final class RangeFetch: Sendable {
    /// What a range works with.
    struct Parts: Sendable {
        let arena: Arena
        let slots: Slots
        let gate: GateConnection
        /// The blob on that connection.
        let handle: UInt32
        let layout: BlobLayout
        /// Nil for a blob that is stored raw, and for what peers send.
        let decoders: DecodePool?
        let control: TransferControl
        let onUndecodable: @Sendable (ChunkKey) -> Void
    }

    let plan: RangePlan
    private let parts: Parts
    private let state: Mutex<State>

    private struct State {
        var rank: FetchRank
        /// Chunks handed on, from the first of the plan.
        var delivered = 0
        /// The current chunk's slot; nil before its first byte.
        var slot: UInt32?
        /// Bytes of the current chunk, as stored, that have come.
        var filled = 0
        /// The current frame of a compressed blob.
        var frame: FrameBuffer?
        /// Bytes taken from a piece that was then refused, and will be offered again from its start.
        var taken = 0
        var bytes: UInt64 = 0
        /// Frames being decoded.
        var decoding = 0
        /// Set when no more bytes come; called when the last frame is decoded.
        var onDone: (@Sendable (_ delivered: Int, _ bytes: UInt64) -> Void)?
    }

    init(plan: RangePlan, _ parts: Parts) {
        self.plan = plan
        self.parts = parts
        state = Mutex(State(rank: plan.rank))
    }

    /// A reader waits for it now.
    func hasten() {
        state.withLock { $0.rank = .demand }
        parts.slots.wake(range: plan.id)
    }

    /// Takes the next bytes of the range.
    func take(_ piece: UnsafeRawBufferPointer) -> SinkDecision {
        state.withLock { state in
            let again = min(state.taken, piece.count)
            state.taken -= again
            var rest = piece.dropFirst(again)
            while !rest.isEmpty, state.delivered < plan.chunks.count {
                let chunk = plan.chunks.lowerBound + state.delivered
                let size = sizeOnTheWire(chunk)
                guard let slot = slot(for: chunk, &state) else {
                    // What was taken of this piece stays taken; libcurl offers all of it again.
                    state.taken += piece.count - rest.count
                    return .pause
                }
                let count = min(rest.count, size - state.filled)
                copy(UnsafeRawBufferPointer(rebasing: rest.prefix(count)), slot, size, &state)
                rest = rest.dropFirst(count)
                state.filled += count
                state.bytes += UInt64(count)
                if state.filled == size { handOn(chunk, slot, &state) }
            }
            return .continue
        }
    }

    private func sizeOnTheWire(_ chunk: Int) -> Int {
        plan.source.peer == nil
            ? parts.layout.storedRange(of: chunk..<chunk + 1).count : parts.layout.index[chunk].size
    }

    private func slot(for chunk: Int, _ state: inout State) -> UInt32? {
        if let slot = state.slot { return slot }
        state.slot = parts.slots.take(
            parts.layout.index[chunk].size, state.rank, range: plan.id, control: parts.control)
        return state.slot
    }

    private func copy(_ part: UnsafeRawBufferPointer, _ slot: UInt32, _ size: Int, _ state: inout State) {
        guard let source = part.baseAddress else { return }
        if parts.decoders == nil {
            parts.arena.slot(slot).baseAddress.map { _ = memcpy($0 + state.filled, source, part.count) }
        } else {
            let frame = state.frame ?? FrameBuffer(size: size)
            state.frame = frame
            frame.write(source, part.count, at: state.filled)
        }
    }

    private func handOn(_ chunk: Int, _ slot: UInt32, _ state: inout State) {
        let size = parts.layout.index[chunk].size
        state.delivered += 1
        state.filled = 0
        state.slot = nil
        guard let decoders = parts.decoders, let frame = state.frame else { return fill(chunk, slot, size) }
        state.frame = nil
        state.decoding += 1
        let output = UnsafeMutableRawBufferPointer(rebasing: parts.arena.slot(slot).prefix(size))
        decoders.decode(frame, into: output) { isGood in
            if isGood {
                self.fill(chunk, slot, size)
            } else {
                self.parts.slots.abandon(slot)
                self.parts.onUndecodable(ChunkKey(self.plan.blob, chunk))
            }
            self.noteDecoded()
        }
    }

    private func fill(_ chunk: Int, _ slot: UInt32, _ size: Int) {
        let connection = parts.gate.number
        parts.slots.markSent(slot, connection: connection, from: plan.source)
        let request = GateProtocol.Request.fill(
            at: .init(blob: parts.handle, chunk: UInt32(chunk)), slot: slot, length: UInt32(size), repair: plan.repair)
        if !parts.gate.send(request) { parts.slots.giveBack(slot, connection: connection) }
    }

    private func noteDecoded() {
        let done = state.withLock { state -> (() -> Void)? in
            state.decoding -= 1
            guard state.decoding == 0, let onDone = state.onDone else { return nil }
            state.onDone = nil
            let (delivered, bytes) = (state.delivered, state.bytes)
            return { onDone(delivered, bytes) }
        }
        done?()
    }

    /// No more bytes come: calls `onDone`, once every frame is decoded, with the chunks handed on.
    func end(_ onDone: @escaping @Sendable (_ delivered: Int, _ bytes: UInt64) -> Void) {
        parts.slots.forget(range: plan.id)
        let (now, slot) = state.withLock { state -> ((Int, UInt64)?, UInt32?) in
            state.frame = nil
            let slot = state.slot
            state.slot = nil
            if state.decoding == 0 { return ((state.delivered, state.bytes), slot) }
            state.onDone = onDone
            return (nil, slot)
        }
        if let slot { parts.slots.abandon(slot) }
        if let now { onDone(now.0, now.1) }
    }
}
