import ChunkModel
import ClusterSimulator
import Membership
import Testing

/// The real membership on small simulated clusters; `make simulate` does the same with thousands.
@Suite struct MembershipSimulationTests {
    private func options(_ nodes: Int) -> MembershipScenario.Options {
        let seed = UInt64.random(in: 0...UInt64(UInt32.max))
        print("seed \(seed)")
        return MembershipScenario.Options(nodes: nodes, seed: seed)
    }

    private func expectGood(_ report: SimulationReport) {
        #expect(report.isGood, "\(report.text)")
    }

    @Test func aQuietClusterCostsLittle() {
        let report = MembershipScenario.idle.run(options(60))
        expectGood(report)
    }

    @Test func aChangeIsSoonKnownToAll() {
        var options = options(100)
        options.repetitions = 2
        expectGood(MembershipScenario.change.run(options))
    }

    @Test func nobodyIsDeclaredDeadWhoIsNot() {
        var options = options(60)
        options.duration = .seconds(1_800)
        expectGood(MembershipScenario.falseDead.run(options))
    }

    @Test func bothHalvesFindEachOtherAfterAPartition() { expectGood(MembershipScenario.partition.run(options(40))) }

    @Test func aMassRestartLeavesNobodyDead() { expectGood(MembershipScenario.restart.run(options(60))) }

    @Test func aJoinStormIsWeathered() {
        var options = options(20)
        options.joining = 100
        expectGood(MembershipScenario.joinStorm.run(options))
    }

    @Test func oneWayLossKillsNobody() { expectGood(MembershipScenario.oneWay.run(options(40))) }

    @Test func theSameSeedGivesTheSameReport() {
        var options = options(30)
        options.joining = 20
        #expect(MembershipScenario.joinStorm.run(options) == MembershipScenario.joinStorm.run(options))
        var other = options
        other.seed += 1
        #expect(MembershipScenario.joinStorm.run(options) != MembershipScenario.joinStorm.run(other))
    }
}
