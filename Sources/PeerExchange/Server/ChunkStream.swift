import CLinux
import Glibc
import LinuxSystem
import NIOCore
import NIOPosix
import PeerTransport
import Synchronization

/// Reads the bytes of one answer in slices, as the client takes them and the upload limits let them go: never a whole
/// chunk in memory.
///
/// What is in the page cache is read on the event loop itself with RWF_NOWAIT: a copy of 64 KiB takes about 10 µs, less than
/// a hop to another thread and back. Where the disk would have to be asked the kernel says EAGAIN, and one of a few
/// threads reads it, so a slow disk never holds up an event loop.
final class ChunkStream: PeerBodySource {
    /// Bytes read and written at once: four TLS records.
    static let sliceBytes = 65_536

    private enum Phase {
        case idle
        /// The upload gate's word is awaited.
        case asking
        case granted
        /// A thread reads.
        case reading
        case read(ByteBuffer)
        case failed(Int32)
        case closed
    }

    private struct State {
        var phase = Phase.idle
        /// The current part and how much of it was read.
        var part = 0
        var done: UInt64 = 0
        var sent: UInt64 = 0
    }

    private let parts: [ChunkBytes]
    private let gate: UploadGate
    private let id: UInt64
    private let pool: NIOThreadPool
    private let onClose: @Sendable (_ outcome: PeerServed.Outcome, _ bytes: UInt64) -> Void
    private let state = Mutex(State())

    /// `id` is a slot of `gate`, given back when the stream closes.
    init(
        _ parts: [ChunkBytes], gate: UploadGate, id: UInt64, pool: NIOThreadPool,
        onClose: @escaping @Sendable (_ outcome: PeerServed.Outcome, _ bytes: UInt64) -> Void
    ) {
        self.parts = parts.filter { !$0.range.isEmpty }
        self.gate = gate
        self.id = id
        self.pool = pool
        self.onClose = onClose
    }

    var length: UInt64 { parts.reduce(0) { $0 + UInt64($1.range.count) } }

    // `next` and `close` come from one event loop; grants and reads from elsewhere, and only while `next` has said `wait`.

    func next(_ allocator: ByteBufferAllocator, ready: @escaping @Sendable () -> Void) -> PeerBodyStep {
        let (phase, next) = state.withLock { state -> (Phase, Place?) in (state.phase, current(state)) }
        guard let place = next else { return .failed }
        switch phase {
        case .idle:
            state.withLock { $0.phase = .asking }
            let mayGo = gate.ask(id, bytes: place.count) { self.granted(ready) }
            return mayGo ? read(place, allocator, ready) : .wait
        case .granted: return read(place, allocator, ready)
        case .read(let buffer): return take(buffer)
        case .failed, .closed: return .failed
        case .asking, .reading: return .wait
        }
    }

    func close(isComplete: Bool) {
        let (outcome, bytes) = state.withLock { state -> (PeerServed.Outcome?, UInt64) in
            defer { state.phase = .closed }
            switch state.phase {
            case .closed: return (nil, 0)
            case .failed: return (.unreadable, state.sent)
            default: return (isComplete ? .sent : .lost, state.sent)
            }
        }
        guard let outcome else { return }
        gate.close(id)
        onClose(outcome, bytes)
    }

    private struct Place {
        let file: File
        let offset: UInt64
        let count: Int
    }

    private func current(_ state: State) -> Place? {
        guard parts.indices.contains(state.part) else { return nil }
        let part = parts[state.part]
        let left = UInt64(part.range.count) - state.done
        return Place(
            file: part.file, offset: part.range.lowerBound + state.done,
            count: Int(min(left, UInt64(Self.sliceBytes))))
    }

    private func granted(_ ready: @Sendable () -> Void) {
        let isAwaited = state.withLock { state in
            guard case .asking = state.phase else { return false }
            state.phase = .granted
            return true
        }
        if isAwaited { ready() }
    }

    private func read(
        _ place: Place, _ allocator: ByteBufferAllocator, _ ready: @escaping @Sendable () -> Void
    ) -> PeerBodyStep {
        var buffer = allocator.buffer(capacity: place.count)
        switch Self.read(place, into: &buffer, clinux_pread_nowait) {
        case 0: return take(buffer)
        case EAGAIN, EOPNOTSUPP, EINTR:
            state.withLock { $0.phase = .reading }
            let empty = buffer
            pool.submit { isActive in
                var buffer = empty
                let code =
                    switch isActive {
                    case .active: Self.read(place, into: &buffer, pread)
                    case .cancelled: ECANCELED
                    }
                self.finished(code == 0 ? .read(buffer) : .failed(code), ready)
            }
            return .wait
        case let code:
            state.withLock { $0.phase = .failed(code) }
            return .failed
        }
    }

    /// Reads what one call gives; 0 or an errno. The end of the file is an error: the chunk should be there.
    private static func read(
        _ place: Place, into buffer: inout ByteBuffer,
        _ call: (Int32, UnsafeMutableRawPointer?, Int, off_t) -> Int
    ) -> Int32 {
        var code: Int32 = 0
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: place.count) { memory in
            var count: Int
            repeat {
                count = call(place.file.descriptor, memory.baseAddress, place.count, off_t(place.offset))
            } while count < 0 && errno == EINTR
            if count <= 0 { code = count < 0 ? errno : ENODATA }
            return max(0, count)
        }
        return code
    }

    private func finished(_ phase: Phase, _ ready: @Sendable () -> Void) {
        let isAwaited = state.withLock { state in
            guard case .reading = state.phase else { return false }
            state.phase = phase
            return true
        }
        if isAwaited { ready() }
    }

    private func take(_ buffer: ByteBuffer) -> PeerBodyStep {
        state.withLock { state in
            let count = UInt64(buffer.readableBytes)
            state.phase = .idle
            state.done += count
            state.sent += count
            if state.done == UInt64(parts[state.part].range.count) {
                state.part += 1
                state.done = 0
            }
        }
        return .slice(buffer)
    }
}
