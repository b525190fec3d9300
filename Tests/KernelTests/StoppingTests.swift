import ChunkModel
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The gate does not stop while a partly fetched image is in use, however that comes about: without it a reader of what
/// is absent would get zeros (kernel-facts, law 12).
@Suite(.serialized, .enabled(if: KernelRequirement.shouldRun, "\(KernelRequirement.comment)"))
struct StoppingTests {
    let scratch: ScratchDirectory
    let image: GateImage
    let big: [UInt8]

    init() throws {
        scratch = try ScratchDirectory("stopping")
        var random = SeededGenerator(seed: 7)
        (image, big) = try GateImage.random("image", chunks: 8, using: &random, in: scratch)
    }

    /// Asks twice to stop, and requires that all of `path` is right afterwards.
    private func expectStaying(_ gate: RunningGate, _ client: GateClient, reading path: String) throws {
        for _ in 0..<2 {
            kill(gate.process.pid, SIGTERM)
            #expect(gate.process.wait(atMost: .seconds(1)) == nil, "it stopped")
        }
        let readers = try Readers(1, path: path + "/big", offset: 0, length: big.count)
        try client.serve(image) { readers.finished == 1 }
        #expect(try readers.wait() == [.bytes(big)])
    }

    @Test func anImageThatDoesNotLoadAnyMoreIsInUse() throws {
        let gate = try RunningGate(scratch)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let info = try client.open(image)
        let user = try scratch.makeDirectory("user")
        try Mount.bind(info.path, onto: user, isConfined: true)
        let manifest = try File(path: "\(gate.state)/gate/images/\(image.digest.hex)/manifest", flags: O_RDWR)
        try manifest.writeAll([0], at: 3)
        try expectStaying(gate, client, reading: user)
    }

    @Test func anImageIsInUseInAnotherMountNamespace() throws {
        let gate = try RunningGate(scratch)
        defer { gate.killAndUnmount() }
        let client = try gate.connect()
        let info = try client.open(image)
        // Ends with this test's process at the latest: cat reads what nobody writes.
        let pipe = scratch.appending("pipe")
        try retrying("mkfifo", pipe) { mkfifo(pipe, 0o600) }
        let container = try ProcessFixture(
            ["unshare", "--mount", "--propagation", "private", "cat", pipe], logFile: scratch.appending("log"))
        defer { container.stop() }
        let own = try #require(try? BytePath("/proc/self/ns/mnt").readLink())
        let entered = Wait.until(.seconds(10)) {
            let other = try? BytePath("/proc/\(container.pid)/ns/mnt").readLink()
            let name = try? readProcFile("/proc/\(container.pid)/comm")
            return other != nil && other != own && name == Array("cat\n".utf8)
        }
        #expect(entered, "\(container.log)")
        try expectStaying(gate, client, reading: "/proc/\(container.pid)/root" + info.path)
        container.stop()
        kill(gate.process.pid, SIGTERM)
        #expect(gate.process.wait(atMost: .seconds(10)) == 0)
    }
}
