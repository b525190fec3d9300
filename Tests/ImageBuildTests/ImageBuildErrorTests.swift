import ChunkModel
import Glibc
import ImageBuild
import LinuxSystem
import OCISpec
import Testing
import TestSupport

@Suite("What cannot be built is refused with its name, and leaves nothing behind")
struct ImageBuildErrorTests {
    private let workshop: Workshop

    init() throws { workshop = try Workshop("errors") }

    private func refusal(
        _ source: ImageSource, _ change: (inout BuildOptions) -> Void = { _ in }
    ) async -> (code: ImageBuildError.Code, message: String)? {
        do {
            try await workshop.build(source, change)
            return nil
        } catch let error as ImageBuildError {
            return (error.code, error.description)
        } catch { return nil }
    }

    @Test func argumentsMeanTheSameWhateverExists() throws {
        #expect(try ImageSource(argument: "/a") == .directory("/a"))
        #expect(try ImageSource(argument: "./a:b") == .directory("./a:b"))
        #expect(try ImageSource(argument: "..") == .directory(".."))
        #expect(try ImageSource(argument: "oci:/x/y") == .layout(path: "/x/y", tag: nil))
        #expect(try ImageSource(argument: "oci:x:v1") == .layout(path: "x", tag: "v1"))
        #expect(try ImageSource(argument: "oci:/x:y/z:v1") == .layout(path: "/x:y/z", tag: "v1"))
        #expect(try ImageSource(argument: "localhost:5000/a:b") == .registry(try Reference("localhost:5000/a:b")))
        #expect(try ImageDestination(argument: "oci:x") == .layout(path: "x", tag: nil))
        for wrong in ["", "oci:", "oci::v1", "oci:x:", "oci:x:a b", "usr", "Not A Reference"] {
            #expect(throws: ImageBuildError.self, "\(wrong)") { try ImageSource(argument: wrong) }
        }
        #expect(throws: ImageBuildError.self) { try ImageDestination(argument: "/directory") }
    }

    @Test func sourcesThatAreNotThereAreNamed() async throws {
        let missing = await refusal(.directory(workshop.path("missing")))
        #expect(missing?.code == .badSource && missing?.message.contains("missing") == true)
        try Directory.replaceFile(workshop.path("file"), [1])
        #expect(await refusal(.directory(workshop.path("file")))?.code == .badSource)
        #expect(await refusal(.layout(path: workshop.path("missing"), tag: nil))?.code == .badSource)
        #expect(await refusal(.directory("/etc")) { $0.temporaryDirectory = "/no/such/place" }?.code == .inputOutput)
        #expect(workshop.leftovers == [])
    }

    @Test func temporaryFilesInsideTheSourceAreRefused() async throws {
        let found = await refusal(.directory(workshop.scratch.path))
        #expect(found?.code == .invalidArgument && found?.message.contains("--temp-dir") == true)
        #expect(workshop.leftovers == [])
    }

    @Test func optionsOutsideTheirBoundsAreRefused() async throws {
        let tree = try workshop.scratch.makeDirectory("tree")
        try Directory.replaceFile(tree + "/file", [UInt8](repeating: 1, count: 10_000))
        for size in [0, 1000, 5000, 2 << 30] {
            #expect(await refusal(.directory(tree)) { $0.erofsChunkSize = size }?.code == .invalidArgument)
        }
        #expect(await refusal(.directory(tree)) { $0.format = .zstd(level: 99) } != nil)
        #expect(workshop.leftovers == [])
    }

    @Test func aFailingToolSaysWhy() async throws {
        let tree = try workshop.scratch.makeDirectory("tree")
        // mkfs.erofs reads by paths of at most PATH_MAX bytes.
        let name = String(repeating: "d", count: 250)
        try Command.run(
            "sh", "-c", "cd '\(tree)'; for i in $(seq 20); do mkdir \(name); cd -P \(name); done; echo x >file")
        let found = await refusal(.directory(tree))
        #expect(found != nil)
        #expect(workshop.leftovers == [])
    }

    @Test func aNameTooLongForTheToolIsNamedNeverCut() async throws {
        let tree = try workshop.scratch.makeDirectory("tree")
        let name = String(repeating: "n", count: 255)
        try Command.run("sh", "-c", "cd '\(tree)' && echo 1 >\(name) && echo 2 >\(name.dropLast())")
        let found = await refusal(.directory(tree))
        // A newer mkfs.erofs can store it: then the image must have both names.
        if let found {
            #expect(found.code == .unsupported && found.message.contains("255 bytes") && found.message.contains(name))
        } else {
            #expect(try await workshop.inspect().tree.files == 2)
        }
    }

    @Test func cancellingEndsTheProgramsAndCleansUp() async throws {
        let tree = try workshop.scratch.makeDirectory("tree")
        try Command.run("truncate", "-s", "64G", tree + "/large")
        let options = try workshop.options()
        let target = workshop.path("image")
        let formatting = Monitor(false)
        let task = Task {
            try await ImageBuilder(options: options).build(
                source: .directory(tree), destination: .layout(path: target, tag: nil)
            ) { if $0.phase == .format { formatting.update { $0 = true } } }
        }
        let started = await onOtherThread {
            formatting.wait(until: Monotonic.now.adding(milliseconds: 300_000)) { $0 ? true : nil } ?? false
        }
        #expect(started)
        task.cancel()
        await #expect(throws: ImageBuildError.self) { _ = try await task.value }
        #expect(workshop.leftovers == [])
        #expect(!Directory.exists(target))
    }

    /// Waits on a thread of its own: the cooperative pool must not block.
    private func onOtherThread(_ body: @escaping @Sendable () -> Bool) async -> Bool {
        await withCheckedContinuation { continuation in
            do {
                try Thread.start("test-wait") { continuation.resume(returning: body()) }
            } catch { continuation.resume(returning: false) }
        }
    }
}
