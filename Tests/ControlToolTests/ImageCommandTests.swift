import ChunkModel
import Foundation
import Glibc
import Testing

@Suite(.enabled(if: access("/usr/bin/mkfs.erofs", X_OK) == 0, "needs /usr/bin/mkfs.erofs"))
struct ImageCommandTests {
    /// A small tree and room for an OCI layout.
    private final class Work {
        let directory = "/tmp/chunkctl-image-\(UUID().uuidString.prefix(8))"

        init() throws {
            try FileManager.default.createDirectory(
                atPath: directory + "/tree/empty", withIntermediateDirectories: true)
            try Data(repeating: 7, count: 100_000).write(to: URL(filePath: directory + "/tree/file"))
            try Data("x".utf8).write(to: URL(filePath: directory + "/tree/small"))
        }

        deinit { try? FileManager.default.removeItem(atPath: directory) }
    }

    @Test(arguments: ["zstd", "raw"])
    func aTreeIsBuiltAndInspected(compression: String) async throws {
        let work = try Work()
        let layout = "oci:\(work.directory)/out:v1"
        let tree = work.directory + "/tree"
        let built = try await ChunkctlRun.run(
            "image", "build", tree, layout, "--compression", compression, "--temp-dir", work.directory, "-o", "json")
        #expect(built.status == 0, "\(built.errors)")
        #expect(built.errors.isEmpty)
        let result = try built.json()
        #expect(result["apiVersion"] as? String == "chunkd/v1")
        let digest = try #require(result["manifestDigest"] as? String)
        #expect(Digest(digest) != nil)

        let table = try await ChunkctlRun.run("image", "inspect", layout)
        #expect(table.status == 0, "\(table.errors)")
        #expect(table.output.contains("digest:    \(digest)\n"), "\(table.output)")
        #expect(table.output.contains("2 files (98 KiB), 2 directories"), "\(table.output)")
        let inspected = try await ChunkctlRun.run("image", "inspect", layout, "-o", "json").json()
        #expect(inspected["manifestDigest"] as? String == digest)
        let blobs = try #require(inspected["blobs"] as? [[String: Any]])
        #expect(blobs.map { $0["compression"] as? String } == [compression])
        // Nothing temporary is left.
        #expect(try FileManager.default.contentsOfDirectory(atPath: work.directory).sorted() == ["out", "tree"])
    }

    @Test func wrongArgumentsExit2BeforeAnythingIsDone() async throws {
        let work = try Work()
        for (arguments, text) in [
            (["tree", "oci:/x"], "a source is a directory"), (["/tmp", "nowhere"], "a destination is oci:"),
            (["/tmp", "oci:/x", "--level", "3", "--compression", "raw"], "--level goes with"),
            (["/tmp", "oci:/x", "--level", "99"], "expected 1 to 19"),
            (["/tmp", "oci:/x", "--platform", "linux"], "expected OS/ARCH"),
        ] {
            let all = ["image", "build"] + arguments
            let run = try await ChunkctlRun.run(all)
            #expect(run.status == 2 && run.errors.contains(text), "\(arguments): \(run.errors)")
        }
        let missing = try await ChunkctlRun.run(["image", "build", work.directory + "/none", "oci:\(work.directory)/o"])
        #expect(missing.status == 1 && missing.errors.contains(work.directory + "/none"), "\(missing.errors)")
    }
}
