import Testing

@Suite struct LimitsCommandTests {
    @Test func withoutOptionsItShowsWhatIsInForce() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("limits", "--socket", agent.socket)
        #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
        #expect(
            run.output == """
                download:         none
                registry:         100MiB/s
                prefetch:         none
                upload:           none
                upload per peer:  none

                """)
        #expect(agent.asked == ["limits"])
        await agent.end()
    }

    @Test func itChangesWhatIsNamed() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run(
            "limits", "--download", "50MiB/s", "--registry", "none", "--prefetch", "1536KiB/s", "--upload-per-peer",
            "7B/s", "--socket", agent.socket, "-o", "json")
        #expect(run.status == 0, "\(run.errors)")
        let json = try run.json()
        #expect(json["apiVersion"] as? String == "chunkd/v1")
        #expect(json["downloadBytesPerSecond"] as? Int == 50 << 20)
        #expect(json["registryBytesPerSecond"] == nil)
        #expect(json["prefetchBytesPerSecond"] as? Int == 1536 << 10)
        #expect(json["uploadPerPeerBytesPerSecond"] as? Int == 7)
        #expect(agent.asked == ["limits changed"])
        await agent.end()
    }

    @Test(arguments: [
        ("--download", "fast"), ("--registry", "50MB/s"), ("--prefetch", "0"), ("--upload", "10MiB"),
        ("--upload-per-peer", "-1B/s"), ("--download", "5B/s"), ("--registry", "1023KiB/s"),
    ])
    func aBadRateExits2AndNamesItsOption(option: String, rate: String) async throws {
        let run = try await ChunkctlRun.run("limits", "\(option)=\(rate)", "--socket", "/nonexistent/c.sock")
        #expect(run.status == 2 && run.output.isEmpty)
        #expect(run.errors.contains("\(option): expected ") && run.errors.contains(rate), "\(run.errors)")
    }

    @Test func whatChunkdRefusesIsSaid() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("limits", "--upload", "1MiB/s", "--socket", agent.socket)
        #expect(run.status == 1 && run.errors == "chunkctl: no peers\n  certificates\n", "\(run.errors)")
        await agent.end()
    }
}
