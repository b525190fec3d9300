import Catalogue
import ChunkModel
import ControlAPI
import Integrity
import OCISpec
import RegistryClient
import Settings
import Snapshotter
import TestSupport
import Telemetry
import Testing

@testable import Agent

@Suite("Container snapshots on this node", .timeLimit(.minutes(2)))
struct SnapshotNodeTests {
    private func image(_ workshop: Workshop, _ name: String) async throws -> TestImage {
        let raw = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 7) }
        return try await TestImage.push(
            raw, to: "\(workshop.host)/test/\(name):1", compressed: true, host: workshop.host)
    }

    /// The labels containerd's image service gives a layer.
    private func labels(_ reference: String, _ manifest: Digest, _ layer: Digest, _ number: Int) -> [String: String] {
        [
            "containerd.io/snapshot.ref": "sha256:chain\(number)",
            "containerd.io/snapshot/cri.image-ref": reference,
            "containerd.io/snapshot/cri.manifest-digest": "\(manifest)",
            "containerd.io/snapshot/cri.layer-digest": "\(layer)",
        ]
    }

    /// Pulls an image as containerd does; the name of its last layer.
    private func pull(_ image: TestImage, _ agent: AgentRuntime) async throws -> String {
        let service = try #require(agent.snapshots)
        let found = try await agent.service.images.manifest(image.manifest, by: image.reference).image
        let layers = [found.bootstrap] + found.blobs.flatMap { [$0.descriptor, $0.index] }
        var parent = ""
        for (number, layer) in layers.enumerated() {
            let labels = labels(image.reference, image.manifest, layer.digest, number)
            let error = await #expect(throws: SnapshotError.self) {
                try await service.prepare("extract-\(number)", parent: parent, labels: labels)
            }
            #expect(error?.code == .exists, "\(String(describing: error))")
            parent = "sha256:chain\(number)"
        }
        return parent
    }

    @Test("an image that containers run on is neither unmounted nor removed, and both are done when they are gone")
    func unmountUnderContainers() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "busy")
        try await workshop.run(workshop.settings { $0.snapshotter.enabled = true }) { agent in
            let service = try #require(agent.snapshots)
            let top = try await pull(image, agent)
            _ = try await service.prepare("k8s.io/7/abc", parent: top, labels: [:])
            let request = UmountRequest(manifestDigest: image.manifest)
            for isDryRun in [true, false] {
                let error = await #expect(throws: ControlError.self) {
                    try await agent.service.umount(
                        UmountRequest(manifestDigest: image.manifest, dryRun: isDryRun))
                }
                #expect(error?.code == .conflict)
                #expect(error?.message.contains("\(image.manifest): snapshot k8s.io/7/abc") == true)
                #expect(error?.hint.contains("stop and remove these containers") == true)
            }
            #expect(await agent.service.images.mountPath(image.manifest) != nil)
            #expect(agent.metrics.umountErrors["conflict"].value == 2)
            let refusal = agent.metrics.events.events(after: 0).events.last { $0.kind == .unmountRefused }
            #expect(refusal?.subject == "\(image.manifest)" && refusal?.count == 2)

            // After a reboot the kubelet's containers are in the ledger and the image is mounted nowhere.
            workshop.gate.unmount(image.manifest)
            let everything = GarbageRequest(dryRun: false)
            #expect(try await agent.service.collectGarbage(GarbageRequest(dryRun: true)).removed.isEmpty)
            #expect(try await agent.service.collectGarbage(everything).removed.isEmpty)

            try await service.remove("k8s.io/7/abc")
            let dry = try await agent.service.umount(UmountRequest(manifestDigest: image.manifest, dryRun: true))
            #expect(!dry.released, "nothing is done on a dry run")
            #expect(try await agent.service.umount(request).released)
            let removed = try await agent.service.collectGarbage(everything).removed
            #expect(removed.map(\.manifestDigest) == [image.manifest])

            // containerd still has its layers: the next container has the image mounted again.
            let mounts = try await service.prepare("k8s.io/8/def", parent: top, labels: [:])
            let path = try #require(await agent.service.images.mountPath(image.manifest))
            #expect(mounts.first?.options.last == "lowerdir=\(path)")
        }
    }

    @Test("a chunkd image is mounted by its first layer, carries containers, and goes with its last snapshot")
    func pullAndRemove() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "lazy")
        let settings = workshop.settings { $0.snapshotter.enabled = true }
        try await workshop.run(settings) { agent in
            let service = try #require(agent.snapshots)
            let parent = try await pull(image, agent)
            let path = try #require(await agent.service.images.mountPath(image.manifest))
            let mounts = try await service.prepare("container", parent: parent, labels: [:])
            #expect(mounts.first?.options.last == "lowerdir=\(path)")
            let upper = try #require(mounts.first?.options.first { $0.hasPrefix("upperdir=") })
            #expect(upper.hasPrefix("upperdir=\(workshop.state)/gate/snapshots/") && upper.hasSuffix("/fs"))
            let stored = try await agent.service.images().images
            #expect(stored.map(\.references) == [[image.reference]] && stored.first?.mounted == true)

            // Its container ends, and so does the image.
            for name in ["container", "sha256:chain2", "sha256:chain1", "sha256:chain0"] {
                try await service.remove(name)
            }
            #expect(try await agent.service.images().images.isEmpty)
            #expect(agent.metrics.snapshots.skippedLayers.value == 3)
        }
    }

    @Test("an ordinary image is containerd's to unpack, and its registry is asked once")
    func ordinary() async throws {
        let workshop = try Workshop()
        let reference = "\(workshop.host)/test/ordinary:1"
        let client = RegistryClient(
            configuration: RegistryConfiguration(hosts: [workshop.host: HostConfiguration(usesPlainHTTP: true)]))
        let target = try Reference(reference)
        let pushed = SHA256.hash([1, 2, 3])
        _ = try await client.push(.bytes([1, 2, 3]), digest: pushed, to: target)
        let descriptor = Descriptor(mediaType: MediaTypes.ociConfig, digest: pushed, size: 3)
        let layer = Descriptor(mediaType: MediaTypes.ociLayerGzip, digest: pushed, size: 3)
        let manifest = try await client.pushManifest(
            try OCIJSON.encode(Manifest(config: descriptor, layers: [layer])), mediaType: MediaTypes.ociManifest,
            to: target)
        await client.shutDown()
        try await workshop.run(workshop.settings { $0.snapshotter.enabled = true }) { agent in
            let service = try #require(agent.snapshots)
            let labels = labels(reference, manifest, pushed, 0)
            #expect(try await service.prepare("a", parent: "", labels: labels).first?.type == "bind")
            let mount = await #expect(throws: ControlError.self) {
                try await agent.service.mount(MountRequest(reference: reference))
            }
            #expect(mount?.code == .unsupported && mount?.message.contains("chunkctl image build") == true)
            workshop.registry.stop()
            try await service.commit("a", as: "A", parent: "", labels: labels)
            #expect(try await service.prepare("b", parent: "A", labels: labels).first?.type == "overlay")
            #expect(agent.metrics.snapshots.undecided.value == 0)
        }
    }

    @Test("with the registry away containerd goes on as with an ordinary image")
    func undecided() async throws {
        let workshop = try Workshop()
        let image = try await image(workshop, "away")
        workshop.registry.stop()
        try await workshop.run(workshop.settings { $0.snapshotter.enabled = true }) { agent in
            let service = try #require(agent.snapshots)
            let labels = labels(image.reference, image.manifest, image.blob, 0)
            #expect(try await service.prepare("a", parent: "", labels: labels).first?.type == "bind")
            #expect(agent.metrics.snapshots.undecided.value == 1)
        }
    }
}
