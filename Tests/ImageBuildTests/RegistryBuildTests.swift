import ChunkModel
import Glibc
import ImageBuild
import LinuxSystem
import OCISpec
import RegistryClient
import Testing
import TestSupport

@Suite("Images come from registries and go to registries", .serialized)
struct RegistryBuildTests {
    private let workshop: Workshop

    init() throws { workshop = try Workshop("registry") }

    private func client(_ registries: RegistryFixture...) -> RegistryClient {
        var hosts: [String: HostConfiguration] = [:]
        for registry in registries { hosts[registry.host] = HostConfiguration(usesPlainHTTP: true) }
        return RegistryClient(configuration: RegistryConfiguration(hosts: hosts))
    }

    private func layer() -> TarArchive {
        var tar = TarArchive()
        tar.add("etc/", .directory, mode: 0o755)
        tar.add("etc/name", .file, Array("value".utf8))
        var random = SeededGenerator(seed: 4)
        tar.add("data", .file, random.bytes(5_000_000))
        return tar
    }

    @Test func aRegistryIsSourceAndDestination() async throws {
        let registry = try RegistryFixture.start()
        defer { registry.stop() }
        let client = client(registry)
        var image = OrdinaryImage(layers: [layer()])
        image.compression = .zstd
        try image.write(to: workshop.path("source"), tag: "t")
        try Command.run(
            "skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--preserve-digests",
            "oci:" + workshop.path("source") + ":t", "docker://\(registry.host)/team/app:1")
        let source = try ImageSource(argument: "\(registry.host)/team/app:1")
        let builder = ImageBuilder(options: try workshop.options(), registry: client)
        let pushed = try await builder.build(
            source: source, destination: try ImageDestination(argument: "\(registry.host)/team/app:chunked"))
        let local = try await builder.build(
            source: .layout(path: workshop.path("source"), tag: "t"),
            destination: .layout(path: workshop.path("image"), tag: nil))
        #expect(pushed.manifestDigest == local.manifestDigest)
        let inspector = ImageInspector(registry: client)
        let remote = try await inspector.inspect(try ImageDestination(argument: "\(registry.host)/team/app:chunked"))
        let here = try await workshop.inspect()
        #expect(remote.manifestDigest == here.manifestDigest && remote.blobs == here.blobs && remote.tree == here.tree)
        let again = try await builder.build(
            source: source, destination: try ImageDestination(argument: "\(registry.host)/team/app:chunked"))
        #expect(again.manifestDigest == pushed.manifestDigest)
        #expect(workshop.leftovers == [])
        await client.shutDown()
    }

    @Test func skopeoCarriesAnImageAwayAndBackUnchanged() async throws {
        let (one, two) = (try RegistryFixture.start(), try RegistryFixture.start())
        defer {
            one.stop()
            two.stop()
        }
        let client = client(one, two)
        try OrdinaryImage(layers: [layer()]).write(to: workshop.path("source"), tag: "t")
        let built = try await ImageBuilder(options: try workshop.options(), registry: client).build(
            source: .layout(path: workshop.path("source"), tag: "t"),
            destination: .registry(try Reference("\(one.host)/a/b:x")))
        func copy(_ from: String, _ to: String) throws {
            try Command.run(
                "skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests",
                from, to)
        }
        try copy("docker://\(one.host)/a/b:x", "docker://\(two.host)/c:y")
        try copy("docker://\(two.host)/c:y", "oci:" + workshop.path("copied") + ":z")
        try copy("oci:" + workshop.path("copied") + ":z", "docker://\(one.host)/d:back")
        for reference in ["\(two.host)/c:y", "\(one.host)/d:back"] {
            let found = try await ImageInspector(registry: client).inspect(.registry(try Reference(reference)))
            #expect(found.manifestDigest == built.manifestDigest, "\(reference)")
        }
        #expect(try await workshop.inspect("copied", tag: "z").manifestDigest == built.manifestDigest)
        await client.shutDown()
    }

    @Test func failuresNameTheReference() async throws {
        let registry = try RegistryFixture.start()
        defer { registry.stop() }
        let client = client(registry)
        let builder = ImageBuilder(options: try workshop.options(), registry: client)
        let destination = ImageDestination.layout(path: workshop.path("image"), tag: nil)
        do {
            _ = try await builder.build(
                source: try ImageSource(argument: "\(registry.host)/none:1"), destination: destination)
            Issue.record("built from an image that is not there")
        } catch let error as ImageBuildError {
            #expect(error.code == .badSource && error.description.contains("\(registry.host)/none:1"))
        }
        let pinned = try Reference("\(registry.host)/a@sha256:" + String(repeating: "0", count: 64))
        await #expect(throws: ImageBuildError.self, "a destination with a digest") {
            try await builder.build(source: .directory("/etc"), destination: .registry(pinned))
        }
        await #expect(throws: ImageBuildError.self, "no client") {
            try await ImageBuilder(options: try workshop.options()).build(
                source: .registry(try Reference("\(registry.host)/a:1")), destination: destination)
        }
        #expect(workshop.leftovers == [])
        await client.shutDown()
    }
}
