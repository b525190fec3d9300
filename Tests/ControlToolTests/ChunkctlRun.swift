import Foundation
import Testing

/// One run of the chunkctl that was built beside the tests.
struct ChunkctlRun: Sendable {
    var status: Int32
    var output: String
    var errors: String

    /// Runs it to its end, at most a minute; its own environment has no configuration but what is given.
    static func run(_ arguments: String..., environment: [String: String] = [:]) async throws -> ChunkctlRun {
        try await run(arguments, environment: environment)
    }

    static func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> ChunkctlRun {
        let binary = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appending(path: "chunkctl")
        return try await withCheckedThrowingContinuation { continuation in
            // Waiting blocks: not on the cooperative pool.
            Thread.detachNewThread {
                continuation.resume(with: Result { try perform(binary, arguments, environment) })
            }
        }
    }

    private static func perform(
        _ binary: URL, _ arguments: [String], _ environment: [String: String]
    ) throws -> ChunkctlRun {
        let process = Process()
        let outputs = try (0..<2).map { _ in try TemporaryFile() }
        process.executableURL = binary
        process.arguments = arguments
        let none = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CHUNKD_CONFIG": "/dev/null"]
        process.environment = none.merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = outputs[0].handle
        process.standardError = outputs[1].handle
        let ended = DispatchSemaphore(value: 0)
        process.terminationHandler = { _ in ended.signal() }
        try process.run()
        if ended.wait(timeout: .now() + 60) == .timedOut {
            kill(process.processIdentifier, SIGKILL)
            ended.wait()
        }
        return ChunkctlRun(
            status: process.terminationStatus, output: try outputs[0].text(), errors: try outputs[1].text())
    }

    /// The JSON on standard output.
    func json() throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
    }
}

/// Output goes to a file: a pipe could fill up.
private final class TemporaryFile {
    let handle: FileHandle
    private let path: String

    init() throws {
        path = "/tmp/chunkctl-test-\(UUID().uuidString)"
        try Data().write(to: URL(filePath: path))
        handle = try FileHandle(forUpdating: URL(filePath: path))
    }

    func text() throws -> String { String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self) }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
