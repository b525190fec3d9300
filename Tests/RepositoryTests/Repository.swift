import Foundation

/// The files of this repository, as the tests about them see it.
enum Repository {
    /// The top directory: three up from this file, links resolved.
    static let root: URL = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// Files below `folder` whose names end in one of `suffixes`, as paths relative to the top, sorted.
    static func files(in folder: String, ending suffixes: [String]) -> [String] {
        let base = root.appendingPathComponent(folder)
        guard let walk = FileManager.default.enumerator(atPath: base.path) else { return [] }
        let names = walk.compactMap { $0 as? String }
            .filter { name in suffixes.contains { name.hasSuffix($0) } && !name.hasPrefix(".") }
        return names.map { folder.isEmpty ? $0 : folder + "/" + $0 }.sorted()
    }

    /// Every Swift file of ours.
    static var swiftFiles: [String] {
        // What a generator wrote is not read by people (scripts/generate-protobuf).
        (["Package.swift"] + files(in: "Sources", ending: [".swift"]) + files(in: "Tests", ending: [".swift"]))
            .filter { !$0.contains("/Generated/") }
    }

    static var documents: [String] {
        ["README.md", "Benchmarks/README.md", "charts/chunkd/README.md"].filter(exists)
            + files(in: "docs", ending: [".md"])
    }

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    }

    static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: root.appendingPathComponent(path).path)
    }

    /// The directories right below `folder`, sorted.
    static func directories(in folder: String) throws -> [String] {
        let base = root.appendingPathComponent(folder)
        return try FileManager.default.contentsOfDirectory(atPath: base.path).filter { name in
            var isDirectory: ObjCBool = false
            let path = base.appendingPathComponent(name).path
            return FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) && isDirectory.boolValue
        }.sorted()
    }
}

/// Something a rule forbids, and where.
struct Finding: Equatable, CustomStringConvertible {
    var file: String
    /// From 1; 0 for the whole file.
    var line: Int
    var what: String

    var description: String { line == 0 ? "\(file): \(what)" : "\(file):\(line): \(what)" }
}
