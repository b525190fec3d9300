import ArgumentParser
import ChunkModel
import ControlAPI
import Glibc
import LinuxSystem
import OCISpec
import RegistryClient
import Settings

struct TraceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace",
        abstract:
            "Record what a workload reads first, and have it fetched in that order wherever the image is mounted.",
        discussion: """
            EXAMPLES:
              chunkctl trace record registry.example/app:1 -- ./start-app-once
              chunkctl trace attach registry.example/app:1 app.trace
              chunkctl trace show registry.example/app:1
            """,
        subcommands: [TraceRecordCommand.self, TraceAttachCommand.self, TraceShowCommand.self])
}

struct TraceRecordCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "record", abstract: "Record which chunks of an image are read first, and in which order.",
        discussion: """
            EXAMPLES:
              chunkctl trace record registry.example/app:1                  # until Ctrl-C; start the pod meanwhile
              chunkctl trace record registry.example/app:1 --for 2m
              chunkctl trace record registry.example/app:1 -f start.trace -- /mnt/app/bin/app --self-test

            The image need not be mounted yet. While it is recorded nothing of it is read ahead, hydrated or replayed, so
            that each first read is seen. What was read here before cannot be: best on a node that never had the image.
            Ends when COMMAND has ended, after --for, or with Ctrl-C, whichever is first; COMMAND then gets SIGTERM. Exits 1
            when COMMAND fails; the trace is written nevertheless.
            """)

    @Argument(help: "Image: HOST[:PORT]/NAME[:TAG][@DIGEST].")
    var reference: String

    @Option(
        name: .customLong("for"), help: ArgumentHelp("End after this long, such as 30s or 5m.", valueName: "duration"))
    var limit: String?

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Where the trace is written; - is standard output (default: NAME.trace).", valueName: "path")
    )
    var file: String?

    @Argument(parsing: .postTerminator, help: "After --: what to run while recording.")
    var command: [String] = []

    @OptionGroup var common: CommonOptions

    func validate() throws {
        _ = try duration()
        if file == "-", common.output == .json {
            throw ValidationError("--file - and -o json both print to standard output")
        }
    }

    private func duration() throws -> Duration? {
        guard let limit else { return nil }
        guard let duration = Units.duration(limit), duration > .zero else {
            throw ValidationError("--for: expected a duration such as 30s, found \"\(limit.prefix(80))\"")
        }
        return duration
    }

    func run() async throws {
        let path = try file ?? Self.fileName(Reference(reference))
        let client = try common.client()
        let progress = ProgressLine(command.isEmpty ? common.output : .json)
        defer { progress.end() }
        let request = TraceRequest(reference: reference)
        let (begun, begin) = AsyncStream.makeStream(of: Void.self)
        let recording = Task {
            defer { begin.finish() }
            return try await client.recordTrace(request) { report in
                begin.yield()
                progress.show(report.line)
            }
        }
        var status: Int32?
        // Ends without a report when the recording is refused: then nothing is run.
        for await _ in begun {
            do { status = try await untilOver(recording, request, client) } catch {
                recording.cancel()
                throw error
            }
            break
        }
        let reply = try await recording.value
        progress.end()
        try Self.write(reply.trace, to: path)
        try show(reply, path, status)
        if let status, status != 0 {
            throw ToolError("command", "\(command[0]) ended with status \(status); the trace is written")
        }
    }

    /// Waits for the first of COMMAND's end, `--for`, an interrupt and the recording's own end, then ends the recording.
    /// The status COMMAND ended with by itself.
    private func untilOver(
        _ recording: Task<TraceReply, any Error>, _ request: TraceRequest, _ client: ControlClient
    ) async throws -> Int32? {
        let limit = try duration()
        let child = command.isEmpty ? nil : try ChildProcess.start(command)
        return await withTaskGroup(of: Int32?.self) { group in
            group.addTask {
                _ = await recording.result
                return nil
            }
            group.addTask {
                await Interrupts.first()
                return nil
            }
            if let limit {
                group.addTask {
                    // Cut short by cancellation only, when something else was first.
                    try? await Task.sleep(for: limit)
                    return nil
                }
            }
            if let child { group.addTask { await child.wait() } }
            let first = await group.next() ?? nil
            do { _ = try await client.endTrace(request) } catch { recording.cancel() }
            group.cancelAll()
            return first
        }
    }

    /// `registry.example/team/app:1` → `app.trace`.
    static func fileName(_ reference: Reference) -> String {
        (reference.repository.split(separator: "/").last.map(String.init) ?? "image") + ".trace"
    }

    private static func write(_ trace: String, to path: String) throws {
        if path == "-" { return Console.put(trace, to: STDOUT_FILENO) }
        let new = path + ".new"
        let file = try File(path: new, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        try Array(trace.utf8).withUnsafeBytes { try file.writeAll($0, at: 0) }
        try Directory.rename(new, to: path)
    }

    private func show(_ reply: TraceReply, _ path: String, _ status: Int32?) throws {
        let output = TraceRecordOutput(reply, file: path, commandStatus: status)
        let text = TraceText.recorded(output)
        if path == "-" { return Console.note(text) }
        try Console.show(Versioned(output), as: common.output) { text }
    }
}

struct TraceAttachCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach", abstract: "Push a recorded trace beside its image.",
        discussion: """
            EXAMPLES:
              chunkctl trace attach registry.example/app:1 app.trace

            The image itself stays as it is, with its digest. A trace that was attached before is replaced. Where the
            registry keeps no list of referrers, the tag sha256-HEX of the image is written.
            """)

    @Argument(help: "Image: HOST[:PORT]/NAME[:TAG][@DIGEST].")
    var reference: String

    @Argument(help: "Trace, as chunkctl trace record wrote it.", completion: .file())
    var file: String

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let trace = try TraceFile.read(file)
        let target = try Reference(reference)
        let client = try common.registryClient()
        let image = try await Self.image(trace.image, target, client)
        try trace.check(image: trace.image, blobs: try image.image.traceBlobs())
        let attached = try await client.attach(
            trace.encoded(), artifactType: AccessTrace.mediaType,
            annotations: [RegistryClient.createdAnnotation: UTCTime.text(unixSeconds: Double(time(nil)))],
            to: image.descriptor, in: target)
        let output = TraceAttachOutput(
            reference: reference, manifestDigest: trace.image, artifactDigest: attached.manifest.digest,
            listedBy: attached.isListedByRegistry ? "registry" : "tag",
            tag: attached.isListedByRegistry ? nil : RegistryClient.referrersTag(of: trace.image),
            replaced: attached.replaced)
        try Console.show(Versioned(output), as: common.output) { TraceText.attached(output, trace) }
    }

    /// The manifest with this digest: what the reference stands for, or one of the index it stands for.
    private static func image(
        _ digest: Digest, _ reference: Reference, _ client: RegistryClient
    ) async throws -> (descriptor: Descriptor, image: ChunkdImage) {
        var found = try await client.manifest(reference)
        if case .index(let index) = found.document, index.manifests.contains(where: { $0.digest == digest }) {
            found = try await client.manifest(reference.byDigest(digest))
        }
        guard found.descriptor.digest == digest, case .manifest(let manifest) = found.document else {
            throw ToolError(
                "conflict", "the trace is of image \(digest), \(reference) is \(found.descriptor.digest)",
                hint: "record a trace of the image that the reference stands for now")
        }
        return (found.descriptor, try ChunkdImage(manifest: manifest, bytes: found.bytes))
    }
}

struct TraceShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show an image's trace, or one in a file.",
        discussion: """
            EXAMPLES:
              chunkctl trace show registry.example/app:1
              chunkctl trace show ./app.trace -o json

            What is the name of a file is one; a reference names its registry.
            """)

    @Argument(help: "Image: HOST[:PORT]/NAME[:TAG][@DIGEST]; or a file.", completion: .file())
    var subject: String

    @OptionGroup var common: CommonOptions

    func run() async throws {
        if access(subject, F_OK) == 0 || subject.hasPrefix("/") || subject.hasPrefix("./") {
            return try show(TraceShowOutput(try TraceFile.read(subject), nil))
        }
        let reference = try Reference(subject)
        let client = try common.registryClient()
        let found = try await client.imageManifest(reference, platform: .current)
        let image = try ChunkdImage(manifest: found.manifest, bytes: found.bytes)
        guard
            let (trace, manifest) = try await client.trace(
                of: found.descriptor.digest, blobs: try image.traceBlobs(), in: reference)
        else {
            throw ToolError(
                "notFound", "no trace is attached to \(subject) (\(found.descriptor.digest))",
                hint: "record one: chunkctl trace record --help")
        }
        try show(TraceShowOutput(trace, manifest))
    }

    private func show(_ output: TraceShowOutput) throws {
        try Console.show(Versioned(output), as: common.output) { TraceText.text(output) }
    }
}

/// Traces in files.
enum TraceFile {
    static func read(_ path: String) throws -> AccessTrace {
        let file = try File(path: path, flags: O_RDONLY)
        // One byte more than a trace may have tells a longer file.
        let bytes = try file.bytes(at: 0, count: AccessTrace.maxBytes + 1)
        do throws(OCISpecError) { return try AccessTrace(decoding: bytes) } catch {
            throw ToolError(
                "invalid_document", "\(path): \(error.message)", hint: "expected what chunkctl trace record wrote")
        }
    }
}
