import ArgumentParser
import ClusterSimulator

/// `chunksim distribution`.
struct DistributionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "distribution",
        abstract: "One image, many cold nodes at once: copies from the registry, time, liars.")

    @OptionGroup var common: CommonOptions

    @Option(help: "Part of the nodes that lies, 0...0.9.")
    var liars = 0.0

    @Option(help: "Size of the image in MiB.")
    var image = 1024

    @Option(help: "Size of a chunk in KiB.")
    var chunk = 512

    @Option(help: "Zones the nodes are spread over.")
    var zones = 1

    @Option(help: "The registry's link, in Mbit/s.")
    var registry = 200.0

    @Option(help: "Each node's link, in Mbit/s.")
    var link = 1000.0

    @Option(help: "Seconds within which all nodes mount.")
    var spread = 0.1

    @Option(help: "Nodes killed in the first half minute.")
    var crashes = 0

    func validate() throws {
        guard (0...0.9).contains(liars) else { throw ValidationError("--liars: 0...0.9, not \(liars)") }
        guard (1...1 << 20).contains(image) else { throw ValidationError("--image: 1...1048576 MiB, not \(image)") }
        guard (4...4096).contains(chunk), chunk % 4 == 0 else {
            throw ValidationError("--chunk: 4...4096 KiB in steps of 4, not \(chunk)")
        }
        guard registry > 0, link > 0, spread >= 0, zones > 0, crashes >= 0, crashes < common.nodes else {
            throw ValidationError("rates and zones are above zero, spread and crashes not below it")
        }
    }

    func run() throws {
        var options = DistributionOptions(nodes: common.nodes, seed: common.announcedSeed())
        options.liars = liars
        options.imageBytes = image << 20
        options.chunkBytes = chunk << 10
        options.zones = zones
        options.registryRate = registry * 1e6 / 8
        options.nodeRate = link * 1e6 / 8
        options.spread = spread
        options.crashes = crashes
        try common.finish([DistributionSimulation.run(options)])
    }
}
