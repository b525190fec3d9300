import ArgumentParser
import ChunkModel
import ControlAPI

struct PrefetchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prefetch", abstract: "Fetch all of an image, mounted or not.",
        discussion: """
            EXAMPLES:
              chunkctl prefetch registry.example/models/llama:1
            """)

    @Argument(help: "Image: HOST[:PORT]/NAME[:TAG][@DIGEST].")
    var reference: String

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let progress = ProgressLine(common.output)
        defer { progress.end() }
        let reply = try await common.client().prefetch(PrefetchRequest(reference: reference)) { progress.show($0.line) }
        progress.end()
        try Console.show(reply, as: common.output) {
            "complete: \(reply.chunks) chunks, \(reply.filledChunks) of them new, "
                + "\(Table.bytes(reply.fetchedBytes)) fetched in \(Table.seconds(reply.seconds))"
        }
    }
}

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Hash what is on disk of an image against its chunk indexes.",
        discussion: """
            EXAMPLES:
              chunkctl verify registry.example/models/llama:1
              chunkctl verify --repair registry.example/models/llama:1

            Exits 1 when chunks are bad and were not repaired.
            """)

    @Argument(help: "Image: HOST[:PORT]/NAME[:TAG][@DIGEST].")
    var reference: String

    @Flag(help: "Fetch bad chunks again.")
    var repair = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let progress = ProgressLine(common.output)
        defer { progress.end() }
        let request = VerifyRequest(reference: reference, repair: repair)
        let reply = try await common.client().verify(request) { progress.show($0.line) }
        progress.end()
        try Console.show(reply, as: common.output) {
            var lines = [
                "\(reply.checkedChunks) chunks checked, \(reply.absentChunks) not here yet, \(reply.badChunks) bad, "
                    + "\(reply.repairedChunks) repaired, \(Table.seconds(reply.seconds))"
            ]
            if !reply.bad.isEmpty {
                let rows = reply.bad.map { [$0.blob.short, "\($0.chunk)", $0.repaired ? "repaired" : "bad"] }
                lines.append(Table.render(header: ["BLOB", "CHUNK", "STATE"], rows: rows, right: [1]))
            }
            return lines.joined(separator: "\n")
        }
        if reply.repairedChunks < reply.badChunks {
            throw ToolError(
                "integrity", "\(reply.badChunks - reply.repairedChunks) chunks of \(reference) are bad on disk",
                hint: repair ? "see chunkd's log for why they could not be fetched" : "run it again with --repair")
        }
    }
}

struct GarbageCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gc", abstract: "Remove images that nothing uses.",
        discussion: """
            EXAMPLES:
              chunkctl gc --dry-run
              chunkctl gc

            Mounted and pinned images stay.
            """)

    @Flag(help: "Show what would be removed, remove nothing.")
    var dryRun = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let reply = try await common.client().collectGarbage(GarbageRequest(dryRun: dryRun))
        try Console.show(reply, as: common.output) {
            let verb = reply.dryRun ? "would free" : "freed"
            let total = "\(verb) \(Table.bytes(reply.freedBytes)) of \(reply.removed.count) images"
            if reply.removed.isEmpty { return total }
            let rows = reply.removed.map { item in
                [item.references.first ?? "-", item.manifestDigest.short, Table.bytes(item.freedBytes)]
            }
            return Table.render(header: ["IMAGE", "DIGEST", "SIZE"], rows: rows, right: [2]) + "\n" + total
        }
    }
}
