import ArgumentParser
import ChunkModel
import ControlAPI
import Glibc

struct FaultsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "faults",
        abstract: "Show who is blocked on what right now, and what is done about it.",
        discussion: """
            EXAMPLES:
              chunkctl faults
              chunkctl faults --watch
              chunkctl faults -o json | jq '.blocked[] | select(.blockedSeconds > 5)'

            BLOCKED is how long the reader waits, FOR how long the request to SOURCE has taken, ASKED whom the chunk was
            asked of so far. STEP: locating (who has it?), queued, fetching, backingOff (until the next attempt),
            waitingForPeers (they are busy), copying, writing, makingRoom (the disk is full), describing (nothing is known
            of the blob yet). COMMAND and CONTAINER need chunkd to see the readers' /proc.
            """)

    @Flag(help: "Show again every two seconds until interrupted.")
    var watch = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let client = try common.client()
        try await Console.show(again: watch, as: common.output, client.faults) { FaultsText.text($0) }
    }
}

/// `chunkctl faults` for people.
enum FaultsText {
    /// Characters of a container's id, as container engines show them.
    private static let containerLength = 12

    static func text(_ reply: FaultsReply) -> String {
        guard !reply.blocked.isEmpty else { return "no reader is blocked" }
        let rows = reply.blocked.map { reader in
            [
                reader.pid == 0 ? "-" : "\(reader.pid)", reader.command ?? "-",
                reader.container.map { String($0.prefix(containerLength)) } ?? "-",
                reader.image ?? reader.blob?.short ?? "-",
                "\(reader.chunk)", Table.seconds(reader.blockedSeconds), reader.step, source(reader),
                reader.sourceSeconds.map(Table.seconds) ?? "-",
                reader.asked.isEmpty ? "-" : reader.asked.joined(separator: ", "),
            ]
        }
        let table = Table.render(
            header: ["PID", "COMMAND", "CONTAINER", "IMAGE", "CHUNK", "BLOCKED", "STEP", "SOURCE", "FOR", "ASKED"],
            rows: rows, right: [0, 4, 5, 8])
        return reply.isCut ? table + "\n\nand more: these have waited longest" : table
    }

    private static func source(_ reader: BlockedReader) -> String {
        let first = reader.source ?? "-"
        let attempts = reader.attempts > 1 ? " (attempt \(reader.attempts))" : ""
        return first + attempts + (reader.secondSource.map { " and \($0)" } ?? "")
    }
}
