import ArgumentParser
import ClusterSimulator

extension MembershipScenario: ExpressibleByArgument {}

/// `chunksim membership`.
struct MembershipCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "membership", abstract: "Who is there: failure detection, gossip, anti-entropy, joining.")

    @OptionGroup var common: CommonOptions

    @Option(help: "Which experiment; may be given several times. Default: all but false-dead.")
    var scenario: [MembershipScenario] = []

    @Option(help: "Chance that a frame is lost.")
    var loss = 0.01

    @Option(help: "Simulated seconds of idle and false-dead.")
    var seconds: Int?

    @Option(help: "Nodes that join in join-storm.")
    var joining = 1_000

    @Option(help: "Changes of each kind in change.")
    var changes = 5

    func validate() throws {
        guard (0...1).contains(loss) else { throw ValidationError("--loss: 0...1, not \(loss)") }
        guard (1...100).contains(changes) else { throw ValidationError("--changes: 1...100, not \(changes)") }
        guard common.nodes + joining <= 16_000 else { throw ValidationError("--joining: at most 16000 nodes in all") }
    }

    func run() throws {
        var options = MembershipScenario.Options(nodes: common.nodes, seed: common.announcedSeed())
        options.loss = loss
        options.joining = joining
        options.repetitions = changes
        options.duration = seconds.map { .seconds($0) }
        let wanted = scenario.isEmpty ? MembershipScenario.allCases.filter { $0 != .falseDead } : scenario
        try common.finish(wanted.map { $0.run(options) })
    }
}
