import ChunkResolution
import Testing

@Suite struct AccessRecorderTests {
    private let one = BlobID(1)
    private let two = BlobID(2)

    private func record(_ accesses: [(BlobID, Int)], maxRuns: Int = 100) -> AccessRecorder {
        var recorder = AccessRecorder(blobs: [one, two], maxRuns: maxRuns)
        for (blob, chunk) in accesses { recorder.access(ChunkKey(blob, chunk)) }
        return recorder
    }

    private func text(_ recorder: AccessRecorder) -> String {
        recorder.runs.map { "\($0.blob):\($0.chunks)" }.joined(separator: " ")
    }

    @Test func theOrderOfFirstAccessIsKeptAndNeighboursAreOneRun() {
        let recorder = record([(one, 5), (one, 6), (two, 0), (one, 7), (one, 5), (one, 4), (two, 0), (two, 1)])
        #expect(text(recorder) == "b1:5..<7 b2:0..<1 b1:7..<8 b1:4..<5 b2:1..<2")
        #expect(recorder.count == 6 && !recorder.isFull)
    }

    @Test func otherBlobsAreNotNoted() {
        let recorder = record([(BlobID(3), 1), (one, 2)])
        #expect(text(recorder) == "b1:2..<3")
        #expect(recorder.covers(one) && !recorder.covers(BlobID(3)))
    }

    @Test func whatDoesNotFitIsSaidAndWhatWasNotedStays() {
        let recorder = record([(one, 0), (one, 2), (one, 3), (one, 9), (one, 4)], maxRuns: 2)
        #expect(text(recorder) == "b1:0..<1 b1:2..<4")
        #expect(recorder.isFull && recorder.count == 3)
    }
}
