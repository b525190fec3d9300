/// The rings of docs/architecture.md: what each module may import. Imports point down only.
enum Rings {
    /// One module and what it may import beside the modules of its package dependencies' own kind.
    struct Module {
        var name: String
        /// Modules of ours; every one stands above this one in `table`.
        var ours: Set<String>
        /// Modules of others.
        var foreign: Set<String> = []
    }

    /// Pure modules ask nothing of the world: no Foundation, no C library, no clock, no chance, no `async`.
    static let pure: Set<String> = ["ChunkModel", "ErofsFormat", "OCISpec", "ChunkResolution"]

    /// The composition that runs as root. All that it reaches stays free of Foundation, network, TLS, JSON and SQLite.
    static let gate = "Gate"
    static let forbiddenInGate: Set<String> = [
        "Foundation", "FoundationEssentials", "FoundationNetworking", "Dispatch", "HTTPTransfer", "Catalogue",
        "RegistryClient", "ControlAPI", "Telemetry", "Settings", "CCurl", "GRDB", "NIOCore", "NIOPosix", "NIOHTTP1",
    ]

    private static let nio: Set<String> = ["NIOCore", "NIOPosix", "NIOHTTP1"]
    private static let glibc: Set<String> = ["Glibc"]
    private static let essentials: Set<String> = ["FoundationEssentials", "Foundation"]

    /// From the bottom up.
    static let table: [Module] = [
        // C shims.
        Module(name: "CLinux", ours: []),
        Module(name: "CCurlSystem", ours: []),
        Module(name: "CCurl", ours: ["CCurlSystem"]),
        Module(name: "COpenSSL", ours: []),
        Module(name: "CZstd", ours: []),
        // Pure.
        Module(name: "ChunkModel", ours: []),
        Module(name: "ErofsFormat", ours: ["ChunkModel"]),
        Module(name: "OCISpec", ours: ["ChunkModel"]),
        Module(name: "ChunkResolution", ours: ["ChunkModel"]),
        // One foreign interface each.
        Module(name: "LinuxSystem", ours: ["CLinux"], foreign: glibc),
        Module(name: "PreContent", ours: ["CLinux", "LinuxSystem"], foreign: glibc),
        Module(name: "Integrity", ours: ["COpenSSL", "ChunkModel"]),
        Module(name: "Zstandard", ours: ["CZstd", "ChunkModel"], foreign: glibc),
        Module(name: "HTTPTransfer", ours: ["CCurl"], foreign: glibc.union(essentials).union(["Synchronization"])),
        Module(
            name: "Catalogue", ours: ["ChunkModel"], foreign: essentials.union(["GRDB", "Synchronization"])),
        // Services.
        Module(
            name: "ChunkStore", ours: ["ChunkModel", "Integrity", "LinuxSystem", "PreContent"],
            foreign: glibc.union(["Synchronization"])),
        Module(
            name: "RegistryClient", ours: ["ChunkModel", "OCISpec", "Integrity", "HTTPTransfer"],
            foreign: glibc.union(essentials).union(["Synchronization"])),
        Module(
            name: "ImageBuild",
            ours: [
                "ChunkModel", "ErofsFormat", "OCISpec", "Integrity", "Zstandard", "LinuxSystem", "RegistryClient",
            ], foreign: glibc.union(essentials).union(["Synchronization"])),
        Module(
            name: "Settings", ours: [],
            foreign: glibc.union(essentials).union(["Configuration", "Yams", "SystemPackage"])),
        Module(
            name: "Telemetry", ours: [],
            foreign: glibc.union(essentials).union(nio).union(["CoreMetrics", "Logging", "Metrics", "Synchronization"])),
        Module(
            name: "ControlAPI", ours: ["ChunkModel", "HTTPTransfer", "LinuxSystem"],
            foreign: glibc.union(essentials).union(nio).union(["Logging", "Synchronization"])),
        // Composition.
        Module(
            name: "Gate", ours: ["ChunkModel", "ErofsFormat", "Integrity", "LinuxSystem", "PreContent", "ChunkStore"],
            foreign: glibc.union(["Synchronization"])),
        Module(
            name: "Agent",
            ours: [
                "ChunkModel", "OCISpec", "ChunkResolution", "LinuxSystem", "Integrity", "Zstandard", "HTTPTransfer",
                "Catalogue", "RegistryClient", "ControlAPI", "Telemetry", "Settings",
            ],
            foreign: glibc.union(essentials).union([
                "ArgumentParser", "Logging", "Metrics", "ServiceLifecycle", "Synchronization",
            ])),
        Module(
            name: "ControlTool",
            ours: [
                "ControlAPI", "ImageBuild", "RegistryClient", "OCISpec", "ChunkModel", "LinuxSystem", "Settings",
                "ErofsFormat", "Integrity", "HTTPTransfer",
            ], foreign: glibc.union(essentials).union(["ArgumentParser"])),
        // Executables.
        Module(name: "chunkgate", ours: ["Gate"]),
        Module(name: "chunkd", ours: ["Agent"]),
        Module(name: "chunkctl", ours: ["ControlTool"]),
        // For tests.
        Module(
            name: "TestSupport", ours: ["ChunkModel", "LinuxSystem", "Integrity", "CLinux"],
            foreign: glibc.union(essentials).union(["Synchronization"])),
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
