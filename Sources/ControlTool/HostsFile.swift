import ChunkModel
import Integrity

/// A `hosts.toml` of containerd that sends pulls by digest to the mirror first: docs/formats/mirror.md, "hosts.toml". Pure.
///
/// Its first line has a checksum of the rest: so a file is known to be ours, and unchanged, by itself.
package struct HostsFile: Equatable, Sendable {
    /// As references name it.
    package var registry: String
    /// `http(s)://HOST[:PORT]` of the registry itself.
    package var server: String
    /// PEM file of the registry's authorities; empty: the system's.
    package var caFile: String
    /// `http://ADDRESS:PORT` of the mirror.
    package var endpoint: String
    /// Directories that were made for it, beside `hosts.toml`: to be removed with it when they are empty.
    package var madeDirectories: Int

    package init(registry: String, server: String, caFile: String, endpoint: String, madeDirectories: Int) {
        self.registry = registry
        self.server = server
        self.caFile = caFile
        self.endpoint = endpoint
        self.madeDirectories = madeDirectories
    }

    private static let mark = "# chunkctl mirror 1, directories made: "
    private static let sum = ", checksum of what follows: "
    /// Bytes of a file that is looked at.
    package static let maxBytes = 65_536

    /// The lines that matter, as somebody would add them to a file of his own.
    package var lines: String {
        "[host.\(Self.quoted(endpoint))]\n  capabilities = [\"pull\"]\n"
    }

    package var text: String {
        var body = """
            # Made by `chunkctl mirror install`; `chunkctl mirror remove` takes it away unless somebody has changed it.
            # Pulls of \(registry) by digest go to chunkd first; tags, and whatever chunkd has not got, to the registry.
            server = \(Self.quoted(server))

            """
        if !caFile.isEmpty { body += "ca = \(Self.quoted(caFile))\n" }
        body += "\n" + lines
        return "\(Self.mark)\(madeDirectories)\(Self.sum)\(SHA256.hash(Array(body.utf8)))\n\(body)"
    }

    /// How many directories were made for a file of ours; nil for a file of somebody else's, or one that was changed.
    package static func madeDirectories(of bytes: [UInt8]) -> Int? {
        let text = String(decoding: bytes, as: UTF8.self)
        guard bytes.count <= maxBytes, text.hasPrefix(mark), let end = text.firstIndex(of: "\n") else { return nil }
        let head = text[..<end].dropFirst(mark.count)
        guard let comma = head.firstIndex(of: ","), let made = Int(head[..<comma]), (0...2).contains(made),
            head[comma...].hasPrefix(sum), let digest = Digest(head[comma...].dropFirst(sum.count)),
            SHA256.hash(Array(text[text.index(after: end)...].utf8)) == digest
        else { return nil }
        return made
    }

    /// A TOML basic string (toml.io v1.0.0, "String").
    private static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            if scalar == "\"" || scalar == "\\" { out.unicodeScalars.append("\\") }
            out.unicodeScalars.append(scalar)
        }
        return out + "\""
    }
}
