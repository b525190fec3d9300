import ArgumentParser
import ControlAPI
import Glibc

struct PeersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peers",
        abstract: "List the nodes of the cluster as this one sees them.",
        discussion: """
            EXAMPLES:
              chunkctl peers
              chunkctl peers --watch
              chunkctl peers -o json | jq -r '.peers[] | select(.state == "alive") | .name'

            RECEIVED and SENT are chunk bytes since chunkd started. HOLDS counts blobs: complete/partial/registered.
            SCORE is 1 for a peer that answers as expected or better, 0 for one that is not asked. -o json has
            the identity its certificate must have, throughput, requests and failures as well.
            """)

    @Flag(help: "Show again every two seconds until interrupted.")
    var watch = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let client = try common.client()
        try await Console.show(again: watch, as: common.output, client.peers) { PeersText.text($0) }
    }
}

/// `chunkctl peers` for people.
enum PeersText {
    static func text(_ reply: PeersReply) -> String {
        guard reply.enabled else {
            return "no peers: chunkd has no certificate (cluster.certFile, docs/operations.md \"Cluster\")"
        }
        let rows = reply.peers.map { peer in
            [
                peer.name, peer.state, peer.zone.isEmpty ? "-" : peer.zone, peer.address, peer.version,
                peer.roundTripSeconds.map(Table.seconds) ?? "-", Table.bytes(peer.receivedBytes),
                Table.bytes(peer.sentBytes),
                "\(peer.completeBlobs)/\(peer.partialBlobs)/\(peer.registeredBlobs)",
                peer.score.map(Table.ratio) ?? "-", note(peer),
            ]
        }
        return Table.render(
            header: [
                "NODE", "STATE", "ZONE", "ADDRESS", "VERSION", "RTT", "RECEIVED", "SENT", "HOLDS", "SCORE", "NOTE",
            ],
            rows: rows, right: [5, 6, 7, 9])
    }

    private static func note(_ peer: PeerSummary) -> String {
        if let reason = peer.quarantine {
            return "quarantined: \(reason), \(peer.quarantineSeconds.map(Table.seconds) ?? "-") left"
        }
        if let backOff = peer.backOffSeconds {
            return "\(peer.failures) failures, not asked for \(Table.seconds(backOff))"
        }
        return ""
    }
}
