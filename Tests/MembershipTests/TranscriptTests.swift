import ChunkModel
import FoundationEssentials
import Membership
import Testing

/// Transcripts: commands, and behind a line of dashes everything the nodes did. They are read by people to see how the
/// protocol goes, and compared byte for byte. After a change that is meant: CHUNKD_REGENERATE_TRANSCRIPTS=1, and look at
/// the difference.
@Suite struct TranscriptTests {
    private static let directory = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Transcripts")

    private static let names = [
        "join", "death", "refutation", "forged-dead", "indirect-probe", "leave", "restart-with-earlier-clock",
        "partition", "content", "anti-entropy",
    ]

    @Test(arguments: names) func transcriptHolds(_ name: String) throws {
        let file = Self.directory.appending(path: "\(name).txt")
        let expected = try String(contentsOf: file, encoding: .utf8)
        let actual = try Self.replay(expected)
        if ProcessInfo.processInfo.environment["CHUNKD_REGENERATE_TRANSCRIPTS"] != nil {
            try actual.write(to: file, atomically: true, encoding: .utf8)
            return
        }
        let pairs = zip(actual.split(separator: "\n"), expected.split(separator: "\n"))
        if let difference = pairs.first(where: { $0 != $1 }) {
            Issue.record("\(name): now \"\(difference.0)\", expected \"\(difference.1)\"")
        }
        #expect(actual == expected)
    }

    /// Runs the commands of a transcript and writes it anew.
    private static func replay(_ text: String) throws -> String {
        var world = World()
        var output: [String] = []
        var isResult = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line == "----" {
                isResult = true
                continue
            }
            // An empty line ends what a command did.
            if isResult {
                if line.isEmpty { isResult = false }
                continue
            }
            output.append(String(line))
            if line.isEmpty || line.hasPrefix("#") { continue }
            try perform(line.split(separator: " ").map(String.init), &world)
            if !world.log.isEmpty {
                output += ["----"] + world.log + [""]
                world.log = []
            }
        }
        while output.last?.isEmpty ?? false { output.removeLast() }
        return output.joined(separator: "\n") + "\n"
    }

    private static func perform(_ words: [String], _ world: inout World) throws {
        let rest = Array(words.dropFirst())
        func number(_ at: Int) throws -> UInt64 { try #require(rest.count > at ? UInt64(rest[at]) : nil) }
        switch words[0] {
        // All know one another.
        case "nodes": try world.addKnown(rest)
        // cold NAME SEED…
        case "cold": try world.addCold(rest[0], seeds: Array(rest.dropFirst()))
        // restart NAME CLOCK SEED…
        case "restart": try world.restart(rest[0], clock: try number(1), seeds: Array(rest.dropFirst(2)))
        // run MILLISECONDS: all that happens. skip MILLISECONDS: only what nodes come to believe.
        case "run", "skip":
            world.logsFrames = words[0] == "run"
            world.run(for: .milliseconds(Int64(try number(0))))
            world.logsFrames = true
        case "stop": world.stop(rest[0])
        // cut A B: what A sends to B is lost.
        case "cut": world.cut(rest[0], rest[1])
        case "heal": world.heal()
        case "leave": world.act(rest[0], .leave)
        // publish NODE BLOB PAYLOAD, or gone
        case "publish":
            let blob = try #require(WireID(rawBytes: [UInt8](repeating: UInt8(try number(1)), count: 32)))
            let payload = UInt8(rest[2])
            world.act(rest[0], .publish(blob: blob, isGone: payload == nil, payload: payload.map { [$0] } ?? []))
        // forge-dead LIAR VICTIM INCARNATION RECEIVER: the liar tells the receiver that the victim is dead.
        case "forge-dead":
            let liar = try World.name(rest[0])
            let item = GossipItem.dead(try World.name(rest[1]), incarnation: try number(2), accuser: liar)
            world.act(rest[3], .received(GossipFrame(items: [item]), from: liar))
        default: Issue.record("unknown command \(words[0])")
        }
    }
}
