import ContainerTestSupport
import ControlAPI
import FoundationEssentials
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// Images and containers on a cluster's nodes: `cluster/containerd`, umoci and skopeo.
extension Cluster {
    static let registry = "10.77.0.2:5000"

    // MARK: containerd

    /// Starts containerd on a node; what pulls and runs with that snapshotter.
    func startContainerd(_ node: Int, snapshotter: String) throws -> ContainerRuntime {
        try script("containerd", ["start", "\(node)", snapshotter])
        return ContainerRuntime(
            socket: path(node, "containerd/containerd.sock"), logs: path(node, "containerd/logs"))
    }

    /// Ends containerd by a signal and starts it again; containers run on.
    func restartContainerd(_ node: Int, signal: String = "TERM") throws {
        try script("containerd", ["restart", "\(node)", signal])
    }

    /// ctr on a node; what it printed.
    @discardableResult
    func ctr(_ node: Int, _ arguments: String...) throws -> String { try ctr(node, arguments: arguments) }
    @discardableResult
    func ctr(_ node: Int, arguments: [String]) throws -> String {
        try script("containerd", ["ctr", "\(node)"] + arguments)
    }

    /// Has containerd collect now what nothing refers to any more, which it else does in its own time: whoever ends a lease
    /// can wait for that.
    func collect(_ node: Int) throws {
        try ctr(node, "leases", "create", "--id", "collect")
        try ctr(node, "leases", "delete", "--sync", "collect")
    }

    /// Makes a snapshot and removes it, so that containerd's next collection looks at all that are left over; false while
    /// containerd does not reach the snapshotter.
    func removeAnotherSnapshot(_ node: Int, of snapshotter: String) -> Bool {
        let snapshots = ["snapshots", "--snapshotter", snapshotter]
        // It is there already if it was not removed last time.
        _ = try? ctr(node, arguments: snapshots + ["prepare", "another"])
        return (try? ctr(node, arguments: snapshots + ["remove", "another"])) != nil
    }

    /// What a snapshotter has: names of committed and active snapshots.
    func snapshots(_ node: Int, of snapshotter: String) throws -> Set<String> {
        let list = try ctr(node, "snapshots", "--snapshotter", snapshotter, "ls")
        return Set(
            list.split(separator: "\n").dropFirst().compactMap { $0.split(separator: " ").first.map(String.init) })
    }

    /// What a container has printed; the lines without containerd's heads.
    func output(_ node: Int, of container: String) -> String {
        TemporaryDirectory.text(of: path(node, "containerd/logs/\(container).log"))
            .split(separator: "\n").map { $0.split(separator: " ", maxSplits: 3).last.map(String.init) ?? "" }
            .joined(separator: "\n")
    }

    /// Waits for what a container of a `ContainerImage` prints when it starts.
    func expectGreeting(of container: String, location: SourceLocation = #_sourceLocation) throws {
        var found = ""
        let isGreeted = Wait.until(.seconds(20)) {
            found = output(1, of: container)
            return found == ContainerImage.greeting
        }
        #expect(isGreeted, "it printed \(found)", sourceLocation: location)
    }

    /// Bytes on disk of what containerd and chunkd store on a node.
    func stored(_ node: Int) throws -> UInt64 {
        let text = try Command.run("du", "-scx", "--block-size=1", path(node, "containerd/root"), path(node, "state"))
        let total = try #require(text.split(separator: "\n").last)
        return try #require(total.split(separator: "\t").first.flatMap { UInt64($0) }, "du said \(text)")
    }

    // MARK: The registry's access log

    /// A GET of a blob or manifest.
    struct Download {
        let name: String
        let status: Int
        let isContainerd: Bool
    }

    /// All GETs of blobs and manifests of a repository that it has answered.
    func downloads(of repository: String) -> [Download] {
        TemporaryDirectory.text(of: directory + "/registry.log").split(separator: "\n").compactMap { line in
            let parts = line.split(separator: "\"", omittingEmptySubsequences: false)
            // ADDRESS - - [TIME] "GET /v2/…/blobs/… HTTP/1.1" STATUS BYTES "" "AGENT"
            guard parts.count >= 6, parts[1].hasPrefix("GET /v2/\(repository)/"),
                let name = parts[1].split(separator: " ").dropFirst().first?.split(separator: "/").last,
                let status = parts[2].split(separator: " ").first.flatMap({ Int($0) })
            else { return nil }
            return Download(name: String(name), status: status, isContainerd: parts[5].hasPrefix("containerd/"))
        }
    }

    /// The manifest of an image, as the registry has it.
    func manifest(of image: String) throws -> String {
        try Command.run(
            "nsenter", "--net=/run/netns/chunkd-reg", "skopeo", "inspect", "--raw", "--tls-verify=false",
            "docker://" + image)
    }

    /// The images that chunkd has on a node.
    func images(_ node: Int) throws -> [ImageSummary] {
        let reply: ImagesReply = try decoded(try exec(node, "images", "-o", "json"))
        return reply.images
    }

    // MARK: Images

    /// Makes an image of busybox and random files and pushes it, as it is and as a chunkd image.
    func makeContainerImage(_ name: String, megabytes: Int) throws -> ContainerImage {
        let made = try ScratchDirectory("container-image")
        let references = ["", "-chunkd"].map { "\(Self.registry)/test/\(name)\($0):1" }
        var command = Command("bash", ["-euo", "pipefail", "-c", ContainerImage.script, "make"])
        command.arguments += [made.path, "\(megabytes)", references[0]]
        if let login { command.arguments += ["\(login.user):\(login.password)"] }
        try command.require()
        try exec(1, "image", "build", references[0], references[1])
        return ContainerImage(
            ordinary: references[0], converted: references[1], repository: "test/\(name)",
            sums: TemporaryDirectory.text(of: made.appending("sums")))
    }
}

/// An image to run containers of, in both forms.
struct ContainerImage {
    /// Made of layers, of which later ones replace, hide and add files.
    let ordinary: String
    /// A chunkd image made from it.
    let converted: String
    /// Of the ordinary one; the other's has `-chunkd` behind.
    let repository: String
    /// What `sha256sum` prints in a container of it of all that it has beneath /data, by name.
    let sums: String

    /// What it prints when it starts: its config's entrypoint, cmd, user and environment are in it.
    static let greeting = "hello from 1234"

    /// DIRECTORY MEGABYTES REFERENCE [USER:PASSWORD]
    fileprivate static let script = """
        cd "$1"
        mkdir -p bin data/opaque opaque home
        cp "$(command -v busybox)" bin/busybox
        for name in sh cat sha256sum tail id ls find sort dd; do ln -s busybox "bin/$name"; done
        printf '%s\\n' root:x:0:0::/:/bin/sh app:x:1234:1235::/:/bin/sh >passwd
        echo note >home/note
        chown -R 1234:1235 home
        head -c "$2"M /dev/urandom >data/large
        for name in replaced hidden opaque/hidden opaque/replaced; do head -c 70001 /dev/urandom >"data/$name"; done
        head -c 90001 /dev/urandom >replaced
        cp replaced opaque/replaced
        layer() { umoci insert --image layout:1 "$@"; }
        umoci init --layout layout
        umoci new --image layout:1
        layer bin /bin
        layer passwd /etc/passwd
        layer home /home/app
        layer data /data
        layer replaced /data/replaced
        layer --whiteout /data/hidden
        layer --opaque opaque /data/opaque
        umoci config --image layout:1 --config.env PATH=/bin --config.env GREETING=hello --config.user app \\
            --config.entrypoint /bin/sh --config.entrypoint -c \\
            --config.cmd 'echo "$GREETING from $(id -u)"; exec tail -f /dev/null'
        # What the layers amount to.
        rm -r data/hidden data/opaque
        mv opaque replaced data/
        find data -type f | LC_ALL=C sort | xargs sha256sum | sed 's|  |  /|' >sums
        nsenter --net=/run/netns/chunkd-reg skopeo copy --quiet --insecure-policy --dest-tls-verify=false \\
            ${4:+--dest-creds "$4"} oci:layout:1 "docker://$3"
        """
}
