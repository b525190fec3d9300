import Glibc
import LinuxSystem
import TestSupport
import Testing

@testable import ControlTool

@Suite("hosts.toml files") struct HostsFileTests {
    let directory: TemporaryDirectory
    let file = HostsFile(
        registry: "docker.io", server: "https://registry-1.docker.io", caFile: "", endpoint: "http://127.0.0.1:4712",
        madeDirectories: 0)

    init() throws { directory = try TemporaryDirectory(prefix: "chunkd-hosts") }

    func text(_ path: String) -> String { TemporaryDirectory.text(of: path) }

    @Test("one is written, found again, replaced by a newer one of ours, and removed with what was made for it")
    func roundTrip() throws {
        let hosts = HostsDirectory(directory.path + "/certs.d")
        #expect(try hosts.find(file) == .nothing)
        try hosts.write(file)
        let path = directory.path + "/certs.d/docker.io/hosts.toml"
        #expect(
            text(path).hasSuffix(
                """
                server = "https://registry-1.docker.io"

                [host."http://127.0.0.1:4712"]
                  capabilities = ["pull"]

                """))
        #expect(try hosts.find(file) == .ours(isCurrent: true))
        var other = file
        other.endpoint = "http://127.0.0.1:5555"
        other.caFile = "/etc/a \"b\".crt"
        #expect(try hosts.find(other) == .ours(isCurrent: false))
        try hosts.write(other)
        #expect(text(path).contains(#"ca = "/etc/a \"b\".crt""#))
        #expect(try hosts.find(other) == .ours(isCurrent: true))
        #expect(try hosts.registries() == ["docker.io"])
        #expect(try hosts.remove("docker.io"))
        #expect(try !hosts.remove("docker.io"))
        #expect(!Directory.exists(directory.path + "/certs.d"), "it was made for this")
    }

    @Test("directories that were there, or that others use, stay")
    func directories() throws {
        let certs = directory.path + "/certs.d"
        try Directory.create(certs, mode: 0o755)
        try Directory.create(certs + "/docker.io", mode: 0o755)
        let hosts = HostsDirectory(certs)
        try hosts.write(file)
        #expect(try hosts.remove("docker.io"))
        #expect(try Directory.names(certs) == ["docker.io"])
    }

    @Test("somebody else's file, and one of ours that was changed, are left alone")
    func foreign() throws {
        let hosts = HostsDirectory(directory.path)
        let path = directory.path + "/docker.io/hosts.toml"
        try hosts.write(file)
        let ours = text(path)
        for changed in [
            "server = \"https://registry-1.docker.io\"\n", "", ours + " ", String(ours.dropLast()),
            ours.replacing("4712", with: "4713"), ours.replacing("made: 1", with: "made: 9"),
            String(ours.drop { $0 != "\n" }),
        ] {
            try directory.write("docker.io/hosts.toml", changed)
            #expect(try hosts.find(file) == .foreign(path: path))
            #expect(try !hosts.remove("docker.io"))
            #expect(try hosts.registries() == [])
            #expect(text(path) == changed)
        }
        unlink(path)
        try directory.write("elsewhere", ours)
        symlink(directory.path + "/elsewhere", path)
        #expect(try hosts.find(file) == .foreign(path: path), "a link to one of ours")
        #expect(try !hosts.remove("docker.io"))
    }

    @Test("nothing is written where it would hide what holds now")
    func hidden() throws {
        let hosts = HostsDirectory(directory.path)
        try directory.write("docker.io/ca.crt", "x")
        #expect(try hosts.find(file) == .hidden(path: directory.path + "/docker.io/ca.crt"))
        unlink(directory.path + "/docker.io/ca.crt")
        #expect(try hosts.find(file) == .nothing)
        try directory.write("_default/hosts.toml", "x")
        #expect(try hosts.find(file) == .hidden(path: directory.path + "/_default"))
    }
}
