import ArgumentParser
import ChunkModel
import ControlAPI

struct PinCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pin", abstract: "Keep an image on this node.",
        discussion: """
            EXAMPLES:
              chunkctl pin registry.example/models/llama:1
              chunkctl pin sha256:0c5f…

            A pinned image is removed by nobody: not by `chunkctl gc`, the quota, a full disk or containerd. Pinning fetches
            nothing (`chunkctl prefetch` does). It holds until `chunkctl unpin`, also over restarts.
            """)

    @Argument(help: ArgumentHelp("The image on this node, or its manifest's digest.", valueName: "REF"))
    var reference: String

    @OptionGroup var common: CommonOptions

    func run() async throws { try await setPinned(true, reference, common) }
}

struct UnpinCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unpin", abstract: "Let a pinned image be removed again when nothing uses it.",
        discussion: """
            EXAMPLES:
              chunkctl unpin registry.example/models/llama:1
            """)

    @Argument(help: ArgumentHelp("The image on this node, or its manifest's digest.", valueName: "REF"))
    var reference: String

    @OptionGroup var common: CommonOptions

    func run() async throws { try await setPinned(false, reference, common) }
}

private func setPinned(_ pinned: Bool, _ reference: String, _ common: CommonOptions) async throws {
    let reply = try await common.client().pin(PinRequest(reference: reference, pinned: pinned))
    try Console.show(reply, as: common.output) {
        "\(reply.pinned ? "pinned" : "unpinned") \(reply.reference) (\(reply.manifestDigest.short))"
    }
}
