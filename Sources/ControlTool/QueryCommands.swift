import ArgumentParser
import ChunkModel
import ControlAPI
import Glibc
import Settings

struct ImagesCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "images",
        abstract: "List the images on this node and how much of each is here.",
        discussion: """
            EXAMPLES:
              chunkctl images
              chunkctl images -o json | jq -r '.images[].references[]'
            """)

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let reply = try await common.client().images()
        try Console.show(reply, as: common.output) { ImagesText.table(reply.images) }
    }
}

/// The table of images, in `images` and `stat`.
enum ImagesText {
    static func table(_ images: [ImageSummary]) -> String {
        let rows = images.map { image in
            [
                image.references.first ?? "-", image.manifestDigest.short, state(of: image),
                Table.bytes(image.rawBytes),
                Table.bytes(image.residentBytes), Table.percent(image.residentChunks, of: image.chunks),
            ]
        }
        return Table.render(
            header: ["IMAGE", "DIGEST", "STATE", "SIZE", "HERE", "%"], rows: rows, right: [3, 4, 5])
    }

    private static func state(of image: ImageSummary) -> String {
        if image.tainted { return "TAINTED" }
        if image.quarantined { return "QUARANTINED" }
        let complete = !image.blobs.isEmpty && image.blobs.allSatisfy(\.graduated)
        return (image.mounted ? "mounted" : "cached") + (complete ? ", complete" : "")
            + (image.pinned ? ", pinned" : "")
    }
}

struct StatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stat",
        abstract: "Show what readers asked for, what was fetched and from where.",
        discussion: """
            EXAMPLES:
              chunkctl stat
              chunkctl stat --watch
              chunkctl stat -o json | jq .reads.misses

            Exits 1 when readers may have seen wrong data (docs/operations.md, "Tainted mounts").
            """)

    @Flag(help: "Show again every two seconds until interrupted.")
    var watch = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let client = try common.client()
        let reply = try await Console.show(again: watch, as: common.output, client.stat) { StatText.text($0) }
        if reply.integrity.integrityGap {
            throw ToolError(
                "integrity", "readers of the images marked TAINTED may have seen zeros",
                hint: "stop their users, unmount and mount them again: docs/operations.md, \"Tainted mounts\"")
        }
    }
}

/// `chunkctl stat` for people.
enum StatText {
    static func text(_ stat: StatReply) -> String {
        var parts = [Table.pairs(summary(stat))]
        if !stat.sources.isEmpty {
            let rows = stat.sources.map { source in
                [
                    source.source, "\(source.chunks)", Table.bytes(source.bytes), "\(source.errors)",
                    source.p50Seconds.map(Table.seconds) ?? "-", source.p99Seconds.map(Table.seconds) ?? "-",
                ]
            }
            parts.append(
                Table.render(
                    header: ["SOURCE", "CHUNKS", "BYTES", "ERRORS", "P50", "P99"], rows: rows, right: [1, 2, 3, 4, 5]))
        }
        if let mirror = stat.mirror { parts.append(Table.pairs(self.mirror(mirror))) }
        if !stat.images.isEmpty { parts.append(ImagesText.table(stat.images)) }
        if !stat.errors.isEmpty {
            parts.append(
                Table.render(
                    header: ["ERROR", "COUNT"], rows: stat.errors.map { [$0.reason, "\($0.count)"] }, right: [1]))
        }
        if !stat.integrity.quarantined.isEmpty {
            let rows = stat.integrity.quarantined.map { [$0.kind, $0.name, $0.reason] }
            parts.append(Table.render(header: ["QUARANTINED", "NAME", "REASON"], rows: rows))
        }
        return parts.joined(separator: "\n\n")
    }

    private static func mirror(_ stat: MirrorStat) -> [(String, String)] {
        let from = [
            Table.bytes(stat.bytesFromPeers) + " from peers",
            Table.bytes(stat.bytesFromRegistries) + " from registries",
            Table.bytes(stat.bytesFromCache) + " from this disk",
        ]
        return [
            ("mirror: layers given", from.joined(separator: ", ")),
            ("mirror: given to peers", Table.bytes(stat.bytesToPeers)),
            ("mirror: left to the registry", "\(stat.failures)"),
            ("mirror: on disk", "\(Table.bytes(stat.cacheBytes)) of \(Table.bytes(stat.quotaBytes))"),
        ]
    }

    private static func summary(_ stat: StatReply) -> [(String, String)] {
        let reads = stat.reads
        let latency = reads.missP50Seconds.map { p50 in
            ", p50 \(Table.seconds(p50)), p99 \(reads.missP99Seconds.map(Table.seconds) ?? "-")"
        }
        let blocked =
            reads.blockedReaders == 0
            ? "none" : "\(reads.blockedReaders), oldest \(Table.seconds(reads.oldestBlockedSeconds))"
        let gate = stat.gateConnected ? "connected" : "AWAY"
        let harm = stat.integrity
        let quota = stat.quotaBytes == 0 ? "" : " of \(Table.bytes(stat.quotaBytes))"
        return [
            ("up", Table.seconds(stat.uptimeSeconds)),
            ("chunkgate", gate + (stat.gateRestarts == 0 ? "" : ", restarted \(stat.gateRestarts) times")),
            ("bytes read", Table.bytes(reads.bytesRead)),
            ("bytes fetched", Table.bytes(stat.bytesFetched)),
            ("offload ratio", stat.offloadRatio.map { Table.ratio($0) + " of the chunks not from a registry" } ?? "-"),
            ("hits", "\(reads.hits)"),
            ("misses", "\(reads.misses)" + (latency ?? "")),
            ("blocked readers", blocked),
            ("failed reads", "\(reads.denied)"),
            ("graduated blobs", "\(stat.graduatedBlobs)"),
            ("cache", Table.bytes(stat.cacheBytes) + quota),
            ("memory", Table.bytes(stat.agentMemoryBytes)),
            ("content index", "\(stat.indexBlobs) blobs, \(Table.bytes(stat.indexBytes))"),
            ("wrong bytes refused", "\(harm.mismatches)"),
            ("verify failures", "\(harm.verifyFailures)"),
            ("self events", "\(harm.selfEvents)"),
            (
                "integrity gap",
                harm.integrityGap ? "YES" : "no" + (harm.integrityGaps == 0 ? "" : " (\(harm.integrityGaps) ever)")
            ),
        ]
    }
}

struct VersionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Show the versions of chunkctl and chunkd.",
        discussion: """
            EXAMPLES:
              chunkctl version
              chunkctl version -o json
            """)

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let client = try common.client()
        var output = VersionOutput(chunkctl: chunkdVersion)
        // Works without chunkd too: it is the first thing people try.
        do throws(ControlError) {
            let reply = try await client.version()
            output.chunkd = reply.version
            output.gateProtocol = reply.gateProtocol
            output.gateConnected = reply.gateConnected
        } catch { output.unreachable = error.message }
        try Console.show(output, as: common.output) {
            let agent = output.chunkd.map { "\($0), chunkgate \(output.gateConnected == true ? "connected" : "away")" }
            return Table.pairs([("chunkctl", output.chunkctl), ("chunkd", agent ?? "not reached")])
        }
    }
}

/// `chunkctl version -o json`.
private struct VersionOutput: Encodable {
    var apiVersion = ControlVersion.current
    var chunkctl: String
    var chunkd: String?
    var gateProtocol: Int?
    var gateConnected: Bool?
    /// Why chunkd did not answer.
    var unreachable: String?
}

struct GateOptionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gate-options", abstract: "Print the options that start chunkgate with this configuration.",
        discussion: """
            chunkgate reads no file. Its unit starts it with what this prints.

            EXAMPLES:
              exec chunkgate $(chunkctl gate-options)
            """)

    @OptionGroup var common: CommonOptions

    func run() throws {
        let settings = try common.settings()
        try Console.show(settings.gateArguments, as: common.output) { settings.gateArguments.joined(separator: " ") }
    }
}

struct CompletionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completions", abstract: "Print the completion script of a shell.",
        discussion: """
            EXAMPLES:
              chunkctl completions bash > /usr/share/bash-completion/completions/chunkctl
              chunkctl completions zsh > /usr/share/zsh/site-functions/_chunkctl
              chunkctl completions fish > ~/.config/fish/completions/chunkctl.fish
            """)

    enum Shell: String, ExpressibleByArgument, CaseIterable {
        case bash, zsh, fish
    }

    @Argument(help: "bash, zsh or fish.")
    var shell: Shell

    func run() throws {
        let known: CompletionShell =
            switch shell {
            case .bash: .bash
            case .zsh: .zsh
            case .fish: .fish
            }
        Console.write(Chunkctl.completionScript(for: known))
    }
}
