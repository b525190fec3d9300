import ChunkResolution
import Testing

@testable import Agent

@Suite struct BulkJobTests {
    private func gathered(_ chunks: [Int], blob: UInt32 = 1) -> [Int] {
        BulkJob.gathered(chunks.map { ChunkKey(BlobID(blob), $0) }).map(\.chunk)
    }

    @Test func neighboursOfATraceComeTogetherWhereTheFirstOfThemStands() {
        #expect(gathered([9, 30, 8, 11, 2, 10]) == [8, 9, 10, 11, 30, 2])
        #expect(gathered([]) == [] && gathered([0]) == [0])
        #expect(gathered([5, 5, 4]) == [4, 5], "each once")
    }

    @Test func chunksOfOtherBlobsAreNoNeighbours() {
        let keys = [ChunkKey(BlobID(1), 5), ChunkKey(BlobID(2), 4), ChunkKey(BlobID(2), 6)]
        #expect(BulkJob.gathered(keys) == keys)
    }
}
