import ChunkModel
import Glibc
import HTTPTransfer
import Integrity
import LinuxSystem
import Logging
import Mirror
import NIOCore
import NIOPosix
import OCISpec
import PeerTestSupport
import PeerTransport
import RegistryClient
import Settings
import Telemetry
import TestSupport
import Testing

@testable import Agent

/// An ordinary image in a registry.
struct OrdinaryImage {
    let repository: Reference
    let manifest: Digest
    /// Config and layers, in order.
    let blobs: [[UInt8]]

    var digests: [Digest] { blobs.map { SHA256.hash($0) } }
    var pulled: Reference { repository.pinned(to: manifest) }

    static func push(
        to registry: RegistryFixture, _ name: String, layers: [Int], credential: RegistryCredential? = nil
    ) async throws -> OrdinaryImage {
        let client = RegistryClient(
            configuration: RegistryConfiguration(
                hosts: [registry.host: HostConfiguration(usesPlainHTTP: true, credential: credential)]))
        let repository = try Reference(registry: registry.host, repository: name)
        var random = SeededGenerator(seed: UInt64(layers.count) &+ UInt64(name.utf8.count))
        let config = #"{"os":"linux","architecture":"amd64","author":"\#(name)"}"#
        let blobs = [Array(config.utf8)] + layers.map { random.bytes($0) }
        var descriptors: [Descriptor] = []
        for bytes in blobs {
            let digest = SHA256.hash(bytes)
            _ = try await client.push(.bytes(bytes), digest: digest, to: repository)
            descriptors.append(
                Descriptor(mediaType: MediaTypes.ociLayerTar, digest: digest, size: UInt64(bytes.count)))
        }
        descriptors[0].mediaType = MediaTypes.ociConfig
        let bytes = try OCIJSON.encode(Manifest(config: descriptors[0], layers: Array(descriptors.dropFirst())))
        let manifest = try await client.pushManifest(bytes, mediaType: MediaTypes.ociManifest, to: repository)
        await client.shutDown()
        return OrdinaryImage(repository: repository, manifest: manifest, blobs: blobs)
    }
}

/// A mirror in this process, asked as containerd asks it.
final class MirrorRig: Sendable {
    let endpoint: MirrorEndpoint
    let metrics = AgentMetrics()
    let directory: String
    private let client = TransferClient()
    let cluster: ClusterNode?
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let disk: WorkQueue?
    private let maintenance: Task<Void, Never>?

    /// `peers`: this node's certificate, address and the seed it joins through.
    init(
        _ host: String, directory: String, quota: UInt64 = 1 << 30, usesNodeCredentials: Bool = false,
        credential: RegistryCredential? = nil, sharing: SharingPolicy = SharingPolicy(),
        peers: (files: IdentityFiles, domain: TrustDomain, port: UInt16, seed: UInt16)? = nil
    ) async throws {
        self.directory = directory
        var logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        logger.logLevel = .critical
        var configuration = RegistryConfiguration(
            hosts: [host: HostConfiguration(usesPlainHTTP: true, credential: credential)])
        configuration.retry = RetryPolicy(maxAttempts: 1, circuitThreshold: 1000)
        if let peers {
            var settings = AgentSettings.defaults.cluster
            settings.certFile = peers.files.certificate
            settings.keyFile = peers.files.key
            settings.caFile = peers.files.bundle
            settings.trustDomain = "\(peers.domain)"
            settings.listen = AgentSettings.ListenAddress(host: "127.0.0.1", port: Int(peers.port))
            settings.seeds = "127.0.0.1:\(peers.seed)"
            let disk = try WorkQueue("test", threads: 2)
            self.disk = disk
            let gate = try GateClient(
                path: directory + "/none.sock", arena: try Arena(slotSize: 4096, slotCount: 1), logger: logger
            ) { _ in }
            let cluster = try ClusterNode(
                ClusterNode.Parts(
                    settings: settings, pipeline: FetchPipeline(), gate: gate, metrics: metrics, logger: logger,
                    disk: disk, hasMirror: true, spans: SpanRecorder()),
                advertise: try #require(PeerAddress("127.0.0.1:\(peers.port)")))
            try await cluster.run(group)
            self.cluster = cluster
            maintenance = Task { await cluster.maintain() }
        } else {
            (cluster, disk, maintenance) = (nil, nil, nil)
        }
        var settings = AgentSettings.defaults.mirror
        settings.listen.port = 0
        settings.registries = [host]
        settings.quotaBytes = quota
        settings.usesNodeCredentials = usesNodeCredentials
        endpoint = try MirrorEndpoint(
            settings, directory: directory, registry: configuration, cluster: cluster, sharing: sharing,
            metrics: metrics, logger: logger)
        try await endpoint.run()
    }

    func stop() async throws {
        maintenance?.cancel()
        await endpoint.stop()
        await cluster?.stop()
        disk?.stop()
        await client.shutDown()
        try await group.shutdownGracefully()
    }

    /// `u:p`, as the registry fixture has it.
    static let good = "Basic dTpw"
    static let bad = "Basic dTpx"

    func ask(
        _ target: String, _ method: TransferRequest.Method = .get, authorization: String? = nil, range: String? = nil
    ) async throws -> TransferResult {
        var headers: [(name: String, value: String)] = []
        if let authorization { headers.append(("Authorization", authorization)) }
        if let range { headers.append(("Range", range)) }
        return try await client.perform(
            TransferRequest(method, url: "http://127.0.0.1:\(endpoint.port)\(target)", headers: headers),
            sink: .collecting(limit: 64 << 20))
    }

    func manifest(
        _ image: OrdinaryImage, _ method: TransferRequest.Method = .get, authorization: String? = nil
    ) async throws -> TransferResult {
        try await ask(
            "/v2/\(image.repository.repository)/manifests/\(image.manifest)?ns=\(image.repository.registry)", method,
            authorization: authorization)
    }

    func blob(
        _ number: Int, of image: OrdinaryImage, _ method: TransferRequest.Method = .get, authorization: String? = nil,
        range: String? = nil
    ) async throws -> TransferResult {
        try await ask(
            "/v2/\(image.repository.repository)/blobs/\(image.digests[number])?ns=\(image.repository.registry)", method,
            authorization: authorization, range: range)
    }

    /// Everything of an image, as a pull; whether it is right.
    func pull(_ image: OrdinaryImage, authorization: String? = nil) async throws {
        #expect(try await manifest(image, authorization: authorization).head.status == 200)
        for number in image.blobs.indices {
            let result = try await blob(number, of: image, authorization: authorization)
            #expect(result.head.status == 200 && result.body == image.blobs[number], "blob \(number)")
        }
    }

    func bytes(from source: String) -> UInt64 { metrics.mirroring.bytes[source].value }

    /// Where the mirror keeps a blob.
    func path(_ digest: Digest) -> String { "\(directory)/blobs/\(digest.hex)" }
}
