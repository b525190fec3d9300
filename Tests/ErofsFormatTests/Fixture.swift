import Foundation
import Testing

/// A bootstrap and its blob, made by mkfs.erofs from a tree that a closure writes.
struct Fixture {
    let bootstrap: [UInt8]
    /// Raw size of the blob; none when the tree has no file data.
    let devices: [UInt64]

    struct ToolFailed: Error, CustomStringConvertible {
        let description: String
    }

    init(chunkSize: Int = 1 << 20, _ populate: (String) throws -> Void) throws {
        let work = NSTemporaryDirectory() + "/chunkd-erofs-\(UUID().uuidString)"
        let tree = work + "/tree"
        try FileManager.default.createDirectory(atPath: tree, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: work) }
        try populate(tree)
        try Self.run(
            "mkfs.erofs",
            [
                "-d0", "-E", "force-inode-extended", "--chunksize=\(chunkSize)", "--blobdev=\(work)/blob",
                "\(work)/boot", tree,
            ])
        bootstrap = Array(try Data(contentsOf: URL(fileURLWithPath: work + "/boot")))
        let attributes = try FileManager.default.attributesOfItem(atPath: work + "/blob")
        devices = [(attributes[.size] as? NSNumber)?.uint64Value ?? 0]
    }

    static func run(_ tool: String, _ arguments: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [tool] + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw ToolFailed(description: "\(tool): \(text)") }
    }

    /// A tree with one of everything.
    static func various(_ tree: String) throws {
        func write(_ name: String, _ count: Int, _ value: UInt8 = 0x41) throws {
            try Data(repeating: value, count: count).write(to: URL(fileURLWithPath: tree + "/" + name))
        }
        for directory in ["a", "a/b", "a/b/c", "empty"] {
            try FileManager.default.createDirectory(atPath: tree + "/" + directory, withIntermediateDirectories: true)
        }
        for (number, size) in [0, 1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1].enumerated() {
            try write("a/size\(number)", size, UInt8(number))
        }
        for number in 0..<300 {
            try write("a/b/\(number)-" + String(repeating: "n", count: 40), 10, UInt8(number & 255))
        }
        try write("odd \u{1F600}\n name", 5)
        try FileManager.default.linkItem(atPath: tree + "/a/size1", toPath: tree + "/hard")
        try FileManager.default.createSymbolicLink(atPath: tree + "/sym", withDestinationPath: "../a/size1")
        try run("mknod", [tree + "/null", "c", "1", "3"])
        try run("mkfifo", [tree + "/fifo"])
        for name in ["z", "a", "m"] { try run("setfattr", ["-n", "user." + name, "-v", name, tree + "/a/size1"]) }
    }
}
