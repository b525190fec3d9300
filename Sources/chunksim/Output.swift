import ArgumentParser
import ClusterSimulator
import FoundationEssentials
import Glibc

/// How results are printed.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
    case text
    case json
}

/// The options all simulations have.
struct CommonOptions: ParsableArguments {
    @Option(help: "Nodes in the cluster.")
    var nodes = 1_000

    @Option(help: "Seed of all chance; printed first, so that a run can be repeated. Default: a new one.")
    var seed: UInt64?

    @Option(name: [.customShort("o"), .long], help: "text or json.")
    var output = OutputFormat.text

    func validate() throws {
        guard (1...16_000).contains(nodes) else { throw ValidationError("--nodes: 1...16000, not \(nodes)") }
    }

    /// The seed of this run, said on standard error before anything else happens.
    func announcedSeed() -> UInt64 {
        let seed = seed ?? UInt64.random(in: 0...UInt64(UInt32.max))
        var error = StandardError()
        print("seed \(seed)", to: &error)
        return seed
    }

    /// Prints reports; throws exit status 1 when one is not good.
    func finish(_ reports: [SimulationReport]) throws {
        switch output {
        case .text: for report in reports { print(report.text) }
        case .json:
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            print(String(decoding: try encoder.encode(reports), as: UTF8.self))
        }
        if !reports.allSatisfy(\.isGood) { throw ExitCode.failure }
    }
}

/// Standard error as the target of `print`.
private struct StandardError: TextOutputStream {
    mutating func write(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
            guard count > 0 else { return }
            bytes = bytes.dropFirst(count)
        }
    }
}
