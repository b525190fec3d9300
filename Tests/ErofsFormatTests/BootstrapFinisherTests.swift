import Foundation
import Testing

@testable import ErofsFormat

@Suite("A normalised bootstrap depends on the tree alone")
struct BootstrapFinisherTests {
    /// The same tree, written in one order or the other.
    private func tree(_ directory: String, reversed: Bool) throws {
        func ordered<T>(_ items: [T]) -> [T] { reversed ? items.reversed() : items }
        for name in ordered((0..<40).map { "file\($0)" }) {
            try Data(name.utf8).write(to: URL(fileURLWithPath: directory + "/" + name))
        }
        for name in ordered(["file1", "file2", "file3", "file4"]) {
            for xattr in ordered(["user.one", "user.two", "user.three"]) {
                try Fixture.run("setfattr", ["-n", xattr, "-v", xattr + name, directory + "/" + name])
                try Fixture.run("setfattr", ["-n", xattr + "s", "-v", "same", directory + "/" + name])
            }
        }
        try Fixture.run("find", [directory, "-exec", "touch", "-d", "2020-01-02 03:04:05.678", "{}", "+"])
    }

    @Test func orderOfCreationAndTheClockLeaveNoTrace() throws {
        let one = try Fixture { try tree($0, reversed: false) }
        let other = try Fixture { try tree($0, reversed: true) }
        #expect(one.bootstrap != other.bootstrap, "the fixture must differ before, else this shows nothing")
        var first = one.bootstrap
        var second = other.bootstrap
        try BootstrapFinisher.normalise(&first, devices: one.devices)
        try BootstrapFinisher.normalise(&second, devices: other.devices)
        #expect(first == second)
        let superblock = try first.withUnsafeBytes { try Superblock(image: $0) }
        #expect(superblock.buildTime == 0 && superblock.buildTimeNanoseconds == 0)
        #expect(superblock.uuid == [UInt8](repeating: 0, count: 16))
    }

    @Test func normalisingKeepsAValidImageAndItsAttributes() throws {
        let fixture = try Fixture(Fixture.various)
        var image = fixture.bootstrap
        try BootstrapFinisher.normalise(&image, devices: fixture.devices)
        try BootstrapFinisher.setUUID(Array(1...16), &image)
        let summary = try image.withUnsafeBytes { try BootstrapValidator.validate($0, devices: fixture.devices) }
        let before = try fixture.bootstrap.withUnsafeBytes {
            try BootstrapValidator.validate($0, devices: fixture.devices)
        }
        #expect(summary == before)
        #expect(try image.withUnsafeBytes { try Superblock(image: $0) }.uuid == Array(1...16))
        let work = NSTemporaryDirectory() + "/chunkd-finisher-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: work) }
        try Data(image).write(to: URL(fileURLWithPath: work))
        try Fixture.run("dump.erofs", ["-s", "--device=\(work)", work])
    }
}
