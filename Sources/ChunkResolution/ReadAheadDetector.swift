/// Follows the sequential readers of one blob and says what to fetch before they ask.
///
/// It is told of the first access to every chunk, fetched or resident. Several readers at different places are
/// followed at once; a reader that jumps about is never followed, so random reads cause no extra fetch. After
/// `Limits.trigger` chunks in a row a window opens at two chunks and grows each time the reader has used half of it
/// (the scheme of the kernel's own readahead, mm/readahead.c, in chunks).
///
/// A value without clock or I/O; one user at a time.
package struct ReadAheadDetector: Sendable {
    package struct Limits: Sendable, Equatable {
        /// Readers of one blob followed at once; the one unheard of for longest makes room.
        package var streams = 8
        /// Chunks in a row before anything is fetched ahead. Two would fetch ahead for any small file that lies
        /// across a chunk boundary.
        package var trigger = 3
        /// First window, in chunks.
        package var firstWindow = 2
        /// Largest window, in raw bytes.
        package var maxWindowBytes = 128 << 20
        /// A reader may skip or repeat this many chunks: kernel read-ahead and several threads come out of order.
        package var slack = 2

        package init() {}
    }

    private struct Stream {
        /// The chunk after the last one accessed.
        var next: Int
        /// Chunks accessed in a row.
        var length: Int
        /// End of what was asked for ahead.
        var ahead: Int
        /// Chunks; 0 before the trigger.
        var window: Int
        var lastUse: UInt64
    }

    /// More is asked for when half of the window is left: one long range is on its way while the next is asked for.
    private static let refill = 2

    private let limits: Limits
    private let chunkCount: Int
    /// Window limit in chunks: `maxWindowBytes` over the blob's mean chunk.
    private let maxWindow: Int
    private var streams: [Stream] = []
    private var uses: UInt64 = 0

    package init(chunkCount: Int, rawSize: UInt64, limits: Limits = Limits()) {
        self.limits = limits
        self.chunkCount = chunkCount
        let mean = max(1, rawSize / UInt64(max(1, chunkCount)))
        maxWindow = max(limits.firstWindow, Int(UInt64(limits.maxWindowBytes) / mean))
    }

    /// A chunk is accessed for the first time; returns the chunks to fetch now, often none.
    package mutating func access(_ chunk: Int) -> Range<Int> {
        uses += 1
        guard let number = stream(near: chunk) else {
            let fresh = Stream(next: chunk + 1, length: 1, ahead: chunk + 1, window: 0, lastUse: uses)
            if streams.count < limits.streams {
                streams.append(fresh)
            } else if let oldest = streams.indices.min(by: { streams[$0].lastUse < streams[$1].lastUse }) {
                streams[oldest] = fresh
            }
            return 0..<0
        }
        var stream = streams[number]
        stream.lastUse = uses
        stream.length += 1
        stream.next = max(stream.next, chunk + 1)
        stream.ahead = max(stream.ahead, stream.next)
        var wanted = 0..<0
        if stream.length >= limits.trigger, stream.ahead - stream.next <= stream.window / Self.refill {
            stream.window = nextWindow(of: stream)
            let end = min(stream.next + stream.window, chunkCount)
            if end > stream.ahead {
                wanted = stream.ahead..<end
                stream.ahead = end
            }
        }
        streams[number] = stream
        return wanted
    }

    /// Four times while it is small, then twice: readahead's `get_next_ra_size`. Each step costs a request's latency. Never
    /// more than was read in a row: most readers stop at the end of a file, which nobody here knows.
    private func nextWindow(of stream: Stream) -> Int {
        if stream.window == 0 { return limits.firstWindow }
        let grown = stream.window < maxWindow / 16 ? stream.window * 4 : stream.window * 2
        return min(grown, maxWindow, max(stream.length, limits.firstWindow))
    }

    /// The stream this access continues: at its front, or, once it runs, anywhere in what it reads ahead.
    private func stream(near chunk: Int) -> Int? {
        streams.indices.filter { number in
            let stream = streams[number]
            // Before the trigger only the very next chunk counts: two random reads close by are no reader in a row.
            if stream.window == 0 { return chunk == stream.next }
            return chunk >= stream.next - limits.slack && chunk < stream.ahead + limits.slack
        }.min { abs(streams[$0].next - chunk) < abs(streams[$1].next - chunk) }
    }
}
