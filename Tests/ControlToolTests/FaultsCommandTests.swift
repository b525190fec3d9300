import ChunkModel
import ControlAPI
@testable import ControlTool
import Testing

@Suite struct FaultsCommandTests {
    @Test func whoIsBlockedOnWhatIsATable() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("faults", "--socket", agent.socket)
        #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
        let lines = run.output.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        #expect(
            lines[0] == ["PID", "COMMAND", "CONTAINER", "IMAGE", "CHUNK", "BLOCKED", "STEP", "SOURCE", "FOR", "ASKED"])
        #expect(
            lines[1] == [
                "4711", "llama", String(ScriptedAgent.digest.hex.prefix(12)), "r.example/a:1", "17", "12", "s",
                "fetching", "registry/r.example", "(attempt", "3)", "250", "ms", "peer/b,", "registry/r.example",
            ])
        #expect(lines[2] == ["-", "-", "-", "-", "18", "100", "ms", "describing", "-", "-", "-"])
        #expect(run.output.hasSuffix("and more: these have waited longest\n"))
        let json = try await ChunkctlRun.run("faults", "--socket", agent.socket, "-o", "json").json()
        #expect(json["apiVersion"] as? String == "chunkd/v1")
        #expect((json["blocked"] as? [[String: Any]])?.first?["pid"] as? Int == 4711)
        await agent.end()
    }

    @Test func nobodyBlockedIsSaidSo() async throws {
        let agent = try await ScriptedAgent(integrityGap: true)
        let run = try await ChunkctlRun.run("faults", "--socket", agent.socket)
        #expect(run.status == 0 && run.output == "no reader is blocked\n")
        await agent.end()
    }

    @Test func eventsAreATableAndNumbersAreForPrograms() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("events", "--socket", agent.socket)
        #expect(run.status == 0, "\(run.errors)")
        #expect(
            run.output == """
                TIME                  EVENT            TIMES  WHAT           DETAIL
                2025-11-21T21:20:00Z  mounted              1  r.example/a:1
                2025-11-21T21:20:01Z  peerQuarantined      3  b              wrong bytes

                """)
        let json = try await ChunkctlRun.run("events", "--socket", agent.socket, "-o", "json").json()
        #expect(json["last"] as? Int == 2)
        await agent.end()
    }

    @Test func followingShowsEachEventOnceUntilChunkdGoes() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("events", "--follow", "--socket", agent.socket)
        #expect(run.status == 1 && run.errors == "chunkctl: chunkd has gone\n", "\(run.errors)")
        #expect(
            run.output == """
                2025-11-21T21:20:00Z mounted r.example/a:1
                2025-11-21T21:20:01Z peerQuarantined (3 times) b: wrong bytes
                2025-11-21T21:20:02Z peerLeft c

                """)
        #expect(agent.asked == ["events all", "events 2", "events 3"])
        await agent.end()
    }

    @Test func ratesAreDifferencesBySeconds() async throws {
        var before = StatReply()
        before.uptimeSeconds = 10
        before.reads.bytesRead = 1 << 20
        before.reads.hits = 100
        before.sources = [SourceStat(source: "peer", chunks: 5, bytes: 1000, errors: 1)]
        var after = before
        after.uptimeSeconds = 14
        after.reads.bytesRead = 5 << 20
        after.reads.hits = 102
        after.reads.blockedReaders = 3
        after.sources[0].bytes = 9000
        after.sources.append(SourceStat(source: "registry/r", chunks: 4, bytes: 400, errors: 2))
        var peer = PeerSummary(name: "b", state: "alive", zone: "", address: "10.0.0.2:4710", version: "1")
        peer.sentBytes = 100
        let first = Look(stat: before, peers: PeersReply(enabled: true, node: "a", peers: [peer]))
        peer.sentBytes = 500
        let second = Look(stat: after, peers: PeersReply(enabled: true, node: "a", peers: [peer]))
        let rates = RatesOutput(from: first, to: second)
        #expect(rates.seconds == 4 && rates.readBytesPerSecond == Double(1 << 20) && rates.hitsPerSecond == 0.5)
        #expect(rates.sources.map(\.bytesPerSecond) == [2000, 100] && rates.sources.map(\.errors) == [0, 2])
        #expect(rates.sentBytesPerSecond == 100 && rates.peers == ["alive": 1] && rates.blockedReaders == 3)
        // A chunkd that was started anew counts from nothing.
        var anew = second
        anew.stat.uptimeSeconds = 2
        #expect(RatesOutput(from: second, to: anew).readBytesPerSecond == Double(5 << 20) / 2)
        #expect(TopText.text(rates).contains("reads:            1.0 MiB/s") || TopText.text(rates).contains("1 MiB/s"))
    }

    @Test func topWithoutATerminalLooksTwiceAndEnds() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("top", "--socket", agent.socket)
        #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
        #expect(run.output.contains("registry/r.example") && run.output.contains("1 alive"), "\(run.output)")
        let json = try await ChunkctlRun.run("top", "--socket", agent.socket, "-o", "json").json()
        #expect(json["apiVersion"] as? String == "chunkd/v1" && json["blockedReaders"] as? Int == 0)
        await agent.end()
    }
}
