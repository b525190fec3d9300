import ChunkModel
import ContentIndex
import Testing

@Suite struct ContentRecordTests {
    /// Bits of chunks that are resident.
    private func bits(_ chunks: some Sequence<Int>, of count: Int) -> [UInt8] {
        var bits = [UInt8](repeating: 0, count: (count + 7) / 8)
        for chunk in chunks { bits[chunk >> 3] |= 1 << UInt8(chunk & 7) }
        return bits
    }

    @Test func statesAreOneByteEach() throws {
        #expect(ContentRecord(.registered).payload == [1])
        #expect(ContentRecord(.complete).payload == [3])
        #expect(ContentRecord(.gone).payload == [4])
        for state in [ContentRecord.State.registered, .complete, .gone] {
            #expect(try ContentRecord(payload: [state.rawValue]) == ContentRecord(state))
        }
    }

    @Test func coverageIsTwoBitsABucketFromTheLowestBitOn() throws {
        // 8 chunks: 8 buckets of one. Chunks 0, 1 and 7 are there: levels 3 3 0 0 0 0 0 3.
        let small = ContentRecord(residency: bits([0, 1, 7], of: 8), chunkCount: 8)
        #expect(small.payload == [2, 8, 0b0000_1111, 0b1100_0000])
        #expect(try ContentRecord(payload: small.payload) == small)
        // 256 chunks: 64 buckets of four. One of four is level 1, two are 2, three are 2, four are 3.
        let large = ContentRecord(residency: bits([0, 4, 5, 8, 9, 10, 12, 13, 14, 15], of: 256), chunkCount: 256)
        #expect(large.payload.count == 18)
        #expect(large.payload.prefix(3) == [2, 64, 0b11_10_10_01])
        #expect(try ContentRecord(payload: large.payload) == large)
    }

    @Test func everyChunkThereIsComplete() {
        for count in [1, 5, 64, 65, 1000] {
            #expect(ContentRecord(residency: bits(0..<count, of: count), chunkCount: count).state == .complete)
            #expect(ContentRecord(residency: bits(1..<count, of: count), chunkCount: count).state == .partial)
        }
    }

    @Test func everyChunkLiesInTheBucketThatCountsIt() {
        for count in [1, 3, 63, 64, 65, 100, 129, 2048] {
            for chunk in stride(from: 0, to: count, by: max(1, count / 37)) {
                let record = ContentRecord(residency: bits([chunk], of: count), chunkCount: count)
                #expect(record.probability(ofChunk: chunk, of: count) > 0, "chunk \(chunk) of \(count)")
            }
        }
    }

    @Test func aPartialRecordWithoutCoverageSaysThatTheNodeIsInterested() {
        #expect(ContentRecord(.partial).payload == [1])
    }

    @Test func whatANewerVersionAppendsIsNotLookedAt() throws {
        #expect(try ContentRecord(payload: [3, 9, 9]) == ContentRecord(.complete))
        let record = ContentRecord(residency: [1], chunkCount: 4)
        #expect(try ContentRecord(payload: record.payload + [7, 7]) == record)
    }

    @Test func badPayloadsAreRefusedByName() {
        func reason(_ payload: [UInt8]) -> ContentRecord.Invalid? {
            do throws(ContentRecord.Invalid) { _ = try ContentRecord(payload: payload) } catch { return error }
            return nil
        }
        #expect(reason([]) == .empty)
        #expect(reason([0]) == .state)
        #expect(reason([5]) == .state)
        #expect(reason([2]) == .truncated)
        #expect(reason([2, 0]) == .buckets)
        #expect(reason([2, 65] + [UInt8](repeating: 0, count: 17)) == .buckets)
        #expect(reason([2, 64] + [UInt8](repeating: 0, count: 15)) == .truncated)
        #expect(reason([UInt8](repeating: 3, count: 65)) == .tooLong)
    }

    @Test func randomPayloadsAreReadOrRefusedAndReadAgainAlike() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var random = Random(state: seed)
        for _ in 0..<20_000 {
            var bytes = (0..<Int.random(in: 0...24, using: &random)).map { _ in UInt8(truncatingIfNeeded: random.next())
            }
            if !bytes.isEmpty, Bool.random(using: &random) { bytes[0] = .random(in: 0...5, using: &random) }
            if bytes.count > 1, Bool.random(using: &random) { bytes[1] = .random(in: 0...66, using: &random) }
            guard let record = try? ContentRecord(payload: bytes) else { continue }
            #expect((try? ContentRecord(payload: record.payload)) == record)
            let probability = record.probability(ofChunk: Int(random.next() >> 44), of: 1 << 20)
            #expect(probability >= 0 && probability <= 1)
        }
    }

    @Test func residencyHeadersAreReadAsTheyAreWritten() throws {
        let window = try #require(ResidencyWindow(first: 120, bits: [0b1010_0001, 0x0F]))
        #expect(window.header == "120:a10f")
        #expect(ResidencyWindow(header: "120:a10f") == window)
        #expect(window[120] == true)
        #expect(window[121] == false)
        #expect(window[127] == true)
        #expect(window[131] == true)
        #expect(window[132] == false)
        #expect(window[136] == nil)
        #expect(window[119] == nil)
    }

    @Test(arguments: [
        "", ":", "1:", ":ff", "1:f", "1:FF", "-1:ff", "a:ff", "1:zz", "9999999999:ff", "4294967296:00", "1 :ff",
        "1:" + String(repeating: "f", count: 1026),
    ])
    func badResidencyHeadersMeanNothing(_ header: String) { #expect(ResidencyWindow(header: header) == nil) }
}
