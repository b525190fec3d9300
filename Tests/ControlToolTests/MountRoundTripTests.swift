import Foundation
import Glibc
import LinuxSystem
import Testing

/// Real EROFS mounts need root and mkfs.erofs.
private let canMount = geteuid() == 0 && access("/usr/bin/mkfs.erofs", X_OK) == 0

@Suite(.enabled(if: canMount, "needs root and /usr/bin/mkfs.erofs"))
struct MountRoundTripTests {
    /// An EROFS mount that plays the gate's, with one file in it.
    private final class GateMount {
        let directory: String
        var mount: String { directory + "/gate" }
        var target: String { directory + "/my target" }

        init() throws {
            directory = "/tmp/chunkctl-mount-\(UUID().uuidString.prefix(8))"
            for name in ["tree", "gate", "my target"] {
                try FileManager.default.createDirectory(
                    atPath: "\(directory)/\(name)", withIntermediateDirectories: true)
            }
            try Data("hello".utf8).write(to: URL(filePath: directory + "/tree/file"))
            let process = Process()
            process.executableURL = URL(filePath: "/usr/bin/mkfs.erofs")
            process.arguments = ["-x-1", directory + "/image", directory + "/tree"]
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            process.waitUntilExit()
            try #require(process.terminationStatus == 0)
            try Mount.erofs(image: directory + "/image", devices: [], at: mount)
        }

        deinit {
            for path in [target, mount] { umount2(path, Int32(MNT_DETACH)) }
            try? FileManager.default.removeItem(atPath: directory)
        }

        func options(_ path: String) throws -> Substring? {
            try String(decoding: readProcFile("/proc/self/mountinfo"), as: UTF8.self).split(separator: "\n")
                .last { $0.contains(" \(path.replacing(" ", with: "\\040")) ") }?.split(separator: " ")[5]
        }
    }

    @Test func anImageIsBoundReadOnlyOnceAndUnmounted() async throws {
        let gate = try GateMount()
        let agent = try await ScriptedAgent(mountPath: gate.mount)
        let mounted = try await ChunkctlRun.run("mount", "r.example/a:1", gate.target, "--socket", agent.socket)
        #expect(mounted.status == 0, "\(mounted.errors)")
        #expect(mounted.output.hasPrefix("mounted r.example/a:1 on \(gate.target): 1 GiB in 2000 chunks, 25% here"))
        #expect(try String(contentsOfFile: gate.target + "/file", encoding: .utf8) == "hello")
        let options = try #require(try gate.options(gate.target)).split(separator: ",")
        #expect(options.contains("ro") && options.contains("nosuid") && options.contains("nodev"))

        let again = try await ChunkctlRun.run("mount", "r.example/a:1", gate.target, "--socket", agent.socket)
        #expect(again.status == 1 && again.errors.contains("has an image mounted already"), "\(again.errors)")
        #expect(agent.asked == ["mount r.example/a:1"])

        let own = try await ChunkctlRun.run("umount", gate.mount, "--socket", agent.socket)
        #expect(own.status == 1 && own.errors.contains("chunkgate's own mount"), "\(own.errors)")
        let unmounted = try await ChunkctlRun.run("umount", gate.target, "--socket", agent.socket)
        #expect(unmounted.status == 0 && unmounted.output == "unmounted \(gate.target)\n", "\(unmounted.errors)")
        #expect(agent.asked == ["mount r.example/a:1", "umount cdcdcdcdcdcd"])
        #expect(access(gate.target + "/file", F_OK) != 0)
        let nothing = try await ChunkctlRun.run("umount", gate.target, "--socket", agent.socket)
        #expect(nothing.status == 1 && nothing.errors.contains("nothing is mounted"))
        await agent.end()
    }

    @Test func aRootFileSystemKeepsItsPrivileges() async throws {
        let gate = try GateMount()
        let agent = try await ScriptedAgent(mountPath: gate.mount)
        let run = try await ChunkctlRun.run(
            "mount", "--rootfs", "r.example/a:1", gate.target, "--socket", agent.socket, "-o", "json")
        #expect(run.status == 0, "\(run.errors)")
        #expect(try run.json()["directory"] as? String == gate.target)
        let options = try #require(try gate.options(gate.target)).split(separator: ",")
        #expect(options.contains("ro") && !options.contains("nosuid") && !options.contains("nodev"))
        await agent.end()
    }

    @Test func theImageStaysWhileAnotherDirectoryUsesIt() async throws {
        let gate = try GateMount()
        let agent = try await ScriptedAgent(mountPath: gate.mount)
        let other = gate.directory + "/tree"
        for target in [gate.target, other] {
            let run = try await ChunkctlRun.run("mount", "r.example/a:1", target, "--socket", agent.socket)
            #expect(run.status == 0, "\(run.errors)")
        }
        let first = try await ChunkctlRun.run("umount", gate.target, "--socket", agent.socket)
        #expect(first.output.contains("stays mounted for others"))
        #expect(!agent.asked.contains { $0.hasPrefix("umount") })
        let second = try await ChunkctlRun.run("umount", other, "--socket", agent.socket)
        #expect(second.status == 0)
        #expect(agent.asked.last == "umount cdcdcdcdcdcd")
        await agent.end()
    }

    @Test func theLastDirectoryStaysWhileContainersRunOnTheImage() async throws {
        let gate = try GateMount()
        let agent = try await ScriptedAgent(mountPath: gate.mount, containers: "k8s.io/7/abc")
        let other = gate.directory + "/tree"
        for target in [gate.target, other] {
            let run = try await ChunkctlRun.run("mount", "r.example/a:1", target, "--socket", agent.socket)
            #expect(run.status == 0, "\(run.errors)")
        }
        // Not the last: nothing of the image goes with it.
        let first = try await ChunkctlRun.run("umount", other, "--socket", agent.socket)
        #expect(first.status == 0, "\(first.errors)")
        let refused = try await ChunkctlRun.run("umount", gate.target, "--socket", agent.socket)
        #expect(refused.status == 1 && refused.errors.contains("k8s.io/7/abc") && refused.errors.contains("stop them"))
        #expect(try String(contentsOfFile: gate.target + "/file", encoding: .utf8) == "hello")
        await agent.end()
    }

    @Test func unmountingWorksWhileChunkdIsAway() async throws {
        let gate = try GateMount()
        let agent = try await ScriptedAgent(mountPath: gate.mount)
        let run = try await ChunkctlRun.run("mount", "r.example/a:1", gate.target, "--socket", agent.socket)
        #expect(run.status == 0, "\(run.errors)")
        await agent.end()
        let unmounted = try await ChunkctlRun.run("umount", gate.target, "--socket", agent.socket)
        #expect(unmounted.status == 0 && unmounted.errors.contains("chunkd could not be told"), "\(unmounted.errors)")
        #expect(access(gate.target + "/file", F_OK) != 0)
    }
}
