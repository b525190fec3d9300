import ArgumentParser
import ClusterSimulator
import FoundationEssentials

/// `chunksim index`.
struct IndexCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "index", abstract: "Memory of the content index when all nodes have all images.")

    @OptionGroup var common: CommonOptions

    @Option(help: "Images each node has.")
    var images = 40

    func validate() throws {
        guard (1...1_000).contains(images) else { throw ValidationError("--images: 1...1000, not \(images)") }
    }

    func run() throws {
        let options = IndexMemory.Options(nodes: common.nodes, images: images, seed: common.announcedSeed())
        try common.finish([IndexMemory.run(options, residentBytes: Self.residentBytes)])
    }

    /// Resident memory of this process, by the kernel's count (proc(5)).
    private static func residentBytes() -> Int {
        guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else {
            preconditionFailure("/proc/self/statm cannot be read")
        }
        let fields = text.split(separator: " ")
        guard fields.count > 1, let pages = Int(fields[1]) else { preconditionFailure("statm says \(text)") }
        return pages * 4096
    }
}
