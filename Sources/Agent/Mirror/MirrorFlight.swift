import ChunkModel
import Integrity
import LinuxSystem
import Mirror
import Synchronization

/// One blob on its way here, once a digest however many ask for it. Thread-safe.
///
/// What comes from the registry is passed on while it comes: it is what whoever asks would have got there, and checks
/// itself. Its last byte is held back until all of it was found right. What comes from a peer is passed on only when it was.
final class MirrorFlight: Sendable {
    /// Why it came to nothing; the raw value is a metric label. Closed set.
    enum Failure: String, Error, Sendable, CaseIterable {
        case registry
        /// The registry refuses the credentials.
        case denied
        case wrongBytes = "wrong_bytes"
        /// The disk did not take it.
        case disk
        case stopping
    }

    private struct State {
        /// What is passed on is read from here.
        var file: File?
        var visible: UInt64 = 0
        var outcome: Result<BlobCache.Lease, Failure>?
    }

    let digest: Digest
    let size: UInt64
    private let state = Mutex(State())
    private let signal = Signal()

    init(digest: Digest, size: UInt64) {
        self.digest = digest
        self.size = size
    }

    // MARK: - Whoever brings it

    /// The registry's bytes go into this file from now on.
    func begin(_ file: File) { state.withLock { $0.file = file } }

    /// So many bytes of the file are written.
    func advance(to end: UInt64) {
        state.withLock { $0.visible = min(end, size - 1) }
        signal.wake()
    }

    /// All of it is here, and right.
    func finish(_ lease: BlobCache.Lease) {
        state.withLock { state in
            state.file = lease.file
            state.visible = size
            state.outcome = .success(lease)
        }
        signal.wake()
    }

    func fail(_ failure: Failure) {
        state.withLock { $0.outcome = .failure(failure) }
        signal.wake()
    }

    // MARK: - Whoever waits

    /// Bytes that may be passed on from `offset`, waiting for the first of them; throws when there will be none.
    func bytes(from offset: UInt64) async throws(Failure) -> (file: File, end: UInt64) {
        while true {
            let generation = signal.generation
            let (file, visible, outcome) = state.withLock { ($0.file, $0.visible, $0.outcome) }
            if let file, visible > offset { return (file, visible) }
            if case .failure(let failure) = outcome { throw failure }
            if Task.isCancelled { throw .stopping }
            await signal.wait(after: generation)
        }
    }

    /// How it ended, waiting for that so long at most; nil when it has not.
    func outcome(within limit: Duration) async -> Result<BlobCache.Lease, Failure>? {
        let end = ContinuousClock.now + limit
        while true {
            let generation = signal.generation
            if let outcome = state.withLock({ $0.outcome }) { return outcome }
            let left = end - .now
            guard left > .zero, !Task.isCancelled else { return nil }
            await signal.wait(after: generation, atMost: left)
        }
    }
}

/// Writes what comes of a blob from the registry: to its file, hashed, and known to the flight.
final class MirrorSink: @unchecked Sendable {
    // @unchecked: one piece comes after the other, and `finish` after the last.
    private let file: File
    private let flight: MirrorFlight
    private var hash = SHA256()
    private var end: UInt64 = 0
    /// Why the file did not take it.
    private(set) var failure: SystemError?

    init(_ file: File, _ flight: MirrorFlight) {
        self.file = file
        self.flight = flight
    }

    /// On the mirror's own transfer thread: a slow disk holds up nobody else.
    func take(_ piece: UnsafeRawBufferPointer) -> Bool {
        do throws(SystemError) { try file.writeAll(piece, at: end) } catch {
            failure = error
            return false
        }
        hash.update(piece)
        end += UInt64(piece.count)
        flight.advance(to: end)
        return true
    }

    func finish() -> (digest: Digest, bytes: UInt64) { (hash.finalize(), end) }
}
