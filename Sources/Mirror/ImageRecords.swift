import ChunkModel
import Glibc
import Integrity
import LinuxSystem

/// Ordinary images that are shared with peers, kept over restarts: docs/formats/mirror.md, "On disk". Without them the
/// blobs on disk would be nobody's until somebody pulls the image again. Thread-safe; every call blocks on the disk.
package struct ImageRecords: Sendable {
    package struct Record: Sendable, Equatable {
        /// `HOST[:PORT]/REPOSITORY` that it was pulled from.
        package let name: String
        /// It was given to somebody who showed no credentials.
        package let isPublic: Bool
        /// As the registry gave it.
        package let manifest: [UInt8]

        package init(name: String, isPublic: Bool, manifest: [UInt8]) {
            self.name = name
            self.isPublic = isPublic
            self.manifest = manifest
        }
    }

    private static let magic = "chunkd-mirror-image 1"
    /// Bytes of a first line: a host and a repository have 255 each at most.
    private static let maxLine = 1024

    private let directory: String

    /// Makes the directory.
    package init(directory: String) throws(SystemError) {
        self.directory = directory
        try Directory.create(directory, mode: 0o700)
    }

    private func path(_ digest: Digest) -> String { "\(directory)/\(digest.hex)" }

    package func write(_ record: Record) throws(SystemError) {
        let line = "\(Self.magic) \(record.isPublic ? "public" : "keyed") \(record.name)\n"
        try Directory.replaceFile(path(SHA256.hash(record.manifest)), Array(line.utf8) + record.manifest)
    }

    package func remove(_ manifest: Digest) { unlink(path(manifest)) }

    /// What an earlier process left, the latest `limit` of it, oldest first; deletes all else that is there. The manifests'
    /// bytes are those the files' names say; nothing more is known of them.
    package func load(limit: Int) throws(SystemError) -> [Record] {
        var found: [(record: Record, name: String, time: Int)] = []
        for name in try Directory.names(directory) {
            if let (record, time) = read(name) {
                found.append((record, name, time))
            } else {
                unlink("\(directory)/\(name)")
            }
        }
        found.sort { ($0.time, $0.name) < ($1.time, $1.name) }
        for old in found.dropLast(limit) { unlink("\(directory)/\(old.name)") }
        return found.suffix(limit).map(\.record)
    }

    /// Nil for what no process of ours has finished writing, or a disk has damaged.
    private func read(_ name: String) -> (Record, time: Int)? {
        guard let digest = Digest(hex: name),
            let file = try? File(path: "\(directory)/\(name)", flags: O_RDONLY | O_NOFOLLOW),
            let time = try? file.modificationSeconds(),
            let bytes = try? file.contents(limit: Limits.maxManifestSize + Self.maxLine),
            let end = bytes.prefix(Self.maxLine).firstIndex(of: 0x0A)
        else { return nil }
        let manifest = Array(bytes[(end + 1)...])
        guard SHA256.hash(manifest) == digest else { return nil }
        let words = String(decoding: bytes[..<end], as: UTF8.self).split(
            separator: " ", omittingEmptySubsequences: false)
        guard words.count == 4, words[0] + " " + words[1] == Self.magic, ["public", "keyed"].contains(words[2]) else {
            return nil
        }
        return (Record(name: String(words[3]), isPublic: words[2] == "public", manifest: manifest), time)
    }
}
