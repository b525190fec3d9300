import ChunkModel
import Foundation
import Testing

@Suite struct ChunkctlUsageTests {
    static let commands = [
        "image", "image build", "image inspect", "mount", "umount", "images", "stat", "peers", "faults", "events",
        "spans", "top", "explain", "drain", "limits", "pki", "prefetch", "verify", "pin", "unpin", "gc", "doctor",
        "support-bundle", "version", "gate-options", "completions",
    ]

    @Test(arguments: commands)
    func everyCommandHasHelpWithExamples(command: String) async throws {
        let run = try await ChunkctlRun.run(command.split(separator: " ").map(String.init) + ["--help"])
        #expect(run.status == 0)
        let example = command == "gate-options" ? "  exec chunkgate $(chunkctl gate-options)" : "  chunkctl \(command)"
        #expect(run.output.contains("EXAMPLES:\n\(example)"), "\(run.output)")
        #expect(run.errors.isEmpty)
    }

    @Test func wrongUsageExits2AndSaysHow() async throws {
        for run in [
            try await ChunkctlRun.run("frobnicate"), try await ChunkctlRun.run("mount", "onlyone"),
            try await ChunkctlRun.run("stat", "--output", "xml"), try await ChunkctlRun.run("stat", "--wach"),
            try await ChunkctlRun.run("mount", "--digest", "sha256:00", "a", "b"),
        ] {
            #expect(run.status == 2)
            #expect(run.errors.contains("Usage: chunkctl"), "\(run.errors)")
            #expect(run.output.isEmpty)
        }
    }

    @Test func aWrongConfigurationExits2AndNamesTheKey() async throws {
        let run = try await ChunkctlRun.run("images", environment: ["CHUNKD_FETCH_PARALLEL": "many"])
        #expect(run.status == 2)
        #expect(run.errors.contains("CHUNKD_FETCH_PARALLEL: fetch.parallel: expected a whole number"), "\(run.errors)")
        let missing = try await ChunkctlRun.run("stat", "--config", "/nonexistent.yaml")
        #expect(missing.status == 2 && missing.errors.contains("/nonexistent.yaml"))
    }

    @Test func withoutChunkdTheErrorSaysWhatToDo() async throws {
        let run = try await ChunkctlRun.run("images", "--socket", "/nonexistent/c.sock")
        #expect(run.status == 1)
        #expect(run.errors.contains("cannot reach chunkd at /nonexistent/c.sock"), "\(run.errors)")
        #expect(run.errors.contains("start chunkd"))
        let json = try await ChunkctlRun.run("images", "--socket", "/nonexistent/c.sock", "-o", "json")
        #expect(json.status == 1 && json.output.isEmpty)
        #expect(json.errors.hasPrefix(#"{"apiVersion":"chunkd/v1","error":{"code":"agentAway","#), "\(json.errors)")
        let version = try await ChunkctlRun.run("version", "--socket", "/nonexistent/c.sock")
        #expect(version.status == 0 && version.output.contains("not reached"))
    }

    @Test func completionsAndGateOptionsArePrinted() async throws {
        for shell in ["bash", "zsh", "fish"] {
            let run = try await ChunkctlRun.run("completions", shell)
            #expect(run.status == 0 && run.output.contains("chunkctl"), "\(shell)")
        }
        let options = try await ChunkctlRun.run("gate-options", environment: ["CHUNKD_SHARDS": "2"])
        #expect(options.output.contains("--shards 2 --deadline 30000ms"))
    }
}

@Suite struct ChunkctlAgentTests {
    @Test func tablesHaveNoColourAndJSONIsTheAPI() async throws {
        let agent = try await ScriptedAgent()
        let table = try await ChunkctlRun.run("images", "--socket", agent.socket)
        #expect(table.status == 0)
        #expect(
            table.output == """
                IMAGE          DIGEST        STATE     SIZE     HERE    %
                r.example/a:1  cdcdcdcdcdcd  mounted  1 GiB  256 MiB  25%

                """)
        let json = try await ChunkctlRun.run("images", "--socket", agent.socket, "-o", "json").json()
        #expect(json["apiVersion"] as? String == "chunkd/v1")
        let images = try #require(json["images"] as? [[String: Any]])
        #expect(images.first?["manifestDigest"] as? String == ScriptedAgent.digest.description)
        let stat = try await ChunkctlRun.run("stat", "--socket", agent.socket)
        #expect(stat.status == 0 && stat.output.contains("bytes read:           3 MiB\n"), "\(stat.output)")
        #expect(!stat.output.contains("\u{1B}"))
        let statJSON = try await ChunkctlRun.run("stat", "--socket", agent.socket, "-o", "json").json()
        #expect((statJSON["reads"] as? [String: Any])?["misses"] as? Int == 7)
        await agent.end()
    }

    @Test func anIntegrityGapIsShownAndExits1() async throws {
        let agent = try await ScriptedAgent(integrityGap: true)
        let run = try await ChunkctlRun.run("stat", "--socket", agent.socket)
        #expect(run.status == 1)
        #expect(run.output.contains("TAINTED") && run.errors.contains("may have seen zeros"))
        await agent.end()
    }

    @Test func explainSaysWhoWouldBeAskedInWhichOrder() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("explain", "r.example/a:1", "--socket", agent.socket)
        #expect(run.status == 0)
        #expect(
            run.output.hasSuffix(
                """
                here:          500 of 2000 chunks
                sharing:       with nodes that could pull the manifest
                trackers:      b, c
                interested:    2 other nodes
                chunk:         7, 512 KiB, segment 1
                chunk digest:  \(ScriptedAgent.digest)

                NODE  ZONE  SAYS      HAS IT  NOT ASKED
                b     z     partial     0.75
                c     -     complete    1.00  quarantined: wrong_bytes

                ORDER  SOURCE              WHY
                    1  b                   has it
                    2  registry/r.example  then

                """), "\(run.output)")
        let missing = try await ChunkctlRun.run("explain", "missing", "--socket", agent.socket)
        #expect(missing.status == 1 && missing.errors.contains("missing is nothing on this node"))
        await agent.end()
    }

    @Test func drainExits1WhenChunksAreLeft() async throws {
        let agent = try await ScriptedAgent()
        let short = try await ChunkctlRun.run("drain", "--socket", agent.socket)
        #expect(short.status == 1 && short.errors.contains("1 chunks of mounted images could not be had"))
        let done = try await ChunkctlRun.run("drain", "--no-hydrate", "--socket", agent.socket)
        #expect(done.status == 0)
        #expect(
            done.output == "1 mounted images, 3 chunks fetched; the cluster knows that this node leaves; 500 ms\n")
        await agent.end()
    }

    @Test func longCommandsShowPlainProgressOffATerminal() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("prefetch", "r.example/a:1", "--socket", agent.socket)
        #expect(run.status == 0)
        #expect(run.errors == "fetch 25% 1 MiB of 4 MiB\n")
        #expect(run.output == "complete: 4 chunks, 3 of them new, 3 MiB fetched in 2 s\n")
        let json = try await ChunkctlRun.run("prefetch", "r.example/a:1", "--socket", agent.socket, "-o", "json")
        #expect(json.errors.isEmpty)
        #expect(try json.json()["filledChunks"] as? Int == 3)
        await agent.end()
    }

    @Test func verifyExits1UnlessAllIsRepaired() async throws {
        let agent = try await ScriptedAgent()
        let bad = try await ChunkctlRun.run("verify", "r.example/a:1", "--socket", agent.socket)
        #expect(bad.status == 1)
        #expect(bad.output.contains("cdcdcdcdcdcd     17  bad") && bad.errors.contains("--repair"), "\(bad.output)")
        let repaired = try await ChunkctlRun.run("verify", "--repair", "r.example/a:1", "--socket", agent.socket)
        #expect(repaired.status == 0 && repaired.errors.isEmpty)
        await agent.end()
    }

    @Test func pinAndUnpinSayWhatIsPinned() async throws {
        let agent = try await ScriptedAgent()
        for command in ["pin", "unpin"] {
            let run = try await ChunkctlRun.run(command, "r.example/a:1", "--socket", agent.socket)
            #expect(run.status == 0 && run.output == "\(command)ned r.example/a:1 (\(ScriptedAgent.digest.short))\n")
        }
        #expect(try await ChunkctlRun.run("pin", "--socket", agent.socket).status == 2)
    }

    @Test func gcSaysWhatItWouldDo() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("gc", "--dry-run", "--socket", agent.socket)
        #expect(run.status == 0 && run.output.hasSuffix("would free 5 MiB of 1 images\n"), "\(run.output)")
        await agent.end()
    }

    @Test func doctorExits1WhenAnythingFailsAndSaysWhatToDo() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("doctor", "--socket", agent.socket)
        #expect(run.status == 1)
        #expect(run.output.contains("ok      chunkd"), "\(run.output)")
        #expect(run.output.contains("registry r.example: check the network"))
        let checks = try await ChunkctlRun.run("doctor", "--socket", agent.socket, "-o", "json").json()["checks"]
        let names = (checks as? [[String: Any]])?.compactMap { $0["name"] as? String }
        #expect(names?.contains("fanotify") == true && names?.last == "registry r.example")
        await agent.end()
    }

    @Test func mountRefusesBeforeItAsks() async throws {
        let agent = try await ScriptedAgent()
        let run = try await ChunkctlRun.run("mount", "r.example/a:1", "/nonexistent/dir", "--socket", agent.socket)
        #expect(run.status == 1 && run.errors.contains("mkdir -p /nonexistent/dir"), "\(run.errors)")
        #expect(agent.asked.isEmpty)
        let missing = try await ChunkctlRun.run("mount", "missing", agent.directory, "--socket", agent.socket)
        #expect(missing.status == 1 && missing.errors == "chunkctl: no image missing\n  check the tag\n")
        await agent.end()
    }

    @Test func anInvisibleGateMountIsNotBoundAndIsGivenBack() async throws {
        let agent = try await ScriptedAgent(mountPath: "/usr")
        let run = try await ChunkctlRun.run("mount", "r.example/a:1", agent.directory, "--socket", agent.socket)
        #expect(run.status == 1 && run.errors.contains("not visible here"), "\(run.errors)")
        #expect(agent.asked == ["mount r.example/a:1", "umount cdcdcdcdcdcd"])
        await agent.end()
    }
}
