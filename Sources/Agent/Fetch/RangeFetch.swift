import ChunkModel
import ChunkResolution
import Glibc
import HTTPTransfer
import LinuxSystem
import Synchronization

/// Takes the bytes of one range as they come and turns them into fills, each the moment its chunk is whole.
///
/// `take` is called on the transfer thread, one piece after the other; it never blocks and keeps no piece.
final class RangeFetch: Sendable {
    let plan: RangePlan
    private let arena: Arena
    private let gate: GateConnection
    private let handle: UInt32
    private let layout: BlobLayout
    /// Nil for a blob that is stored raw.
    private let decoders: DecodePool?
    private let onUndecodable: @Sendable (ChunkKey) -> Void
    private let state: Mutex<State>

    private struct State {
        /// Chunks handed on, from the first of the plan.
        var delivered = 0
        /// Bytes of the current chunk, as stored, that have come.
        var filled = 0
        /// The current frame of a compressed blob.
        var frame: FrameBuffer?
        var bytes: UInt64 = 0
        /// Frames being decoded.
        var decoding = 0
        /// Set when no more bytes come; called when the last frame is decoded.
        var onDone: (@Sendable (_ delivered: Int, _ bytes: UInt64) -> Void)?
    }

    init(
        plan: RangePlan, arena: Arena, gate: GateConnection, handle: UInt32, layout: BlobLayout,
        decoders: DecodePool?, onUndecodable: @escaping @Sendable (ChunkKey) -> Void
    ) {
        self.plan = plan
        self.arena = arena
        self.gate = gate
        self.handle = handle
        self.layout = layout
        self.decoders = decoders
        self.onUndecodable = onUndecodable
        state = Mutex(State())
    }

    /// Takes the next bytes of the range.
    func take(_ piece: UnsafeRawBufferPointer) -> SinkDecision {
        state.withLock { state in
            state.bytes += UInt64(piece.count)
            var rest = piece[...]
            while !rest.isEmpty, state.delivered < plan.chunks.count {
                let chunk = plan.chunks.lowerBound + state.delivered
                let size = layout.storedRange(of: chunk..<chunk + 1).count
                let count = min(rest.count, size - state.filled)
                let part = UnsafeRawBufferPointer(rebasing: rest.prefix(count))
                copy(part, chunk, size, &state)
                rest = rest.dropFirst(count)
                state.filled += count
                if state.filled == size { handOn(chunk, &state) }
            }
            return .continue
        }
    }

    private func copy(_ part: UnsafeRawBufferPointer, _ chunk: Int, _ size: Int, _ state: inout State) {
        guard let source = part.baseAddress else { return }
        if decoders == nil {
            let slot = arena.slot(plan.slots[state.delivered])
            slot.baseAddress.map { _ = memcpy($0 + state.filled, source, part.count) }
        } else {
            let frame = state.frame ?? FrameBuffer(size: size)
            state.frame = frame
            frame.write(source, part.count, at: state.filled)
        }
    }

    private func handOn(_ chunk: Int, _ state: inout State) {
        let slot = plan.slots[state.delivered]
        let size = layout.index[chunk].size
        state.delivered += 1
        state.filled = 0
        guard let decoders, let frame = state.frame else { return fill(chunk, slot, size) }
        state.frame = nil
        state.decoding += 1
        decoders.decode(frame, into: UnsafeMutableRawBufferPointer(rebasing: arena.slot(slot).prefix(size))) { isGood in
            if isGood { self.fill(chunk, slot, size) } else { self.onUndecodable(ChunkKey(self.plan.blob, chunk)) }
            self.noteDecoded()
        }
    }

    private func fill(_ chunk: Int, _ slot: UInt32, _ size: Int) {
        gate.send(
            .fill(
                at: .init(blob: handle, chunk: UInt32(chunk)), slot: slot, length: UInt32(size), repair: plan.repair))
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
        let now = state.withLock { state -> (Int, UInt64)? in
            state.frame = nil
            if state.decoding == 0 { return (state.delivered, state.bytes) }
            state.onDone = onDone
            return nil
        }
        if let now { onDone(now.0, now.1) }
    }
}
