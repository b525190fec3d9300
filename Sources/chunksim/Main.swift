import ArgumentParser

/// Simulations of the cluster: the agent's own state machines under virtual time.
@main
struct Chunksim: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chunksim",
        abstract: "Simulates a cluster of nodes: the same state machines, virtual time, a seeded network.",
        discussion: "The same seed gives the same run. Exit status 1: a checker complained or a target was missed.",
        subcommands: [MembershipCommand.self, DistributionCommand.self, IndexCommand.self])
}
