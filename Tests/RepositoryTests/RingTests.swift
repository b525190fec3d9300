import Foundation
import Testing

@Suite("Rings: imports point down only")
struct RingTests {
    @Test("every module has its row, and every row its module")
    func tableIsComplete() throws {
        let present = Set(try Repository.directories(in: "Sources"))
        let listed = Set(Rings.table.map(\.name))
        #expect(present.subtracting(listed).sorted() == [], "not in the table of rings")
        #expect(listed.subtracting(present).sorted() == [], "in the table, but not in Sources")
    }

    @Test("a row names only rows below it")
    func tablePointsDown() {
        var below: Set<String> = []
        for module in Rings.table {
            #expect(module.ours.isSubset(of: below), "\(module.name) names \(module.ours.subtracting(below).sorted())")
            below.insert(module.name)
        }
        for name in Rings.pure { #expect(Rings.module(name)?.foreign == [], "\(name) is pure") }
    }

    @Test("no file imports what its row does not allow")
    func importsFollowTheTable() throws {
        var found: [Finding] = []
        for file in Repository.files(in: "Sources", ending: [".swift"]) {
            let name = file.split(separator: "/")[1]
            let module = try #require(Rings.module(String(name)), "no row for \(name)")
            found += Rings.forbiddenImports(in: try Repository.text(file), of: module, file: file)
        }
        #expect(found == [])
    }

    @Test("the manifest's dependencies follow the table")
    func manifestFollowsTheTable() throws {
        let targets = Rings.targets(inManifest: try Repository.text("Package.swift"))
        #expect(targets.count > 20, "the manifest was not understood")
        for (name, dependencies) in targets {
            guard let module = Rings.module(name) else { continue }
            let wrong = dependencies.filter { Rings.module($0) != nil && !module.ours.contains($0) }
            #expect(wrong == [], "\(name) depends on what its row forbids")
        }
    }

    @Test("pure modules ask nothing of the world")
    func pureModulesArePure() throws {
        var found: [Finding] = []
        for module in Rings.pure.sorted() {
            for file in Repository.files(in: "Sources/\(module)", ending: [".swift"]) {
                found += Rings.impurities(in: try Repository.text(file), file: file)
            }
        }
        #expect(found == [])
    }

    @Test("nothing chunkgate is made of knows Foundation, network or database")
    func gateStaysSmall() throws {
        var reached: Set<String> = []
        var next = [Rings.gate, "chunkgate"]
        while let name = next.popLast() {
            guard reached.insert(name).inserted, let module = Rings.module(name) else { continue }
            next += module.ours.sorted()
            let forbidden = module.ours.union(module.foreign).intersection(Rings.forbiddenInGate)
            #expect(forbidden.isEmpty, "\(name) may import \(forbidden.sorted())")
        }
        #expect(reached.contains("PreContent"))
    }

    @Test("the checks find what they look for")
    func checksCanFail() throws {
        let module = try #require(Rings.module("ChunkModel"))
        let text = "package import Foundation\n@preconcurrency import struct Glibc.stat\n// import Dispatch\n"
        #expect(Rings.forbiddenImports(in: text, of: module, file: "f").map(\.line) == [1, 2])
        #expect(Rings.impurities(in: "let a = 1\nfunc f() async {}\n// async\n\"await\"", file: "f").map(\.line) == [2])
    }
}
