import ControlAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// A cluster made by the scripts people use: `cluster/up`, `cluster/exec` and `cluster/scenarios`. Taken down at the
/// end.
final class Cluster {
    static let megabyte = 1_000_000

    let scratch: ScratchDirectory
    let directory: String
    let count: Int
    private let owner: pid_t
    private let scripts: String
    private let settings: String
    private let hasPrivateRegistry: Bool
    private var original = ""

    /// - Parameters:
    ///   - settings: lines of every node's configuration beside those of the script.
    ///   - owner: the process without which nobody needs the cluster.
    ///   - hasPrivateRegistry: the registry has TLS and a password, which nodes know.
    init(
        nodes: Int, settings: [String] = [], owner: pid_t = getpid(), hasPrivateRegistry: Bool = false
    ) throws {
        count = nodes
        self.hasPrivateRegistry = hasPrivateRegistry
        self.owner = owner
        scratch = try ScratchDirectory("cluster")
        directory = scratch.appending("c")
        self.settings = scratch.appending("settings")
        var path = #filePath.split(separator: "/").map(String.init)
        path.removeLast(3)
        scripts = "/" + path.joined(separator: "/") + "/cluster"
        let file = try File(path: self.settings, flags: O_WRONLY | O_CREAT, mode: 0o644)
        try Array(settings.map { $0 + "\n" }.joined().utf8).withUnsafeBytes { try file.writeAll($0, at: 0) }
        try script("up", ["\(nodes)"], limit: .seconds(120))
    }

    deinit {
        var down = Command(scripts + "/down")
        down.environment = environment
        // Nothing can be thrown here; what is left behind is taken down by the next `up`, once this process is gone.
        _ = try? down.run()
    }

    private var environment: [String: String] {
        [
            "CHUNKD_CLUSTER_DIR": directory, "CHUNKD_PROGRAMS": Programs.directory, "CHUNKD_SETTINGS": settings,
            "CHUNKD_CLUSTER_OWNER": "\(owner)", "CHUNKD_REGISTRY_TLS": hasPrivateRegistry ? "1" : "",
        ]
    }

    /// What the registry lets in; nil when that is everybody.
    var login: (user: String, password: String)? {
        guard hasPrivateRegistry else { return nil }
        let text = TemporaryDirectory.text(of: directory + "/registry-tls/password")
        return ("demo", String(text.prefix { $0 != "\n" }))
    }

    /// Runs one of the scripts in cluster/; what it printed.
    @discardableResult
    func script(_ name: String, _ arguments: [String], limit: Duration = .seconds(60)) throws -> String {
        var command = Command(scripts + "/" + name, arguments)
        command.environment = environment
        command.limit = limit
        return try command.require()
    }

    /// Runs one of `cluster/scenarios`.
    func scenario(_ name: String, _ arguments: String...) throws { try script("scenarios/" + name, arguments) }

    func path(_ node: Int, _ name: String) -> String { "\(directory)/n\(node)/\(name)" }

    // MARK: What a node says

    /// chunkctl on a node; what it printed.
    @discardableResult
    func exec(_ node: Int, _ arguments: String...) throws -> String { try script("exec", ["\(node)"] + arguments) }

    func stat(_ node: Int) throws -> StatReply { try decoded(try exec(node, "stat", "-o", "json")) }
    func peers(_ node: Int) throws -> PeersReply { try decoded(try exec(node, "peers", "-o", "json")) }
    func explain(_ node: Int, _ subject: String) throws -> ExplainReply {
        try decoded(try exec(node, "explain", subject, "-o", "json"))
    }
    func spans(_ node: Int) throws -> SpansReply { try decoded(try exec(node, "spans", "-o", "json")) }
    func drain(_ node: Int) throws -> DrainReply { try decoded(try exec(node, "drain", "-o", "json")) }

    /// For the message of an expectation that failed: what the node went through.
    func story(_ node: Int, unless isFine: Bool) throws -> String {
        if isFine { return "" }
        return try "node \(node):\n" + exec(node, "events") + exec(node, "spans", "--slowest", "6")
    }

    func verify(_ node: Int, _ image: String) throws -> VerifyReply {
        // Status 1 is its way to say that chunks are bad.
        var command = Command(scripts + "/exec", ["\(node)", "verify", image, "-o", "json"])
        command.environment = environment
        return try decoded(try command.run().text)
    }

    func decoded<Value: Decodable>(_ text: String) throws -> Value {
        try JSONDecoder().decode(Value.self, from: Data(text.utf8))
    }

    /// How `asker` sees `node`.
    func peer(_ node: Int, of asker: Int) throws -> PeerSummary? {
        try peers(asker).peers.first { $0.name == "node-\(node)" }
    }

    /// Whether every one of these nodes sees all of them alive.
    func seeEachOther(_ nodes: [Int]) throws -> Bool {
        try nodes.allSatisfy { asker in
            let peers = try peers(asker).peers
            return nodes.allSatisfy { node in
                peers.contains { $0.name == "node-\(node)" && ["alive", "self"].contains($0.state) }
            }
        }
    }

    /// A metric's samples, those with all these labels.
    func samples(
        _ node: Int, _ name: String, _ labels: [String: String] = [:]
    ) throws -> [PrometheusText.Sample] {
        let page = try PrometheusText(
            try exec(node, "--", "curl", "-sf", "-m", "5", "http://10.77.0.\(10 + node):4711/metrics"))
        return page.families.flatMap(\.samples).filter { sample in
            let found = Dictionary(uniqueKeysWithValues: sample.labels.map { ($0.name, $0.value) })
            return sample.name == name && found.merging(labels) { $1 } == found
        }
    }

    /// The sum of these samples.
    func metric(_ node: Int, _ name: String, _ labels: [String: String] = [:]) throws -> Double {
        try samples(node, name, labels).reduce(0) { $0 + $1.value }
    }

    func agentPid(_ node: Int) throws -> pid_t {
        let text = String(decoding: try readProcFile(path(node, "agent.pid")), as: UTF8.self)
        return try #require(pid_t(text.split(separator: "\n").first ?? ""), "no pid of node \(node)")
    }

    // MARK: Images

    /// Builds and pushes an image of one random file; its reference.
    func build(megabytes: Int) throws -> String {
        let tree = try scratch.makeDirectory("tree")
        original = tree + "/data"
        try Command.run("sh", "-c", "head -c \(megabytes * Self.megabyte) /dev/urandom >\(original)")
        let reference = "10.77.0.2:5000/test/tree:1"
        try exec(1, "image", "build", tree, reference)
        return reference
    }

    private func mountPoint(_ node: Int) -> String { path(node, "mnt") }

    func mount(_ node: Int, _ image: String) throws {
        try Command.run("mkdir", "-p", mountPoint(node))
        try exec(node, "mount", image, mountPoint(node))
    }

    private func comparison(_ node: Int) -> String { "cmp \(original) \(mountPoint(node))/data" }

    /// A process that reads the file, or some of it: status 0 when every byte is right, 1 when one is wrong, 2 for EIO.
    func read(_ node: Int, megabytes: Range<Int>? = nil) throws -> ProcessFixture {
        let part = megabytes.map { " -i \($0.lowerBound * Self.megabyte) -n \($0.count * Self.megabyte)" } ?? ""
        return try ProcessFixture(
            ["sh", "-c", "exec " + comparison(node) + part], logFile: scratch.appending("read-\(node).log"))
    }

    /// The same with the mount before, so that several nodes do both at once.
    func mountAndRead(_ node: Int, _ image: String) throws -> ProcessFixture {
        try Command.run("mkdir", "-p", mountPoint(node))
        return try ProcessFixture(
            ["sh", "-c", "\(scripts)/exec \(node) mount \(image) \(mountPoint(node)) && \(comparison(node))"],
            environment: environment, logFile: scratch.appending("read-\(node).log"))
    }

    /// Takes everything but manifests from the registry's disk.
    func removeBlobs() throws {
        let blobs = directory + "/registry/docker/registry/v2/blobs"
        let kind = "application/vnd.oci.image.manifest"
        try Command.run("sh", "-c", "find \(blobs) -name data | xargs grep -L -a \(kind) | xargs rm")
    }

    /// Writes a wrong byte in the middle of the files of a node that a pattern names; at least one.
    func spoil(_ node: Int, _ pattern: String) throws {
        try Command.run(
            "sh", "-c",
            """
            for file in \(path(node, pattern)); do
                size=$(stat -c %s "$file") && printf '\\245' | dd of="$file" bs=1 seek=$((size / 2)) conv=notrunc status=none
            done
            """)
    }

    // MARK: Certificates

    /// Issues a certificate for a node and puts it in place of the one it has, as an operator does: whole files, the
    /// key first. `authority` is a directory of `chunkctl pki init`.
    func issue(_ node: Int, by authority: String, days: Int) throws {
        let made = try scratch.makeDirectory("issued-\(node)-\(days)")
        try Command.run(
            Programs.path("chunkctl"), "pki", "issue", authority, "node-\(node)", "--out", made, "--days", "\(days)")
        try Command.run("sh", "-c", "chown chunkd \(made)/*")
        for name in ["node-\(node).key", "node-\(node).crt"] {
            try Command.run("mv", "\(made)/\(name)", path(node, "tls/" + name))
        }
    }

    /// The authority that the cluster began with, and the certificate of one.
    var authority: String { directory + "/pki" }
    func bundle(_ authority: String) -> String { TemporaryDirectory.text(of: authority + "/ca.crt") }

    /// Makes an authority; its directory.
    func makeAuthority(_ name: String) throws -> String {
        let made = try scratch.makeDirectory(name)
        try Command.run(Programs.path("chunkctl"), "pki", "init", made, "--trust-domain", "demo.local")
        return made
    }

    /// Replaces a file of a node's identity, whole.
    func replace(_ node: Int, _ name: String, with text: String) throws {
        let (target, new) = (path(node, "tls/" + name), path(node, "tls/new-" + name))
        let file = try File(path: new, flags: O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
        try Array(text.utf8).withUnsafeBytes { try file.writeAll($0, at: 0) }
        try Command.run("mv", new, target)
    }
}

extension StatReply {
    /// Bytes from one kind of source: `peer`, `registry`.
    func bytes(from kind: String) -> UInt64 {
        sources.filter { $0.source == kind || $0.source.hasPrefix(kind + "/") }.reduce(0) { $0 + $1.bytes }
    }
}
