import Foundation
import Testing

@Suite("Tidiness")
struct TidinessTests {
    @Test("sources are short, finished, and say why where they go around the compiler")
    func sourcesAreTidy() throws {
        let files = Repository.swiftFiles
        #expect(files.count > 50, "the walk over the repository found too little")
        let found = try files.flatMap { Tidiness.findings(in: try Repository.text($0), file: $0) }
        #expect(found == [])
    }

    @Test("tests wait for conditions, not for time to pass")
    func testsDoNotPause() throws {
        let files = Repository.files(in: "Tests", ending: [".swift"])
        let found = try files.flatMap { Tidiness.pauses(in: try Repository.text($0), file: $0) }
        #expect(found == [])
    }

    @Test("every directory of tests is a target, so that none is left out of `make test`")
    func testsAreBuilt() throws {
        let manifest = try Repository.text("Package.swift")
        let directories = try Repository.directories(in: "Tests").filter { $0 != "Fuzz" }
        #expect(directories.contains("RepositoryTests"))
        #expect(directories.filter { !manifest.contains("\"\($0)\"") } == [])
    }

    @Test("dependencies are pinned")
    func dependenciesArePinned() throws {
        let manifest = try Repository.text("Package.swift")
        #expect(manifest.contains(".package("))
        #expect(Tidiness.unpinned(in: manifest) == [])
    }

    @Test("links between documents lead somewhere")
    func linksLeadSomewhere() throws {
        var broken: [Finding] = []
        for document in Repository.documents {
            let folder = document.split(separator: "/").dropLast().joined(separator: "/")
            for link in Tidiness.links(in: try Repository.text(document)) {
                let path = folder.isEmpty ? link : folder + "/" + link
                if !Repository.exists(path) { broken.append(Finding(file: document, line: 0, what: "link to \(link)")) }
            }
        }
        #expect(broken == [])
    }

    @Test("documents that sources point to exist")
    func sourcesPointToDocuments() throws {
        var broken: [Finding] = []
        for file in Repository.swiftFiles {
            let words = try Repository.text(file).split { !($0.isLetter || $0.isNumber || "/.-_".contains($0)) }
            for word in words where word.hasPrefix("docs/") {
                let path = word.hasSuffix(".") ? String(word.dropLast()) : String(word)
                if path.hasSuffix(".md"), !Repository.exists(path) {
                    broken.append(Finding(file: file, line: 0, what: "points to \(path)"))
                }
            }
        }
        #expect(broken == [])
    }

    @Test("commands that documents name exist in the Makefile")
    func commandsExist() throws {
        let makefile = try Repository.text("Makefile").split(separator: "\n")
        let commands = Set(try Repository.documents.flatMap { Tidiness.makeCommands(in: try Repository.text($0)) })
        #expect(commands.isSuperset(of: ["demo", "test"]), "the README names its two commands")
        for command in commands {
            #expect(makefile.contains { $0.hasPrefix(command + ":") }, "no target \(command)")
        }
    }

    @Test("the example configuration and the chart's schema and table follow from the manual's settings")
    func generatedFilesFollow() throws {
        let (status, said) = try run(["scripts/generate", "--check"])
        #expect(status == 0, "\(said)")
    }

    @Test("shell scripts are clean")
    func scriptsAreClean() throws {
        let folders = ["scripts", "cluster", "Benchmarks", "charts", ".ci"]
        let scripts = folders.flatMap { Repository.files(in: $0, ending: [""]) }.filter { file in
            guard let text = try? Repository.text(file) else { return false }
            return text.hasPrefix("#!/bin/sh\n") || text.hasPrefix("#!/usr/bin/env bash\n")
        }
        #expect(scripts.contains("cluster/image/chunkgate-host") && scripts.count > 15, "\(scripts)")
        let (status, said) = try run(["shellcheck", "--external-sources"] + scripts)
        #expect(status == 0, "\(said.prefix(2000))")
    }

    @Test("CI runs the documented test command")
    func ciRunsTheTests() throws {
        #expect(try Repository.text(".ci/run").contains("make test"))
    }

    @Test("sources are formatted", .timeLimit(.minutes(3)))
    func sourcesAreFormatted() throws {
        let (status, said) = try run(
            ["swift", "format", "lint", "--strict", "--configuration", ".swift-format"] + Repository.swiftFiles)
        #expect(status == 0, "\(said.prefix(2000))")
    }

    /// Runs a program at the top of the repository; its exit status and what it said.
    private func run(_ words: [String]) throws -> (status: Int32, said: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words
        process.currentDirectoryURL = Repository.root
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, said)
    }

    @Test("the checks find what they look for")
    func checksCanFail() {
        let bad = """
            // TO\u{44}O: later
            let a = try\u{21} f()
            let b = "try\u{21}"



            /// A value.
            struct C: @unchecked\u{20}Sendable {}



            // It is guarded by a lock.
            struct D: @unchecked\u{20}Sendable {}
            """
        #expect(Tidiness.findings(in: bad, file: "f").map(\.line) == [1, 2, 8])
        let long = String(repeating: "\n", count: Tidiness.maxLines + 1)
        #expect(Tidiness.findings(in: long, file: "f").map(\.line) == [0])
        #expect(Tidiness.pauses(in: "a\nu\u{73}leep(5)\n\n// slow: sleep(1)\nsleep(1)", file: "f").map(\.line) == [2])
        #expect(Tidiness.unpinned(in: "\n.package(url: \"x\", from: \"1.0.0\")").map(\.line) == [2])
        #expect(Tidiness.links(in: "[a](b.md#c) [d](https://e) [f](#g)") == ["b.md"])
        #expect(Tidiness.makeCommands(in: "Run `make demo`, then make sense.\n    make test\n") == ["demo", "test"])
    }
}
