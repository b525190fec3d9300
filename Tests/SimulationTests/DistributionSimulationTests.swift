import ClusterSimulator
import Testing

/// The real scheduler, peer selection, index and upload desk on small simulated clusters; `make simulate` does the same
/// with a thousand nodes.
@Suite struct DistributionSimulationTests {
    private func options(_ nodes: Int, mebibytes: Int = 32) -> DistributionOptions {
        let seed = UInt64.random(in: 0...UInt64(UInt32.max))
        print("seed \(seed)")
        var options = DistributionOptions(nodes: nodes, seed: seed)
        options.imageBytes = mebibytes << 20
        return options
    }

    @Test func allReadAllOfItAndTheRegistrySendsItOnce() throws {
        let report = DistributionSimulation.run(options(40, mebibytes: 64))
        #expect(report.violations.isEmpty, "\(report.text)")
        // A small image: the few chunks that a node takes before it knows of the others weigh more.
        #expect(try #require(report["registry copies"]) < 1.5, "\(report.text)")
        #expect(try #require(report["from peers"]) > 0.9, "\(report.text)")
    }

    @Test func liarsCostTimeAndNothingElse() throws {
        var options = options(60)
        options.liars = 0.3
        let report = DistributionSimulation.run(options)
        #expect(report.isGood, "\(report.text)")
        #expect(try #require(report["wrong chunks refused"]) > 0, "no liar was believed: \(report.text)")
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func aThirdThatLiesFailsNoReadAndSendsNobodyToTheRegistry(_ seed: UInt64) throws {
        var options = DistributionOptions(nodes: 100, seed: seed)
        options.imageBytes = 16 << 20
        options.liars = 0.3
        let report = DistributionSimulation.run(options)
        #expect(report.isGood, "\(report.text)")
        #expect(report["wrong bytes accepted"] == 0)
        #expect(report["readers' errors (EIO)"] == 0)
        #expect(try #require(report["registry copies"]) < 3, "\(report.text)")
        for lie in ["wrongBytes", "stalling", "claiming"] {
            #expect(try #require(report["waited for liars: \(lie)"]) > 0, "none of them was asked: \(report.text)")
        }
    }

    @Test func crashesCostNobodyElseAnything() throws {
        var options = options(40)
        options.crashes = 20
        // Slow enough that some of them fall into the run.
        options.registryRate = 4e6
        let report = DistributionSimulation.run(options)
        #expect(report.violations.isEmpty, "\(report.text)")
        #expect(try #require(report["nodes killed"]) > 0)
    }

    @Test func aChunkCrossesToAZoneAboutOnce() throws {
        var options = options(45)
        options.zones = 3
        let report = DistributionSimulation.run(options)
        #expect(report.violations.isEmpty, "\(report.text)")
        #expect(try #require(report["across zones"]) < 0.25, "\(report.text)")
    }

    @Test func theSameSeedGivesTheSameReport() {
        var options = options(30, mebibytes: 16)
        options.liars = 0.2
        #expect(DistributionSimulation.run(options) == DistributionSimulation.run(options))
        var other = options
        other.seed += 1
        #expect(DistributionSimulation.run(options) != DistributionSimulation.run(other))
    }

    // MARK: - The checkers

    @Test(arguments: [
        (DistributionOptions.Fault.unverified, "accepted unverified"), (.forgottenMiss, "never answered"),
        (.secondAnswer, "answered twice"), (.failedRead, "reads failed"),
    ])
    func aFaultOfTheNodesIsFound(_ fault: DistributionOptions.Fault, _ complaint: String) {
        var options = options(20, mebibytes: 8)
        options.liars = 0.3
        options.fault = fault
        let report = DistributionSimulation.run(options)
        #expect(!report.isGood)
        #expect(report.violations.contains { $0.contains(complaint) }, "\(report.text)")
    }
}
