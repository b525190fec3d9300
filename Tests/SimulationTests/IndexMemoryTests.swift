import ClusterSimulator
import Testing

/// What `chunksim index` reports.
@Suite struct IndexMemoryTests {
    private func report(_ nodes: Int, _ images: Int, grows bytes: Int) -> SimulationReport {
        var calls = 0
        return IndexMemory.run(.init(nodes: nodes, images: images, seed: 3)) {
            calls += 1
            return 1_000_000 + (calls - 1) * bytes
        }
    }

    @Test func theGrowthOfTheProcessIsTheFigure() {
        let report = report(300, 4, grows: 3 << 20)
        #expect(report["memory of the index"] == 3)
        #expect(report["records"] == 1_200)
        #expect(report.isGood)
        #expect((report["the same by its own count"] ?? 0) > 1_200 * 32 / 1_048_576.0)
    }

    @Test func moreThanTheTargetIsNotGood() { #expect(!report(50, 2, grows: 33 << 20).isGood) }

    @Test func recordsThatFoundNoRoomAreNoted() {
        // A node may have 1,024 records.
        let report = report(2, 1_025, grows: 0)
        #expect(report.violations == ["2048 records, 4 refused"])
    }
}
