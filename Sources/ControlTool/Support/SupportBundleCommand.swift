import ArgumentParser
import ChunkModel
import ControlAPI
import Glibc
import LinuxSystem

struct SupportBundleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "support-bundle",
        abstract: "Collect what is needed to understand this node into one file, without secrets.",
        discussion: """
            EXAMPLES:
              chunkctl support-bundle
              chunkctl support-bundle /tmp/node-7.tar.gz --journal-lines 20000

            Works while chunkd is down. manifest.json inside lists what there is and what could not be had. Passwords, tokens, keys and
            authentication files are never read, logins in URLs and values named like secrets are taken out; names of images, nodes and
            registries are left. Run it as root: some of it is not to be seen else. Look through it before you hand it on.
            """)

    @Argument(
        help: "File to write (default: chunkd-support-NODE-TIME.tar.gz here).", completion: .file(extensions: ["gz"]))
    var file: String?

    @Option(help: ArgumentHelp("Last lines of the journal; 0 for none.", valueName: "n"))
    var journalLines = 5000

    @Flag(help: "Replace a file of that name.")
    var force = false

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (0...1_000_000).contains(journalLines) else {
            throw ValidationError("--journal-lines: expected 0 to 1000000, found \(journalLines)")
        }
    }

    func run() async throws {
        let settings = try common.settings()
        let now = ContinuousClock.now
        let time = Self.unixSeconds()
        let node = Self.nodeName()
        let stem = "chunkd-support-\(node)-" + UTCTime.text(unixSeconds: time).filter { $0 != ":" && $0 != "-" }
        let target = file ?? stem + ".tar.gz"
        if !force, Directory.exists(target) { throw Self.isThere(target) }
        // Whatever is made on the way is for its owner alone.
        umask(0o077)
        let folder = try TemporaryFolder()
        // Not left to the last reference, which a thread may hold until after the end of the process.
        defer { folder.remove() }
        let collector = SupportCollector(directory: folder.path + "/" + stem)
        try Directory.create(collector.directory, mode: 0o700)
        let isReached = await SupportSources(settings: settings, journalLines: journalLines).collect(into: collector)
        try collector.finish(
            SupportManifest(
                node: node, createdUnixSeconds: time, version: chunkdVersion, isAgentReached: isReached))
        let bytes = try await OwnThread.run { [force] in
            try Self.pack(stem, in: folder.path, time: time, into: target, force: force)
        }
        let missing = collector.items.filter { $0.error != nil }
        if !isReached { Console.note("chunkctl: chunkd does not answer: the bundle has what is known without it") }
        let output = SupportOutput(
            file: target, bytes: bytes, files: UInt64(collector.items.count - missing.count) + 1, missing: missing,
            seconds: (ContinuousClock.now - now) / .seconds(1))
        try Console.show(output, as: common.output) { Self.text(output) }
    }

    private static func text(_ output: SupportOutput) -> String {
        let line = "\(output.file): \(Table.bytes(output.bytes)), \(output.files) files"
        guard !output.missing.isEmpty else { return line }
        let rows = output.missing.map { [$0.name, $0.error ?? ""] }
        return line + "\n\n" + Table.render(header: ["INCOMPLETE OR MISSING", "WHY"], rows: rows)
    }

    /// Packs the folder in one order, with one time and one owner, and gives the file its name only when it is whole.
    private static func pack(
        _ stem: String, in folder: String, time: Double, into target: String, force: Bool
    ) throws -> UInt64 {
        guard let tar = Program.find("tar") else { throw ToolError("notFound", "tar is not installed") }
        let part = target + ".part-\(getpid())"
        defer { unlink(part) }
        // Made here, so that tar opens a file that only its owner can read.
        _ = try NewFile.create(part)
        let outcome = try Program.run(
            tar,
            [
                "--create", "--force-local", "--file", part.hasPrefix("/") ? part : "./" + part,
                "--use-compress-program", "gzip -n",
                "--format", "ustar", "--sort", "name", "--owner", "0", "--group", "0", "--numeric-owner", "--mtime",
                "@\(Int(time))", "--directory", folder, stem,
            ])
        guard outcome.status == 0 else { throw ToolError("failed", "tar \(outcome.how): \(outcome.output)") }
        let bytes = try File(path: part, flags: O_RDONLY | O_NOFOLLOW).size()
        if force {
            try Directory.rename(part, to: target)
        } else if link(part, target) != 0 {
            // link(2) replaces nothing, whoever was quicker.
            throw errno == EEXIST ? isThere(target) : ToolError(SystemError(errno, "link", target))
        }
        return bytes
    }

    private static func isThere(_ target: String) -> ToolError {
        ToolError("conflict", "\(target) is there already", hint: "name another file, or --force to replace it")
    }

    private static func unixSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec)
    }

    /// The host's name, fit for the name of a file.
    static func nodeName() -> String {
        var name = utsname()
        uname(&name)
        let text = withUnsafeBytes(of: &name.nodename) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let plain = text.map { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "." || $0 == "-") ? $0 : "_" }
        return plain.isEmpty || plain.first == "." ? "node" : String(plain.prefix(64))
    }
}

/// `chunkctl support-bundle -o json`.
private struct SupportOutput: Encodable {
    var apiVersion = ControlVersion.current
    var file: String
    var bytes: UInt64
    /// With the manifest.
    var files: UInt64
    var missing: [SupportCollector.Item]
    var seconds: Double
}
