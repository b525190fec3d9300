import ControlAPI
@testable import ControlTool
import Foundation
import Testing

@Suite(.serialized) struct SupportBundleTests {
    /// A node's configuration with secrets in every place that may have one, and a journal that has some too.
    private final class Home {
        let path = "/tmp/chunkctl-support-\(UUID().uuidString.prefix(8))"
        /// In everything that must not come out.
        static let planted = "pl4nted"

        init() throws {
            for folder in ["registries/r.example", "state", "bin"] {
                try FileManager.default.createDirectory(atPath: "\(path)/\(folder)", withIntermediateDirectories: true)
            }
            try write(
                "config.yaml",
                """
                stateDir: \(path)/state
                runDir: \(path)
                registriesDir: \(path)/registries
                dockerConfig: \(path)/docker.json
                metrics: {address: 127.0.0.1:1}
                proxy: {http: 'http://\(Self.planted):\(Self.planted)@proxy.example:3128'}
                registries:
                  r.example: {username: \(Self.planted), passwordFile: \(path)/password}
                """)
            try write("password", Self.planted)
            try write("docker.json", #"{"auths": {"r.example": {"auth": "\#(Self.planted)"}}}"#)
            for name in ["auth.json", "password", "username", "client.key"] {
                try write("registries/r.example/" + name, Self.planted)
            }
            try write(
                "bin/journalctl",
                """
                #!/bin/sh
                echo "chunkd: Authorization: Bearer \(Self.planted)"
                echo "chunkd: proxy http://user:\(Self.planted)@proxy.example:3128 failed, password=\(Self.planted)"
                echo "chunkd: ready"
                """)
            try FileManager.default.setAttributes(
                [.posixPermissions: 0o755], ofItemAtPath: path + "/bin/journalctl")
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        private func write(_ name: String, _ text: String) throws {
            try Data((text + "\n").utf8).write(to: URL(filePath: "\(path)/\(name)"))
        }

        func bundle(_ arguments: String..., socket: String) async throws -> ChunkctlRun {
            try await ChunkctlRun.run(
                ["support-bundle", "--config", path + "/config.yaml", "--socket", socket] + arguments,
                environment: ["PATH": path + "/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CHUNKD_CONFIG": ""])
        }

        /// Unpacks a bundle; its one folder, and the names of all files in the order they are packed in.
        func unpack(_ file: String) throws -> (folder: String, names: [String]) {
            let names = try run("tar", "-tzf", file).split(separator: "\n").map(String.init)
                .filter { !$0.hasSuffix("/") }
            let target = "\(path)/unpacked-\(UUID().uuidString.prefix(4))"
            try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: true)
            _ = try run("tar", "-xzf", file, "-C", target)
            let folder = try #require(try FileManager.default.contentsOfDirectory(atPath: target).first)
            return (target + "/" + folder, names.map { String($0.split(separator: "/", maxSplits: 1).last ?? "") })
        }

        private func run(_ words: String...) throws -> String {
            let process = Process()
            process.executableURL = URL(filePath: "/usr/bin/env")
            process.arguments = words
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            let data = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            try #require(process.terminationStatus == 0, "\(words)")
            return String(decoding: data, as: UTF8.self)
        }
    }

    private func manifest(_ folder: String) throws -> SupportManifest {
        let data = try Data(contentsOf: URL(filePath: folder + "/manifest.json"))
        return try ControlJSON.decode(from: Array(data), what: "manifest")
    }

    @Test("a bundle has what chunkd, the system and the journal say, and none of the secrets that lie about")
    func contents() async throws {
        let home = try Home()
        let agent = try await ScriptedAgent()
        let file = home.path + "/b.tar.gz"
        let run = try await home.bundle(file, socket: agent.socket)
        #expect(run.status == 0, "\(run.errors)")
        #expect(run.output.hasPrefix(file + ": "))
        #expect(try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int == 0o600)
        let (folder, names) = try home.unpack(file)
        let expected = [
            "agent/events.json", "agent/faults.json", "agent/images.json", "agent/limits.json", "agent/peers.json",
            "agent/spans.json", "agent/stat.json", "agent/version.json", "configuration.json", "disk/space",
            "disk/usage", "doctor.json", "journal.txt", "manifest.json", "system/kernel",
        ]
        #expect(Set(expected).subtracting(names) == [])
        #expect(names == names.sorted(), "packed in one order")
        let listed = try manifest(folder)
        #expect(listed.isAgentReached && listed.items.map(\.name) == listed.items.map(\.name).sorted())
        #expect(Set(listed.items.filter { $0.error == nil }.map(\.name) + ["manifest.json"]).isSubset(of: names))
        // Nothing is served there: noted, and the rest is there all the same.
        #expect(listed.items.first { $0.name == "metrics.txt" }?.error != nil && !names.contains("metrics.txt"))

        for name in names {
            let text = String(decoding: try Data(contentsOf: URL(filePath: "\(folder)/\(name)")), as: UTF8.self)
            #expect(!text.contains(Home.planted), "\(name) has a secret")
        }
        let journal = try String(contentsOfFile: folder + "/journal.txt", encoding: .utf8)
        #expect(journal.contains("@proxy.example:3128 failed") && journal.contains("chunkd: ready"))
        let data = try Data(contentsOf: URL(filePath: folder + "/configuration.json"))
        let settings = try #require(try JSONSerialization.jsonObject(with: data) as? [String: String])
        #expect(settings["proxy.http"] == "http://\(Redaction.mark)@proxy.example:3128")
        #expect(settings["registries[0].username"] == Redaction.mark)
        #expect(settings["registries[0].passwordFile"] == home.path + "/password", "where it is, is no secret")
        #expect(settings["stateDirectory"] == home.path + "/state" && settings["fetch.parallel"] == "16")
        await agent.end()
    }

    @Test("a file that is there is not replaced unless that is said")
    func force() async throws {
        let home = try Home()
        let file = home.path + "/b.tar.gz"
        try Data("mine".utf8).write(to: URL(filePath: file))
        let refused = try await home.bundle(file, socket: home.path + "/none")
        #expect(refused.status == 1 && refused.errors.contains("--force"), "\(refused.errors)")
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "mine")
        let replaced = try await home.bundle(file, "--force", socket: home.path + "/none")
        #expect(replaced.status == 0, "\(replaced.errors)")
        #expect(try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int == 0o600)
        let left = try FileManager.default.contentsOfDirectory(atPath: home.path)
        #expect(!left.contains { $0.contains(".part") })
        let folders = try FileManager.default.contentsOfDirectory(atPath: "/tmp").filter { name in
            let inside = (try? FileManager.default.contentsOfDirectory(atPath: "/tmp/\(name)")) ?? []
            return name.hasPrefix("chunkd-support-") && inside.contains { $0.hasPrefix("chunkd-support-") }
        }
        #expect(folders.isEmpty, "what was collected is left")
    }

    @Test("chunkd that is down is said so, and the rest is collected")
    func agentAway() async throws {
        let home = try Home()
        let file = home.path + "/b.tar.gz"
        let run = try await home.bundle(file, "--journal-lines", "0", "-o", "json", socket: home.path + "/none")
        #expect(run.status == 0 && run.errors.contains("chunkd does not answer"), "\(run.errors)")
        #expect(try run.json()["file"] as? String == file)
        let (folder, names) = try home.unpack(file)
        let listed = try manifest(folder)
        #expect(!listed.isAgentReached)
        #expect(listed.items.first { $0.name == "agent/stat.json" }?.error?.isEmpty == false)
        #expect(names.contains("doctor.json") && names.contains("disk/usage"))
        #expect(listed.items.first { $0.name == "journal.txt" }?.error?.contains("--journal-lines 0") == true)
    }

    @Test("work that does not end is given up after its time")
    func bounds() async throws {
        let start = ContinuousClock.now
        let error = await #expect(throws: ToolError.self) {
            try await Bounded.run(.milliseconds(50)) {
                // slow: it is what does not end, and is cut short.
                try await Task.sleep(for: .seconds(600))
            }
        }
        #expect(error?.code == "deadline" && ContinuousClock.now - start < .seconds(60))
        let endless = try await OwnThread.run { try SupportCapture.program("yes", [], limit: 10_000) }
        #expect(endless.bytes.count == 10_000 && endless.isCut)
        let slow = try await OwnThread.run { try SupportCapture.program("sleep", ["600"], seconds: 1) }
        #expect(slow.error == "sleep was ended after 1 s")
    }
}
