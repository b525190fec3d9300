import Glibc
import LinuxSystem
import Zstandard

/// One stored frame on its way to the decoder: memory outside Swift's arrays, so that no byte is written twice.
final class FrameBuffer: @unchecked Sendable {
    // @unchecked: written by the transfer thread alone until it is handed to a decoder, read by that one alone after.
    private let memory: UnsafeMutableRawBufferPointer

    init(size: Int) { memory = .allocate(byteCount: size, alignment: 16) }

    deinit { memory.deallocate() }

    /// Traps when the bytes do not fit: the writer knows the frame's size.
    func write(_ source: UnsafeRawPointer, _ count: Int, at offset: Int) {
        precondition(offset + count <= memory.count, "frame of \(memory.count) bytes written at \(offset)+\(count)")
        if let base = memory.baseAddress { memcpy(base + offset, source, count) }
    }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(memory) }
}

/// Threads that decompress frames, each with a context of its own. Thread-safe.
final class DecodePool: Sendable {
    private struct Job: @unchecked Sendable {
        // @unchecked: `output` is an arena slot that is this job's alone until `done` was called.
        let frame: FrameBuffer
        let output: UnsafeMutableRawBufferPointer
        let done: @Sendable (Bool) -> Void
    }

    private struct State {
        var jobs: [Job] = []
        var isStopped = false
    }

    private let state = Monitor(State())

    /// Starts the threads.
    init(threads: Int) throws(SystemError) {
        let state = self.state
        for number in 0..<threads { try Thread.start("decode\(number)") { Self.work(state) } }
    }

    deinit { stop() }

    /// Ends the threads after what is queued.
    func stop() { state.update { $0.isStopped = true } }

    /// Decodes a frame into exactly `output`; `done` says on a decoder's thread whether that worked. The number of jobs
    /// is bounded by the arena's slots. After `stop` nothing happens any more, `done` included.
    func decode(
        _ frame: FrameBuffer, into output: UnsafeMutableRawBufferPointer, done: @escaping @Sendable (Bool) -> Void
    ) {
        let job = Job(frame: frame, output: output, done: done)
        state.update { state in
            if !state.isStopped { state.jobs.append(job) }
        }
    }

    private static func work(_ state: Monitor<State>) {
        // No context is no memory: the frames then count as undecodable and are tried again.
        let decompressor = try? FrameDecompressor()
        while let job = next(state) {
            do throws(ZstandardError) {
                try decompressor?.decompress(job.frame.bytes, into: job.output)
                job.done(decompressor != nil)
            } catch { job.done(false) }
        }
    }

    private static func next(_ state: Monitor<State>) -> Job? {
        let job: Job?? = state.wait { state in
            if !state.jobs.isEmpty { return .some(state.jobs.removeFirst()) }
            return state.isStopped ? .some(nil) : nil
        }
        return job ?? nil
    }
}
