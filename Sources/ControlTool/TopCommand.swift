import ArgumentParser
import ControlAPI
import Glibc

struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Show what is read and fetched now, as rates.",
        discussion: """
            EXAMPLES:
              chunkctl top
              chunkctl top --once
              chunkctl top -o json | jq '.sources[] | select(.bytesPerSecond > 0)'

            Redraws every two seconds on a terminal until interrupted. With --once, with -o json, and where standard
            output is no terminal, it looks twice, a second apart, and shows that once.
            """)

    @Flag(help: "Show it once.")
    var once = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let client = try common.client()
        let isLive = !once && common.output == .table && Console.isTerminal(STDOUT_FILENO)
        var before = Look(stat: try await client.stat(), peers: try await client.peers())
        repeat {
            try await Task.sleep(for: isLive ? .seconds(2) : .seconds(1))
            let after = Look(stat: try await client.stat(), peers: try await client.peers())
            let rates = RatesOutput(from: before, to: after)
            if isLive { Console.clear() }
            try Console.show(rates, as: common.output) { TopText.text(rates) }
            before = after
        } while isLive
    }
}

/// What chunkd says at one moment.
struct Look {
    var stat: StatReply
    var peers: PeersReply

    var sentBytes: UInt64 { peers.peers.reduce(0) { $0 + $1.sentBytes } }
}

/// `chunkctl top -o json`: what happened between two looks, a second.
struct RatesOutput: Encodable, Equatable {
    struct Source: Encodable, Equatable {
        var source: String
        var bytesPerSecond: Double
        var chunksPerSecond: Double
        var errors: UInt64
    }

    var apiVersion = ControlVersion.current
    var seconds: Double
    var gateConnected: Bool
    var readBytesPerSecond: Double
    var hitsPerSecond: Double
    var missesPerSecond: Double
    var failedReadsPerSecond: Double
    var blockedReaders: UInt64
    var oldestBlockedSeconds: Double
    var sentBytesPerSecond: Double
    var sources: [Source]
    /// Members of the cluster by state, this one left out.
    var peers: [String: Int]

    init(from first: Look, to second: Look) {
        let (before, after) = (first.stat, second.stat)
        // chunkd was started anew between: everything since then.
        let isNew = after.uptimeSeconds < before.uptimeSeconds
        let base = isNew ? StatReply() : before
        let span = max(0.001, after.uptimeSeconds - (isNew ? 0 : before.uptimeSeconds))
        func rate(_ now: UInt64, _ then: UInt64) -> Double { now > then ? Double(now - then) / span : 0 }
        seconds = span
        gateConnected = after.gateConnected
        readBytesPerSecond = rate(after.reads.bytesRead, base.reads.bytesRead)
        hitsPerSecond = rate(after.reads.hits, base.reads.hits)
        missesPerSecond = rate(after.reads.misses, base.reads.misses)
        failedReadsPerSecond = rate(after.reads.denied, base.reads.denied)
        blockedReaders = after.reads.blockedReaders
        oldestBlockedSeconds = after.reads.oldestBlockedSeconds
        sentBytesPerSecond = rate(second.sentBytes, isNew ? 0 : first.sentBytes)
        sources = after.sources.map { source in
            let old = base.sources.first { $0.source == source.source }
            return Source(
                source: source.source, bytesPerSecond: rate(source.bytes, old?.bytes ?? 0),
                chunksPerSecond: rate(source.chunks, old?.chunks ?? 0),
                errors: source.errors - min(source.errors, old?.errors ?? 0))
        }
        peers = Dictionary(grouping: second.peers.peers.filter { $0.state != "self" }, by: \.state).mapValues(\.count)
    }
}

/// `chunkctl top` for people.
enum TopText {
    static func text(_ rates: RatesOutput) -> String {
        let blocked =
            rates.blockedReaders == 0
            ? "none" : "\(rates.blockedReaders), oldest \(Table.seconds(rates.oldestBlockedSeconds))"
        let peers = rates.peers.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        let pairs = [
            ("chunkgate", rates.gateConnected ? "connected" : "AWAY"),
            ("reads", bytes(rates.readBytesPerSecond)),
            ("hits", perSecond(rates.hitsPerSecond)),
            ("misses", perSecond(rates.missesPerSecond)),
            ("failed reads", perSecond(rates.failedReadsPerSecond)),
            ("blocked readers", blocked),
            ("peers", peers.isEmpty ? "none" : peers),
            ("sent to peers", bytes(rates.sentBytesPerSecond)),
        ]
        guard !rates.sources.isEmpty else { return Table.pairs(pairs) }
        let rows = rates.sources.map {
            [$0.source, bytes($0.bytesPerSecond), perSecond($0.chunksPerSecond), "\($0.errors)"]
        }
        return Table.pairs(pairs) + "\n\n"
            + Table.render(header: ["SOURCE", "BYTES", "CHUNKS", "ERRORS"], rows: rows, right: [1, 2, 3])
    }

    private static func bytes(_ rate: Double) -> String { Table.bytes(UInt64(rate)) + "/s" }
    private static func perSecond(_ rate: Double) -> String { Table.ratio(rate) + "/s" }
}
