import ChunkModel
import Glibc
import Integrity
import LinuxSystem
import OCISpec
import RegistryClient

/// Small verified files of the agent by digest: docs/formats/catalogue.md, "Files beside it". Thread-safe; every call
/// blocks on the disk, so run them on a `WorkQueue`.
struct ContentStore: Sendable {
    enum Kind: String, Sendable, CaseIterable {
        case manifest, index, seek, image
    }

    let directory: String

    /// Makes the directory and clears what a crash left half-written.
    init(directory: String) throws(SystemError) {
        self.directory = directory
        try Directory.create(directory, mode: 0o700)
        for name in try Directory.names(directory) where name.hasSuffix(".new") { unlink("\(directory)/\(name)") }
    }

    private func path(_ kind: Kind, _ digest: Digest) -> String { "\(directory)/\(digest.hex).\(kind.rawValue)" }

    /// Bytes that hash to the digest; nil when they are missing or damaged. Not for `image`.
    func verified(_ kind: Kind, _ digest: Digest, limit: Int) -> [UInt8]? {
        guard let bytes = try? file(kind, digest).contents(limit: limit), SHA256.hash(bytes) == digest else {
            return nil
        }
        return bytes
    }

    /// The file, for whoever checks what is in it.
    func file(_ kind: Kind, _ digest: Digest) throws(SystemError) -> File {
        try File(path: path(kind, digest), flags: O_RDONLY | O_NOFOLLOW)
    }

    /// Writes a file under another name and renames it. Not synced: a torn file fails its check and is fetched again.
    func write(_ kind: Kind, _ digest: Digest, _ bytes: [UInt8]) throws(SystemError) {
        let path = path(kind, digest)
        // Two images may write the same index at once: a name of its own for each writer.
        let temporary = "\(path).\(Monotonic.now.nanoseconds).new"
        do throws(SystemError) {
            let file = try File(path: temporary, flags: O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW)
            var failure: SystemError?
            bytes.withUnsafeBytes { buffer in
                do throws(SystemError) { try file.writeAll(buffer, at: 0) } catch { failure = error }
            }
            if let failure { throw failure }
            try Directory.rename(temporary, to: path)
        } catch {
            unlink(temporary)
            throw error
        }
    }

    /// What a stored manifest names; nil when it is missing or damaged.
    func image(_ manifest: Digest) -> ChunkdImage? {
        guard let bytes = verified(.manifest, manifest, limit: Limits.maxManifestSize),
            let document = try? OCIJSON.decode(Manifest.self, from: bytes)
        else { return nil }
        return try? ChunkdImage(manifest: document, bytes: bytes)
    }

    func remove(_ kind: Kind, _ digest: Digest) { unlink(path(kind, digest)) }

    /// Digests of all files of a kind, sorted.
    func digests(_ kind: Kind) throws(SystemError) -> [Digest] {
        try Directory.names(directory).compactMap { name in
            name.hasSuffix(".\(kind.rawValue)") ? Digest(hex: name.dropLast(kind.rawValue.count + 1)) : nil
        }
    }

    // MARK: - Image notes

    /// What the catalogue is made again from: where an image comes from and what it was asked for by.
    struct ImageNote: Equatable, Sendable {
        var repository: String
        var references: [String]
    }

    /// Bytes of an image note: a repository and as many references as anybody needs.
    static let maxNote = 64 << 10

    func note(_ manifest: Digest) -> ImageNote? {
        guard let bytes = try? file(.image, manifest).contents(limit: Self.maxNote) else { return nil }
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
        guard let repository = lines.first else { return nil }
        return ImageNote(repository: repository, references: Array(lines.dropFirst()))
    }

    func write(_ note: ImageNote, _ manifest: Digest) throws(SystemError) {
        let text = ([note.repository] + note.references).joined(separator: "\n") + "\n"
        try write(.image, manifest, Array(text.utf8.prefix(Self.maxNote)))
    }
}
