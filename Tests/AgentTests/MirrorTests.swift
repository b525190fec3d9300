import ChunkModel
import Glibc
import HTTPTransfer
import Integrity
import LinuxSystem
import Mirror
import OCISpec
import RegistryClient
import Telemetry
import TestSupport
import Testing

@testable import Agent

@Suite("The mirror of ordinary images", .timeLimit(.minutes(3))) struct MirrorTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory(prefix: "chunkd-mirror") }

    private func with<Value>(_ rig: MirrorRig, _ body: (MirrorRig) async throws -> Value) async throws -> Value {
        let result: Result<Value, any Error>
        do { result = .success(try await body(rig)) } catch { result = .failure(error) }
        try await rig.stop()
        return try result.get()
    }

    @Test("an image is pulled through it once, and then comes from the disk, also without the registry")
    func pulls() async throws {
        let registry = try RegistryFixture.start()
        let image = try await OrdinaryImage.push(to: registry, "team/app", layers: [3_000_000, 70_000])
        try await with(try await MirrorRig(registry.host, directory: directory.path + "/m")) { rig in
            try await rig.pull(image)
            let total = UInt64(image.blobs.reduce(0) { $0 + $1.count })
            #expect(rig.bytes(from: "registry") == total && rig.bytes(from: "cache") == 0)
            let head = try await rig.manifest(image, .head)
            #expect(head.head.first("Docker-Content-Digest") == image.manifest.description && head.body.isEmpty)
            #expect(head.head.first("Content-Type") == MediaTypes.ociManifest)
            registry.stop()
            for number in image.blobs.indices {
                #expect(try await rig.blob(number, of: image).body == image.blobs[number])
            }
            let part = try await rig.blob(1, of: image, range: "bytes=2999000-")
            #expect(part.head.status == 206 && part.body == Array(image.blobs[1][2_999_000...]))
            #expect(part.head.first("Content-Range") == "bytes 2999000-2999999/3000000")
            let size = try await rig.blob(1, of: image, .head)
            #expect(size.head.status == 200 && size.head.contentLength == 3_000_000 && size.body.isEmpty)
            #expect(try await rig.blob(1, of: image, range: "bytes=3000000-").head.status == 416)
            #expect(rig.bytes(from: "registry") == total, "nothing was fetched twice")
            #expect(try await rig.manifest(image).head.status == 502, "having a manifest is the registry's word")
        }
    }

    @Test("what is not for it is answered so that containerd goes on to the registry")
    func refuses() async throws {
        let registry = try RegistryFixture.start()
        let image = try await OrdinaryImage.push(to: registry, "app", layers: [1000])
        try await with(try await MirrorRig(registry.host, directory: directory.path + "/m")) { rig in
            func status(_ target: String) async throws -> Int { try await rig.ask(target).head.status }
            let none = String(repeating: "0", count: 64)
            let base = try await status("/v2/")
            #expect(base == 200)
            #expect(try await status("/v2/app/manifests/latest?ns=\(registry.host)") == 404)
            #expect(try await status("/v2/app/manifests/\(image.manifest)?ns=docker.io") == 404)
            #expect(try await status("/v2/app/manifests/\(image.manifest)") == 404)
            #expect(try await status("/v2/app/blobs/sha256:\(none)?ns=\(registry.host)") == 404)
            #expect(try await status("/v2/app/manifests/sha256:\(none)?ns=\(registry.host)") == 404)
            #expect(try await rig.ask("/v2/", .put).head.status == 405)
            registry.stop()
            #expect(try await status("/v2/app/blobs/\(image.digests[1])?ns=\(registry.host)") == 502)
            #expect(rig.metrics.mirroring.requests["other", "tag"].value == 1)
            #expect(rig.metrics.mirroring.requests["other", "registry"].value == 1)
        }
    }

    @Test("a private image is given to those alone whom the registry gives it, from the disk too")
    func credentials() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let image = try await OrdinaryImage.push(
            to: registry, "secret", layers: [100_000], credential: .password(username: "u", password: "p"))
        try await with(
            // The node could pull it: that is nobody else's business.
            try await MirrorRig(
                registry.host, directory: directory.path + "/m",
                credential: .password(username: "u", password: "p"))
        ) { rig in
            let challenge = try await rig.manifest(image)
            #expect(challenge.head.status == 401)
            #expect(challenge.head.first("WWW-Authenticate") == "Basic realm=\"\(registry.host)\"")
            #expect(try await rig.manifest(image, authorization: MirrorRig.bad).head.status == 404)
            #expect(try await rig.manifest(image, authorization: "Bearer x").head.status == 404)
            #expect(try await rig.blob(1, of: image).head.status == 401)
            try await rig.pull(image, authorization: MirrorRig.good)
            // Now it is on the disk.
            #expect(try await rig.blob(1, of: image).head.status == 401)
            #expect(try await rig.blob(1, of: image, .head).head.status == 401)
            #expect(try await rig.blob(1, of: image, authorization: MirrorRig.bad).head.status == 404)
            #expect(try await rig.blob(1, of: image, authorization: MirrorRig.good).body == image.blobs[1])
            // Nor does another repository's right help.
            let elsewhere = try await rig.ask(
                "/v2/other/blobs/\(image.digests[1])?ns=\(registry.host)", authorization: MirrorRig.good)
            #expect(elsewhere.head.status == 404)
        }
        // The next process knows no rights, and the files are there.
        try await with(try await MirrorRig(registry.host, directory: directory.path + "/m")) { rig in
            let bare = try await rig.blob(1, of: image).head.status
            #expect(bare == 401)
            #expect(try await rig.blob(1, of: image, authorization: MirrorRig.good).body == image.blobs[1])
            #expect(rig.bytes(from: "cache") == 100_000 && rig.bytes(from: "registry") == 0)
        }
    }

    @Test("this node's credentials serve others only when the operator says so")
    func nodeCredentials() async throws {
        let registry = try RegistryFixture.start(auth: .password)
        let image = try await OrdinaryImage.push(
            to: registry, "secret", layers: [1000], credential: .password(username: "u", password: "p"))
        let rig = try await MirrorRig(
            registry.host, directory: directory.path + "/m", usesNodeCredentials: true,
            credential: .password(username: "u", password: "p"))
        try await with(rig) { rig in
            try await rig.pull(image)
            #expect(try await rig.manifest(image, authorization: MirrorRig.bad).head.status == 404)
        }
    }

    @Test("many that ask for one blob at once have it fetched once")
    func singleFlight() async throws {
        let registry = try RegistryFixture.start()
        let image = try await OrdinaryImage.push(to: registry, "app", layers: [5_000_000])
        try await with(try await MirrorRig(registry.host, directory: directory.path + "/m")) { rig in
            _ = try await rig.manifest(image)
            try await withThrowingTaskGroup(of: [UInt8].self) { group in
                for _ in 0..<12 { group.addTask { try await rig.blob(1, of: image).body } }
                for try await body in group { #expect(body == image.blobs[1]) }
            }
            #expect(rig.bytes(from: "registry") + rig.bytes(from: "cache") >= 5_000_000)
            let gets = registry.log.split(separator: "\n").filter { line in
                line.contains("\"GET /v2/app/blobs/\(image.digests[1])")
            }
            #expect(gets.count == 1)
        }
    }

    @Test("a registry that sends wrong bytes is not passed off as right: the answer breaks off, and nothing is kept")
    func wrongBytes() async throws {
        let registry = try RegistryFixture.start()
        let image = try await OrdinaryImage.push(to: registry, "app", layers: [2_000_000])
        let hex = image.digests[1].hex
        let data = registry.dataDirectory + "/docker/registry/v2/blobs/sha256/\(hex.prefix(2))/\(hex)/data"
        try File(path: data, flags: O_WRONLY).writeAll([image.blobs[1][1000] ^ 1], at: 1000)
        try await with(try await MirrorRig(registry.host, directory: directory.path + "/m")) { rig in
            _ = try await rig.manifest(image)
            await #expect(throws: (any Error).self) { try await rig.blob(1, of: image) }
            #expect(rig.metrics.mirroring.failures["wrong_bytes"].value == 1)
            #expect(
                try Directory.names(rig.directory + "/blobs") == [] && Directory.names(rig.directory + "/new") == [])
            #expect(try await rig.blob(1, of: image).head.status == 404, "containerd goes on to the registry at once")
        }
    }

    @Test("what has no room is left to the registry")
    func noRoom() async throws {
        let registry = try RegistryFixture.start()
        let image = try await OrdinaryImage.push(to: registry, "app", layers: [2_000_000, 1000])
        try await with(
            try await MirrorRig(registry.host, directory: directory.path + "/m", quota: 1_000_000)
        ) { rig in
            _ = try await rig.manifest(image)
            #expect(try await rig.blob(1, of: image).head.status == 502)
            #expect(rig.metrics.mirroring.failures["quota"].value == 1)
            #expect(try await rig.blob(2, of: image).body == image.blobs[2])
        }
    }
}
