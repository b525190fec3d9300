import ArgumentParser
import ChunkModel
import ControlAPI

struct ExplainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", abstract: "Show where chunks would come from, and why.",
        discussion: """
            EXAMPLES:
              chunkctl explain registry.example/models/llama:1
              chunkctl explain sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
              chunkctl explain -o json registry.example/models/llama:1 | jq '.blobs[].sources'

            Takes an image by reference or manifest digest, a blob by digest, or a chunk by digest. Of an image or blob
            the first chunk that is not here is looked at. Nothing is fetched, no peer is asked.
            """)

    @Argument(help: "Image, or digest of an image, blob or chunk.")
    var subject: String

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let reply = try await common.client().explain(ExplainRequest(subject: subject))
        try Console.show(reply, as: common.output) { ExplainText.text(reply) }
    }
}

/// `chunkctl explain` for people.
enum ExplainText {
    static func text(_ reply: ExplainReply) -> String {
        reply.blobs.map(blob).joined(separator: "\n\n")
    }

    private static func blob(_ blob: ExplainedBlob) -> String {
        var pairs = [
            ("blob", "\(blob.blob)"),
            ("here", "\(blob.residentChunks) of \(blob.chunks) chunks"),
            ("sharing", sharing(blob)),
        ]
        if !blob.trackers.isEmpty { pairs.append(("trackers", blob.trackers.joined(separator: ", "))) }
        if blob.wireID != nil { pairs.append(("interested", "\(blob.interestedNodes) other nodes")) }
        var chunk = "\(blob.chunk)"
        if let bytes = blob.chunkBytes { chunk += ", \(Table.bytes(bytes))" }
        if let segment = blob.segment { chunk += ", segment \(segment)" }
        pairs.append(("chunk", chunk))
        if let digest = blob.chunkDigest { pairs.append(("chunk digest", "\(digest)")) }
        var parts = [Table.pairs(pairs)]
        if !blob.holders.isEmpty {
            let rows = blob.holders.map { holder in
                [
                    holder.node, holder.zone.isEmpty ? "-" : holder.zone, holder.state, Table.ratio(holder.likelihood),
                    holder.passedOver ?? "",
                ]
            }
            parts.append(
                Table.render(header: ["NODE", "ZONE", "SAYS", "HAS IT", "NOT ASKED"], rows: rows, right: [3]))
        }
        let rows = blob.sources.enumerated().map { ["\($0 + 1)", $1.source, $1.why] }
        parts.append(Table.render(header: ["ORDER", "SOURCE", "WHY"], rows: rows, right: [0]))
        return parts.joined(separator: "\n\n")
    }

    private static func sharing(_ blob: ExplainedBlob) -> String {
        switch blob.sharing {
        case "public": "with every node of the cluster"
        case "manifest": "with nodes that could pull the manifest"
        default: "with nobody"
        }
    }
}

struct DrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "Leave the cluster gracefully.",
        discussion: """
            EXAMPLES:
              chunkctl drain
              chunkctl drain --no-hydrate

            chunkd serves peers no more, fetches what the mounted images lack, and tells the others that it leaves. Mounted
            images go on working. chunkd joins again when it is restarted. Exits 1 when chunks could not be had.
            """)

    @Flag(inversion: .prefixedNo, help: "Fetch what mounted images lack before leaving.")
    var hydrate = true

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let progress = ProgressLine(common.output)
        defer { progress.end() }
        let reply = try await common.client().drain(DrainRequest(hydrate: hydrate)) { progress.show($0.line) }
        progress.end()
        try Console.show(reply, as: common.output) {
            let fetched = "\(reply.images) mounted images, \(reply.filledChunks) chunks fetched"
            let told = reply.announced ? "the cluster knows that this node leaves" : "this node has no peers"
            return "\(fetched); \(told); \(Table.seconds(reply.seconds))"
        }
        if reply.missingChunks > 0 {
            throw ToolError(
                "unreachable", "\(reply.missingChunks) chunks of mounted images could not be had",
                hint: "their readers need the registry: see chunkctl stat and chunkd's log")
        }
    }
}
