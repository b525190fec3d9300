import ArgumentParser
import ControlAPI
import Settings

struct LimitsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limits",
        abstract: "Show the bandwidth limits in force, or change them until chunkd restarts.",
        discussion: """
            EXAMPLES:
              chunkctl limits
              chunkctl limits --registry 50MiB/s --prefetch 10MiB/s
              chunkctl limits --upload none

            A rate is written as in the configuration (50MiB/s), or is none. Limits that are not named stay as they
            are. After a restart those of the configuration hold again (limits.*, cluster.upload*).
            """)

    @Option(help: ArgumentHelp("From registries and peers together.", valueName: "rate"))
    var download: String?

    @Option(help: ArgumentHelp("From registries.", valueName: "rate"))
    var registry: String?

    @Option(help: ArgumentHelp("What nobody waits for: prefetch, hydration, repair.", valueName: "rate"))
    var prefetch: String?

    @Option(help: ArgumentHelp("To all peers together.", valueName: "rate"))
    var upload: String?

    @Option(help: ArgumentHelp("To one peer.", valueName: "rate"))
    var uploadPerPeer: String?

    @OptionGroup var common: CommonOptions

    func validate() throws { _ = try request() }

    func run() async throws {
        let reply = try await common.client().limits(try request())
        try Console.show(reply, as: common.output) { LimitsText.text(reply) }
    }

    private func request() throws -> LimitsRequest {
        let least = AgentSettings.Limits.leastBytesPerSecond
        var request = LimitsRequest()
        request.downloadBytesPerSecond = try LimitsText.rate("--download", download, atLeast: least)
        request.registryBytesPerSecond = try LimitsText.rate("--registry", registry, atLeast: least)
        request.prefetchBytesPerSecond = try LimitsText.rate("--prefetch", prefetch)
        request.uploadBytesPerSecond = try LimitsText.rate("--upload", upload)
        request.uploadPerPeerBytesPerSecond = try LimitsText.rate("--upload-per-peer", uploadPerPeer)
        return request
    }
}

/// Rates as `chunkctl limits` reads and prints them.
enum LimitsText {
    static func text(_ reply: LimitsReply) -> String {
        func rate(_ value: UInt64?) -> String { value.map { Units.text(size: $0) + "/s" } ?? "none" }
        return Table.pairs([
            ("download", rate(reply.downloadBytesPerSecond)), ("registry", rate(reply.registryBytesPerSecond)),
            ("prefetch", rate(reply.prefetchBytesPerSecond)), ("upload", rate(reply.uploadBytesPerSecond)),
            ("upload per peer", rate(reply.uploadPerPeerBytesPerSecond)),
        ])
    }

    /// Bytes a second, 0 for none; nil when the option was not given.
    static func rate(_ option: String, _ text: String?, atLeast least: UInt64 = 1) throws -> UInt64? {
        guard let text else { return nil }
        if text == "none" { return 0 }
        guard let rate = Units.rate(text) else {
            throw ValidationError("\(option): expected a rate such as 50MiB/s, or none; found \"\(text.prefix(80))\"")
        }
        guard let rate else { return 0 }
        guard rate >= least else {
            throw ValidationError("\(option): expected at least \(Units.text(size: least))/s, found \(text)")
        }
        return rate
    }
}
