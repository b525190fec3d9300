import Foundation
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(2))) struct PKICommandTests {
    let directory: TemporaryDirectory
    var pki: String { directory.path + "/pki" }

    init() throws { directory = try TemporaryDirectory(prefix: "chunkd-pki-command") }

    func mode(_ path: String) throws -> Int {
        try #require(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int)
    }

    @Test func aNodesCertificateIsMadeAndFoundGood() async throws {
        var run = try await ChunkctlRun.run("pki", "init", pki, "--trust-domain", "cluster.local")
        #expect(run.status == 0, "\(run.errors)")
        run = try await ChunkctlRun.run("pki", "issue", pki, "node-1", "-o", "json")
        #expect(run.status == 0, "\(run.errors)")
        let issued = try run.json()
        #expect(issued["name"] as? String == "node-1")
        #expect(issued["trustDomain"] as? String == "cluster.local")
        #expect(issued["problems"] as? [String] == [])
        #expect(issued["keyFile"] as? String == pki + "/node-1.key")
        #expect(try mode(pki + "/ca.key") == 0o600)
        #expect(try mode(pki + "/node-1.key") == 0o600)
        run = try await ChunkctlRun.run("pki", "inspect", pki + "/node-1.crt", "--ca", pki + "/ca.crt")
        #expect(run.status == 0)
        #expect(run.output.contains("problems:      none"))
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: pki).sorted() == [
                "ca.crt", "ca.key", "node-1.crt", "node-1.key",
            ])
    }

    @Test func nothingIsOverwrittenUnlessAskedFor() async throws {
        #expect(try await ChunkctlRun.run("pki", "init", pki, "--trust-domain", "cluster.local").status == 0)
        #expect(try await ChunkctlRun.run("pki", "issue", pki, "node-1").status == 0)
        let before = try Data(contentsOf: URL(filePath: pki + "/node-1.key"))
        for arguments in [["init", pki, "--trust-domain", "x"], ["issue", pki, "node-1"]] {
            let run = try await ChunkctlRun.run(["pki"] + arguments)
            #expect(run.status == 1)
            #expect(run.errors.contains("--force"))
        }
        #expect(try Data(contentsOf: URL(filePath: pki + "/node-1.key")) == before)
        #expect(try await ChunkctlRun.run("pki", "issue", pki, "node-1", "--force").status == 0)
        #expect(try Data(contentsOf: URL(filePath: pki + "/node-1.key")) != before)
    }

    @Test func aCertificateOfAnotherAuthorityHasAProblem() async throws {
        let other = directory.path + "/other"
        for path in [pki, other] {
            #expect(try await ChunkctlRun.run("pki", "init", path, "--trust-domain", "cluster.local").status == 0)
        }
        #expect(try await ChunkctlRun.run("pki", "issue", pki, "node-1").status == 0)
        let run = try await ChunkctlRun.run(
            "pki", "inspect", pki + "/node-1.crt", "--ca", other + "/ca.crt", "-o", "json")
        #expect(run.status == 1)
        let certificates = try #require(try run.json()["certificates"] as? [[String: Any]])
        #expect((certificates.first?["problems"] as? [String])?.count == 1)
    }

    @Test func wrongUsageIsToldFromFailure() async throws {
        #expect(try await ChunkctlRun.run("pki", "init", pki, "--trust-domain", "Not A Domain").status == 2)
        #expect(try await ChunkctlRun.run("pki", "init", pki, "--trust-domain", "a", "--days", "0").status == 2)
        #expect(try await ChunkctlRun.run("pki", "issue", pki, "Node").status == 2)
        let run = try await ChunkctlRun.run("pki", "issue", pki, "node-1")
        #expect(run.status == 1)
        #expect(run.errors.contains("chunkctl pki init"))
    }
}
