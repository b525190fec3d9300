/// The rings of docs/architecture.md: what each module may import. Imports point down only.
enum Rings {
    /// One module and what it may import.
    struct Module {
        var name: String
        /// Modules of ours; every one stands above this one in `table`.
        var ours: Set<String>
        /// Modules of others.
        var foreign: Set<String>
    }

    /// Pure modules ask nothing of the world: no Foundation, no C library, no clock, no chance, no `async`.
    static let pure: Set<String> = [
        "ChunkModel", "ErofsFormat", "OCISpec", "Membership", "ContentIndex", "ChunkResolution",
    ]

    /// The composition that runs as root. All that it reaches stays free of Foundation, network, TLS, JSON and SQLite.
    static let gate = "Gate"
    static let forbiddenInGate: Set<String> = [
        "Foundation", "FoundationEssentials", "FoundationNetworking", "Dispatch", "HTTPTransfer", "Catalogue",
        "RegistryClient", "ControlAPI", "Telemetry", "Settings", "CCurl", "GRDB", "NIOCore", "NIOPosix", "NIOHTTP1",
        "NIOSSL", "CTLS", "PeerTransport", "PeerExchange", "PeerWire", "SwiftProtobuf", "Membership", "ContentIndex",
        "Snapshotter",
        "GRPCCore",
    ]

    /// What every module but the pure ones may use.
    private static let system: Set<String> = ["Glibc", "Synchronization"]
    private static let foundation: Set<String> = ["FoundationEssentials", "Foundation"]
    private static let nio: Set<String> = ["NIOCore", "NIOPosix", "NIOHTTP1"]

    private static func pure(_ name: String, _ ours: Set<String>) -> Module {
        Module(name: name, ours: ours, foreign: [])
    }
    private static func module(_ name: String, _ ours: Set<String>, _ foreign: Set<String>...) -> Module {
        Module(name: name, ours: ours, foreign: foreign.reduce(system) { $0.union($1) })
    }

    /// From the bottom up.
    static let table: [Module] = [
        // C shims.
        pure("CLinux", []), pure("CCurlSystem", []), pure("CCurl", ["CCurlSystem"]), pure("CTLS", []),
        pure("COpenSSL", []), pure("CZstd", []),
        // Pure.
        pure("ChunkModel", []),
        pure("ErofsFormat", ["ChunkModel"]),
        pure("OCISpec", ["ChunkModel"]),
        pure("Membership", ["ChunkModel"]),
        pure("ContentIndex", ["ChunkModel"]),
        pure("ChunkResolution", ["ChunkModel", "ContentIndex"]),
        // One foreign interface each.
        module("LinuxSystem", ["CLinux"]),
        module("PreContent", ["CLinux", "LinuxSystem"]),
        module("Integrity", ["COpenSSL", "ChunkModel"]),
        module("Zstandard", ["CZstd", "ChunkModel"]),
        module("HTTPTransfer", ["CCurl"], foundation),
        module("PeerWire", ["ChunkModel", "Membership"], foundation, ["SwiftProtobuf"]),
        module(
            "PeerTransport", ["CTLS", "ChunkModel", "HTTPTransfer", "LinuxSystem"], foundation, nio,
            ["NIOSSL", "NIOTLS"]),
        module("Catalogue", ["ChunkModel", "LinuxSystem"], foundation, ["GRDB"]),
        // Services.
        module("ChunkStore", ["ChunkModel", "Integrity", "LinuxSystem", "PreContent"]),
        module("RegistryClient", ["ChunkModel", "OCISpec", "Integrity", "HTTPTransfer"], foundation),
        module(
            "ImageBuild",
            [
                "ChunkModel", "ErofsFormat", "OCISpec", "Integrity", "Zstandard", "LinuxSystem", "HTTPTransfer",
                "RegistryClient",
            ], foundation),
        module(
            "Settings", ["HTTPTransfer", "OCISpec", "RegistryClient"], foundation,
            ["Configuration", "Yams", "SystemPackage"]),
        module("Telemetry", ["LinuxSystem"], foundation, nio, ["CoreMetrics", "Logging", "Metrics"]),
        module("ControlAPI", ["ChunkModel", "HTTPTransfer", "LinuxSystem"], foundation, nio, ["Logging"]),
        module(
            "PeerExchange", ["CLinux", "ChunkModel", "HTTPTransfer", "LinuxSystem", "PeerTransport"], foundation, nio),
        module(
            "Snapshotter", ["Catalogue", "ChunkModel"], nio,
            ["GRPCCore", "GRPCNIOTransportHTTP2Posix", "GRPCProtobuf", "SwiftProtobuf", "Logging"]),
        module("Mirror", ["ChunkModel", "Integrity", "LinuxSystem"], nio),
        module("DevelopmentPKI", ["ChunkModel", "LinuxSystem", "PeerTransport"], foundation),
        module("ClusterSimulator", ["ChunkModel", "Membership", "PeerWire", "ContentIndex", "ChunkResolution"]),
        // Composition.
        module(
            "Gate", ["CLinux", "ChunkModel", "ErofsFormat", "Integrity", "LinuxSystem", "PreContent", "ChunkStore"]),
        module(
            "Agent",
            [
                "CLinux", "ChunkModel", "OCISpec", "Membership", "ContentIndex", "ChunkResolution", "LinuxSystem",
                "Integrity", "Zstandard", "HTTPTransfer", "PeerWire", "PeerTransport", "PeerExchange", "Catalogue",
                "RegistryClient", "ControlAPI", "Telemetry", "Settings", "Snapshotter", "Mirror",
            ], foundation, ["ArgumentParser", "Logging", "NIOCore", "NIOPosix", "ServiceLifecycle", "UnixSignals"]),
        module(
            "ControlTool",
            [
                "ChunkModel", "ErofsFormat", "OCISpec", "Integrity", "LinuxSystem", "PreContent", "HTTPTransfer",
                "RegistryClient", "ImageBuild", "Settings", "ControlAPI", "PeerTransport", "DevelopmentPKI",
            ], foundation, ["ArgumentParser", "Dispatch"]),
        // Executables.
        module("chunkgate", ["Gate"]),
        module("chunkd", ["Agent"]),
        module("chunkctl", ["ControlTool"]),
        module("chunksim", ["ClusterSimulator"], foundation, ["ArgumentParser"]),
        // For tests.
        module("TestSupport", ["CLinux", "ChunkModel", "LinuxSystem", "Integrity"], foundation),
        module(
            "PeerTestSupport", ["ChunkModel", "LinuxSystem", "PeerTransport", "DevelopmentPKI", "TestSupport"],
            foundation, nio),
        module(
            "ContainerTestSupport", [], foundation,
            ["GRPCCore", "GRPCNIOTransportHTTP2Posix", "GRPCProtobuf", "SwiftProtobuf"]),
    ]

    static func module(_ name: String) -> Module? { table.first { $0.name == name } }

    /// Modules imported by a Swift source text, with the line of each: `import X`, `package import X`,
    /// `@preconcurrency import struct X.Y`.
    static func imports(of text: String) -> [(module: String, line: Int)] {
        var found: [(module: String, line: Int)] = []
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            var words = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).map(String.init)
            while let first = words.first,
                first.hasPrefix("@") || ["package", "public", "internal", "private", "fileprivate"].contains(first)
            { words.removeFirst() }
            guard words.first == "import", words.count > 1 else { continue }
            words.removeFirst()
            if ["struct", "class", "enum", "protocol", "func", "typealias", "let", "var"].contains(words[0]),
                words.count > 1
            {
                words.removeFirst()
            }
            // Anything else is a line of another language in a string.
            guard words.count == 1, words[0].allSatisfy({ $0.isLetter || $0.isNumber || $0 == "_" || $0 == "." }) else {
                continue
            }
            found.append((String(words[0].prefix { $0 != "." }), number + 1))
        }
        return found
    }

    /// The library and executable targets that a package manifest declares by `ours(…)` and `executable(…)`: name and
    /// all words of its dependencies.
    static func targets(inManifest text: String) -> [(name: String, dependencies: [String])] {
        var found: [(name: String, dependencies: [String])] = []
        for call in ["        ours(", "        executable("] {
            var rest = text[...]
            while let start = rest.firstRange(of: call) {
                rest = rest[start.upperBound...]
                var depth = 1
                let body = rest.prefix { character in
                    depth += character == "(" ? 1 : character == ")" ? -1 : 0
                    return depth > 0
                }
                let strings = body.split(separator: "\"", omittingEmptySubsequences: false)
                let words = stride(from: 1, to: strings.count, by: 2).map { String(strings[$0]) }
                if let name = words.first { found.append((name, Array(words.dropFirst()))) }
            }
        }
        return found
    }

    /// Imports of one file of `module` that the table does not allow.
    static func forbiddenImports(in text: String, of module: Module, file: String) -> [Finding] {
        imports(of: text).filter { !module.ours.contains($0.module) && !module.foreign.contains($0.module) }
            .map { Finding(file: file, line: $0.line, what: "\(module.name) may not import \($0.module)") }
    }

    /// What makes a pure module depend on the world without an import: clocks, chance, concurrency.
    static func impurities(in text: String, file: String) -> [Finding] {
        let words = [
            "ContinuousClock", "SuspendingClock", "SystemRandomNumberGenerator", "async", "await", "Task",
            "DispatchQueue", "Date",
        ]
        var found: [Finding] = []
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let code = Tidiness.withoutCommentOrStrings(line)
            let tokens = code.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init)
            for word in words where tokens.contains(word) {
                found.append(Finding(file: file, line: number + 1, what: "a pure module uses \(word)"))
            }
        }
        return found
    }
}
