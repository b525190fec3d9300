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
func executable(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: strict)
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
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "chunkd",
    products: [
        .executable(name: "chunkgate", targets: ["chunkgate"]),
        .executable(name: "chunkd", targets: ["chunkd"]),
        .executable(name: "chunkctl", targets: ["chunkctl"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
        .package(
            url: "https://github.com/apple/swift-configuration", exact: "1.4.0",
            traits: ["YAML", "CommandLineArguments"]),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
    ],
    targets: [
        // C shims, one a foreign interface.
        .target(name: "CLinux"),
        .systemLibrary(name: "CCurlSystem", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .target(name: "CCurl", dependencies: ["CCurlSystem"]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),

        // Pure: values, codecs and state machines. No Foundation, no clock, no I/O.
        ours("ChunkModel"),
        ours("ErofsFormat", ["ChunkModel"]),
        ours("OCISpec", ["ChunkModel"]),
        ours("ChunkResolution", ["ChunkModel"]),

        // One foreign interface each.
        ours("LinuxSystem", ["CLinux"]),
        ours("PreContent", ["CLinux", "LinuxSystem"]),
        ours("Integrity", ["COpenSSL", "ChunkModel"]),
        ours("Zstandard", ["CZstd", "ChunkModel"]),
        ours("HTTPTransfer", ["CCurl"]),
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
                "HTTPTransfer", "RegistryClient",
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "Yams", package: "Yams"),
            ]),
        ours("Telemetry", ["LinuxSystem", logging] + nio),
        ours("ControlAPI", ["ChunkModel", "HTTPTransfer", "LinuxSystem", logging] + nio),

        // Composition.
        ours("Gate", ["ChunkModel", "ErofsFormat", "Integrity", "LinuxSystem", "PreContent", "ChunkStore"]),
        ours(
            "Agent",
            [
                "CLinux", "ChunkModel", "OCISpec", "ChunkResolution", "LinuxSystem", "Integrity", "Zstandard",
                "HTTPTransfer", "Catalogue", "RegistryClient", "ControlAPI", "Telemetry", "Settings", logging,
                argumentParser,
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ]),
        ours(
            "ControlTool",
            [
                "ControlAPI", "ImageBuild", "RegistryClient", "OCISpec", "ChunkModel", "LinuxSystem", "PreContent",
                "Settings", argumentParser,
            ]),

        // Executables: a few lines each.
        executable("chunkgate", ["Gate"]),
        executable("chunkd", ["Agent"]),
        executable("chunkctl", ["ControlTool"]),

        ours("TestSupport", ["CLinux", "ChunkModel", "LinuxSystem", "Integrity"]),
        tests("ChunkModelTests", ["ChunkModel"]),
        tests("ErofsFormatTests", ["ErofsFormat", "ChunkModel"]),
        tests("OCISpecTests", ["OCISpec", "ChunkModel", "TestSupport"]),
        tests("ChunkResolutionTests", ["ChunkResolution", "ChunkModel"]),
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
        tests("SettingsTests", ["Settings"]),
        tests("TelemetryTests", ["Telemetry", logging] + nio),
        tests("ControlAPITests", ["ControlAPI", "ChunkModel", logging] + nio),
        tests("GateTests", ["Gate"]),
        tests(
            "ControlToolTests", ["ControlTool", "ControlAPI", "ChunkModel", "LinuxSystem", "chunkctl", logging] + nio),
        tests("TestSupportTests", ["TestSupport", "LinuxSystem"]),
        tests("RepositoryTests", []),
        tests("KernelTests", ["chunkgate", "ChunkModel", "Integrity", "LinuxSystem", "TestSupport"]),
        tests(
            "EndToEndTests",
            [
                "chunkgate", "chunkd", "chunkctl", "ChunkModel", "ControlAPI", "Integrity", "LinuxSystem", "OCISpec",
                "TestSupport",
            ]),
    ],
    swiftLanguageModes: [.v6]
)
