import ControlAPI
import Foundation
import Testing

@Suite struct TraceCommandTests {
    /// A directory that is gone afterwards.
    private final class Scratch {
        let path = "/tmp/chunkctl-trace-\(UUID().uuidString.prefix(8))"
        init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false) }
        deinit { try? FileManager.default.removeItem(atPath: path) }

        func write(_ name: String, _ text: String) throws -> String {
            try Data(text.utf8).write(to: URL(filePath: path + "/" + name))
            return path + "/" + name
        }

        func read(_ name: String) -> String? { try? String(contentsOfFile: path + "/" + name, encoding: .utf8) }
    }

    private static let image = "sha256:" + String(repeating: "a", count: 64)
    private static let document = """
        chunkd-trace 1.0
        image \(image)
        blob sha256:\(String(repeating: "b", count: 64)) 200
        bytes 2621440
        runs 2
        0 17 4
        0 3

        """

    @Test func aCommandIsRunWhileRecordingAndTheTraceIsWritten() async throws {
        let (agent, scratch) = (try await ScriptedAgent(), try Scratch())
        let run = try await ChunkctlRun.run(
            "trace", "record", "r.example/team/app:1", "--file", scratch.path + "/out", "--socket", agent.socket, "--",
            "/bin/sh", "-c", "echo ran; exit 0")
        #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
        #expect(
            run.output == """
                ran
                \(scratch.path)/out: 130 of 2000 chunks (6%), 64 MiB, recorded in 1.5 s
                7 chunks were here before: those of them that had been read are not in it

                """)
        #expect(scratch.read("out") == ScriptedAgent.trace)
        #expect(agent.asked == ["trace r.example/team/app:1", "end r.example/team/app:1"])
        await agent.end()
    }

    @Test func aCommandThatFailsExits1AndTheTraceIsThere() async throws {
        let (agent, scratch) = (try await ScriptedAgent(), try Scratch())
        let run = try await ChunkctlRun.run(
            "trace", "record", "r.example/app:1", "-f", scratch.path + "/out", "--socket", agent.socket, "-o", "json",
            "--",
            "/bin/sh", "-c", "kill -9 $$")
        #expect(run.status == 1 && run.errors.contains("status 137"), "\(run.errors)")
        #expect(try run.json()["commandStatus"] as? Int == 137)
        #expect(try run.json()["residentBefore"] as? Int == 7)
        #expect(scratch.read("out") == ScriptedAgent.trace)
        await agent.end()
    }

    @Test func itEndsAfterTheTimeAndEndsTheCommandToo() async throws {
        let (agent, scratch) = (try await ScriptedAgent(), try Scratch())
        // The command would outlast the test.
        let run = try await ChunkctlRun.run(
            "trace", "record", "r.example/app:1", "--for", "200ms", "-f", "-", "--socket", agent.socket, "--",
            "/bin/sh",
            "-c", "trap 'echo ended >\(scratch.path)/said; exit 0' TERM; while true; do sleep 0.1; done")
        #expect(run.status == 0, "\(run.errors)")
        #expect(run.output == ScriptedAgent.trace, "standard output has the trace alone")
        #expect(run.errors.contains("130 of 2000 chunks"))
        #expect(scratch.read("said") == "ended\n")
        await agent.end()
    }

    @Test func whatChunkdRefusesIsSaidAndNothingIsRun() async throws {
        let (agent, scratch) = (try await ScriptedAgent(), try Scratch())
        let run = try await ChunkctlRun.run(
            "trace", "record", "r.example/complete:1", "-f", scratch.path + "/out", "--socket", agent.socket, "--",
            "/bin/sh", "-c", "echo ran")
        #expect(run.status == 1 && run.output.isEmpty)
        #expect(run.errors == "chunkctl: all 5 chunks are here already\n  run chunkctl gc\n")
        #expect(scratch.read("out") == nil)
        let missing = try await ChunkctlRun.run(
            "trace", "record", "r.example/app:1", "-f", scratch.path + "/out", "--socket", agent.socket, "--",
            "/no/such")
        #expect(missing.status == 1 && missing.errors.contains("cannot run /no/such"), "\(missing.errors)")
        await agent.end()
    }

    @Test(arguments: [
        ["record", "r.example/a:1", "--for", "soon"], ["record", "r.example/a:1", "--for", "0s"],
        ["record", "no-registry"],
        ["record", "r.example/a:1", "-f", "-", "-o", "json"], ["attach", "r.example/a:1"], ["show"],
    ])
    func wrongUsageExits2(arguments: [String]) async throws {
        let run = try await ChunkctlRun.run(["trace"] + arguments + ["--socket", "/nonexistent/c.sock"])
        #expect(run.status == 2 && run.output.isEmpty, "\(arguments): \(run.status) \(run.errors)")
    }

    @Test func aFileIsShown() async throws {
        let scratch = try Scratch()
        let file = try scratch.write("app.trace", Self.document)
        let run = try await ChunkctlRun.run("trace", "show", file)
        #expect(run.status == 0, "\(run.errors)")
        #expect(
            run.output == """
                image:   \(Self.image)
                chunks:  5 of 200 chunks (2%)
                bytes:   2.5 MiB
                runs:    2

                RUN  BLOB          FIRST CHUNK  CHUNKS
                  1  bbbbbbbbbbbb           17       4
                  2  bbbbbbbbbbbb            3       1

                """)
        let json = try await ChunkctlRun.run("trace", "show", file, "-o", "json").json()
        #expect(json["chunks"] as? Int == 5 && json["imageChunks"] as? Int == 200)
        #expect((json["runs"] as? [[String: Int]])?.map { $0["firstChunk"] } == [17, 3])
    }

    @Test func aFileThatIsNoTraceIsRefusedWithItsLine() async throws {
        let scratch = try Scratch()
        let file = try scratch.write("bad", Self.document.replacing("0 3\n", with: "0 200\n"))
        for arguments in [["show", file], ["attach", "r.example/a:1", file]] {
            let run = try await ChunkctlRun.run(["trace"] + arguments)
            #expect(run.status == 1 && run.errors.contains("\(file): trace: chunks 200..<201"), "\(run.errors)")
        }
        let missing = try await ChunkctlRun.run("trace", "show", "./no-such.trace")
        #expect(missing.status == 1 && missing.errors.contains("no-such.trace"), "\(missing.errors)")
    }
}
