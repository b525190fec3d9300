// swift-tools-version: 6.2
import PackageDescription

// One settings array for every target of ours: Swift 6 mode, warnings are errors.
let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

/// A library or executable target of ours, with the shared settings.
func ours(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}
func executable(
    _ name: String, _ dependencies: [Target.Dependency], linkerSettings: [LinkerSetting]? = nil
) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, swiftSettings: strict, linkerSettings: linkerSettings)
}
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOHTTP1", package: "swift-nio"),
]
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let protobuf: Target.Dependency = .product(name: "SwiftProtobuf", package: "swift-protobuf")
let grpc: [Target.Dependency] = [
    .product(name: "GRPCCore", package: "grpc-swift-2"),
    .product(name: "GRPCNIOTransportHTTP2Posix", package: "grpc-swift-nio-transport"),
    .product(name: "GRPCProtobuf", package: "grpc-swift-protobuf"),
]
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "chunkd",
    products: [
        .executable(name: "chunkgate", targets: ["chunkgate"]),
        .executable(name: "chunkd", targets: ["chunkd"]),
        .executable(name: "chunkctl", targets: ["chunkctl"]),
        .executable(name: "chunksim", targets: ["chunksim"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", exact: "2.37.6"),
        .package(url: "https://github.com/apple/swift-protobuf", exact: "1.39.0"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
        .package(
            url: "https://github.com/apple/swift-configuration", exact: "1.4.0",
            traits: ["YAML", "CommandLineArguments"]),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
        .package(url: "https://github.com/grpc/grpc-swift-2", exact: "2.4.3"),
        .package(url: "https://github.com/grpc/grpc-swift-nio-transport", exact: "2.9.2"),
        .package(url: "https://github.com/grpc/grpc-swift-protobuf", exact: "2.4.1"),
    ],
    targets: [
        // C shims, one a foreign interface.
        .target(name: "CLinux"),
        .systemLibrary(name: "CCurlSystem", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .target(name: "CCurl", dependencies: ["CCurlSystem"]),
        .target(name: "CTLS", linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),

        // Pure: values, codecs and state machines. No Foundation, no clock, no I/O.
        ours("ChunkModel"),
        ours("ErofsFormat", ["ChunkModel"]),
        ours("OCISpec", ["ChunkModel"]),
        ours("Membership", ["ChunkModel"]),
        ours("ContentIndex", ["ChunkModel"]),
        ours("ChunkResolution", ["ChunkModel", "ContentIndex"]),

        // One foreign interface each.
        ours("LinuxSystem", ["CLinux"]),
        ours("PreContent", ["CLinux", "LinuxSystem"]),
        ours("Integrity", ["COpenSSL", "ChunkModel"]),
        ours("Zstandard", ["CZstd", "ChunkModel"]),
        ours("HTTPTransfer", ["CCurl"]),
        .target(
            name: "PeerWire", dependencies: ["ChunkModel", "Membership", protobuf], exclude: ["Protos"],
            swiftSettings: strict),
        ours("PeerTransport", ["CTLS", "ChunkModel", "HTTPTransfer", "LinuxSystem", nioSSL] + nio),
        ours("Catalogue", ["ChunkModel", "LinuxSystem", .product(name: "GRDB", package: "GRDB.swift")]),

        // Services.
        ours("ChunkStore", ["ChunkModel", "Integrity", "LinuxSystem", "PreContent"]),
        ours("RegistryClient", ["ChunkModel", "OCISpec", "Integrity", "HTTPTransfer"]),
        ours(
            "ImageBuild",
            [
                "ChunkModel", "ErofsFormat", "OCISpec", "Integrity", "Zstandard", "LinuxSystem", "HTTPTransfer",
                "RegistryClient",
            ]),
        ours(
            "Settings",
            [
                "HTTPTransfer", "OCISpec", "RegistryClient",
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "Yams", package: "Yams"),
            ]),
        ours("Telemetry", ["LinuxSystem", logging] + nio),
        ours("ControlAPI", ["ChunkModel", "HTTPTransfer", "LinuxSystem", logging] + nio),

        ours("PeerExchange", ["CLinux", "ChunkModel", "HTTPTransfer", "LinuxSystem", "PeerTransport"] + nio),
        ours("Mirror", ["ChunkModel", "Integrity", "LinuxSystem"] + nio),
        // Not a product: Benchmarks/peers/run builds and runs it.
        .executableTarget(
            name: "peerbench",
            dependencies: [
                "ChunkModel", "DevelopmentPKI", "HTTPTransfer", "LinuxSystem", "PeerExchange", "PeerTransport",
            ] + nio, path: "Benchmarks/peers/peerbench", swiftSettings: strict),
        .target(
            name: "Snapshotter", dependencies: ["Catalogue", "ChunkModel", logging, protobuf] + grpc + nio,
            exclude: ["Protos"], swiftSettings: strict),
        ours("DevelopmentPKI", ["ChunkModel", "LinuxSystem", "PeerTransport"]),
        ours(
            "ClusterSimulator", ["ChunkModel", "Membership", "PeerWire", "ContentIndex", "ChunkResolution"]),

        // Composition.
        ours("Gate", ["ChunkModel", "ErofsFormat", "Integrity", "LinuxSystem", "PreContent", "ChunkStore"]),
        ours(
            "Agent",
            [
                "CLinux", "ChunkModel", "OCISpec", "ChunkResolution", "ContentIndex", "Membership", "LinuxSystem",
                "Integrity", "Zstandard", "HTTPTransfer", "PeerWire", "PeerTransport", "PeerExchange", "Catalogue",
                "RegistryClient", "ControlAPI", "Telemetry", "Settings", "Snapshotter", "Mirror", logging,
                argumentParser,
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ]),
        ours(
            "ControlTool",
            [
                "ControlAPI", "DevelopmentPKI", "PeerTransport", "ImageBuild", "RegistryClient", "OCISpec",
                "ChunkModel", "Integrity",
                "LinuxSystem", "PreContent", "Settings", argumentParser,
            ]),

        // Executables: a few lines each.
        // What runs as root needs nothing of the host: no loader, no library, so one file serves any distribution.
        executable(
            "chunkgate", ["Gate"],
            linkerSettings: [.unsafeFlags(["-static-executable"], .when(configuration: .release))]),
        executable("chunkd", ["Agent"]),
        executable("chunkctl", ["ControlTool"]),
        executable("chunksim", ["ClusterSimulator", argumentParser]),

        ours("TestSupport", ["CLinux", "ChunkModel", "LinuxSystem", "Integrity"]),
        tests("ChunkModelTests", ["ChunkModel"]),
        tests("ErofsFormatTests", ["ErofsFormat", "ChunkModel"]),
        tests("OCISpecTests", ["OCISpec", "ChunkModel", "TestSupport"]),
        tests("ChunkResolutionTests", ["ChunkResolution", "ContentIndex", "ChunkModel"]),
        ours("PeerTestSupport", ["ChunkModel", "DevelopmentPKI", "LinuxSystem", "PeerTransport", "TestSupport"] + nio),
        .target(
            name: "ContainerTestSupport", dependencies: [protobuf] + grpc, exclude: ["Protos"], swiftSettings: strict),
        .testTarget(
            name: "MembershipTests", dependencies: ["Membership", "ChunkModel"], exclude: ["Transcripts"],
            swiftSettings: strict),
        tests("ContentIndexTests", ["ContentIndex", "ChunkModel"]),
        tests("PeerWireTests", ["PeerWire", "Membership", "ChunkModel"]),
        tests(
            "PeerTransportTests",
            ["PeerTransport", "PeerTestSupport", "DevelopmentPKI", "HTTPTransfer", "ChunkModel", "TestSupport", nioSSL]
                + nio),
        tests(
            "PeerExchangeTests",
            [
                "PeerExchange", "PeerTestSupport", "PeerTransport", "DevelopmentPKI", "HTTPTransfer", "ChunkModel",
                "LinuxSystem", "TestSupport",
            ] + nio),
        tests("SimulationTests", ["ClusterSimulator", "Membership", "PeerWire", "ChunkModel"]),
        tests("LinuxSystemTests", ["LinuxSystem", "TestSupport"]),
        tests("IntegrityTests", ["Integrity", "ChunkModel"]),
        tests("ZstandardTests", ["Zstandard", "ChunkModel"]),
        tests("HTTPTransferTests", ["HTTPTransfer", "TestSupport"]),
        tests(
            "CatalogueTests",
            ["Catalogue", "ChunkModel", "LinuxSystem", .product(name: "GRDB", package: "GRDB.swift")]),
        tests(
            "ChunkStoreTests", ["ChunkStore", "ChunkModel", "Integrity", "LinuxSystem", "PreContent", "TestSupport"]),
        tests(
            "RegistryClientTests",
            ["RegistryClient", "HTTPTransfer", "OCISpec", "ChunkModel", "Integrity", "TestSupport"]),
        tests(
            "ImageBuildTests",
            [
                "ImageBuild", "ChunkModel", "ErofsFormat", "OCISpec", "Integrity", "Zstandard", "LinuxSystem",
                "RegistryClient", "TestSupport",
            ]),
        tests(
            "SnapshotterTests",
            ["Snapshotter", "Catalogue", "ChunkModel", "LinuxSystem", "TestSupport", logging, protobuf] + grpc),
        tests(
            "MirrorTests", ["Mirror", "ChunkModel", "HTTPTransfer", "Integrity", "LinuxSystem", "TestSupport"] + nio),
        tests("SettingsTests", ["Settings"]),
        tests("TelemetryTests", ["Telemetry", logging] + nio),
        tests("ControlAPITests", ["ControlAPI", "ChunkModel", logging] + nio),
        tests("GateTests", ["Gate"]),
        tests(
            "AgentTests",
            [
                "Agent", "chunkd", "Catalogue", "ChunkModel", "ControlAPI", "HTTPTransfer", "Integrity",
                "LinuxSystem", "OCISpec", "PeerTestSupport", "PeerTransport", "RegistryClient", "Settings",
                "Snapshotter",
                "Telemetry", "TestSupport", "Zstandard", logging,
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]),
        tests(
            "ControlToolTests",
            ["ControlTool", "ControlAPI", "ChunkModel", "LinuxSystem", "TestSupport", "chunkctl", logging] + nio),
        tests("TestSupportTests", ["TestSupport", "LinuxSystem"]),
        tests("RepositoryTests", []),
        tests("KernelTests", ["chunkgate", "ChunkModel", "Integrity", "LinuxSystem", "TestSupport"]),
        tests(
            "EndToEndTests",
            [
                "chunkgate", "chunkd", "chunkctl", "ChunkModel", "ContainerTestSupport", "ControlAPI", "Integrity",
                "LinuxSystem", "OCISpec", "TestSupport",
            ]),
    ],
    swiftLanguageModes: [.v6]
)
