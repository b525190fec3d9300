import ClusterSimulator
import Membership
import Testing

/// What the membership's scenarios are judged by finds what is wrong.
@Suite struct MembershipCheckerTests {
    private func cluster(_ nodes: Int, change: (inout MembershipCluster.Settings) -> Void = { _ in })
        -> MembershipCluster
    {
        var settings = MembershipCluster.Settings(nodes: nodes, seed: 5)
        change(&settings)
        var cluster = MembershipCluster(settings)
        cluster.addKnown(nodes)
        return cluster
    }

    @Test func aNodeThatIsCutOffDisagrees() {
        var cluster = cluster(12)
        cluster.run(until: .seconds(5))
        #expect(cluster.disagreement() == nil)
        cluster.cutOff(3)
        cluster.run(until: .seconds(120))
        #expect(cluster.disagreement(allowingSuspects: true) != nil)
        #expect(cluster.falseDeaths > 0, "it is up: whoever declares it dead is wrong")
    }

    @Test func whoNeverListensMakesNoAgreement() {
        // Nothing gets through at all.
        var cluster = cluster(8) { $0.network.loss = 1 }
        cluster.run(until: .seconds(120))
        #expect(cluster.disagreement(allowingSuspects: true) != nil)
        #expect(cluster.falseDeaths > 0)
    }

    @Test func aReportWithAMissedTargetOrAViolationIsNotGood() {
        var report = SimulationReport(simulation: "s", scenario: "t", nodes: 1, seed: 1)
        report.add("fine", 2, "s", target: 2)
        #expect(report.isGood)
        var violated = report
        violated.violate("something")
        #expect(!violated.isGood)
        report.add("late", 2.01, "s", target: 2)
        #expect(!report.isGood)
        #expect(report.text.contains("MISSED"))
    }
}
