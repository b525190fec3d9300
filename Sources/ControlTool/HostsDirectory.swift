import Glibc
import LinuxSystem

/// containerd's directory of registries, one `HOST/hosts.toml` each. Only files that are ours are ever changed or removed.
/// Every call blocks on the disk.
package struct HostsDirectory: Sendable {
    /// What there is for a registry.
    package enum Found: Equatable, Sendable {
        case nothing
        /// Ours, unchanged; and whether it is what would be written now.
        case ours(isCurrent: Bool)
        /// Somebody else's, or ours with changes.
        case foreign(path: String)
        /// Files beside it, or for all registries, that containerd would look at no more.
        case hidden(path: String)
    }

    let path: String

    package init(_ path: String) { self.path = path }

    private func directory(_ registry: String) -> String { "\(path)/\(registry)" }
    package func file(_ registry: String) -> String { directory(registry) + "/hosts.toml" }

    /// Whether there is a file at all, whoever's.
    package func isThere(_ registry: String) -> Bool { Directory.exists(file(registry)) }

    package func find(_ file: HostsFile) throws(SystemError) -> Found {
        let place = self.file(file.registry)
        if Directory.exists(place) {
            let bytes = try bytes(place)
            guard let bytes, let made = HostsFile.madeDirectories(of: bytes) else { return .foreign(path: place) }
            var expected = file
            expected.madeDirectories = made
            return .ours(isCurrent: Array(expected.text.utf8) == bytes)
        }
        // Without a hosts.toml containerd takes certificates from here, and what holds for all from there; with one, neither.
        if Directory.exists(directory(file.registry)),
            let other = try Directory.names(directory(file.registry)).first(where: { !$0.hasSuffix(".new") })
        {
            return .hidden(path: directory(file.registry) + "/" + other)
        }
        let fallback = path + "/_default"
        return Directory.exists(fallback) ? .hidden(path: fallback) : .nothing
    }

    /// A file of ours, or nothing that could be read as one: a link, a directory, something large.
    private func bytes(_ place: String) throws(SystemError) -> [UInt8]? {
        do throws(SystemError) {
            let file = try File(path: place, flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
            return try file.contents(limit: HostsFile.maxBytes)
        } catch {
            if [ELOOP, EFBIG, EISDIR].contains(error.errno) { return nil }
            throw error
        }
    }

    /// Writes a file where `find` has found nothing or an older one of ours.
    package func write(_ file: HostsFile) throws(SystemError) {
        var file = file
        file.madeDirectories = 0
        if let bytes = Directory.exists(self.file(file.registry)) ? try bytes(self.file(file.registry)) : nil {
            file.madeDirectories = HostsFile.madeDirectories(of: bytes) ?? 0
        }
        for made in [path, directory(file.registry)] where !Directory.exists(made) {
            try Self.make(made)
            file.madeDirectories += 1
        }
        try Directory.replaceFile(self.file(file.registry), Array(file.text.utf8), mode: 0o644)
    }

    /// Readable by all, as the rest of /etc is.
    private static func make(_ directory: String) throws(SystemError) {
        guard mkdir(directory, 0o755) == 0 || errno == EEXIST else { throw SystemError(errno, "mkdir", directory) }
    }

    /// Removes a file of ours and the directories that were made for it, if they are empty. False: there is none of ours.
    package func remove(_ registry: String) throws(SystemError) -> Bool {
        let place = file(registry)
        guard Directory.exists(place), let bytes = try bytes(place), let made = HostsFile.madeDirectories(of: bytes)
        else { return false }
        guard unlink(place) == 0 else { throw SystemError(errno, "unlink", place) }
        // Not empty: somebody else uses it.
        if made >= 1 { rmdir(directory(registry)) }
        if made >= 2 { rmdir(path) }
        return true
    }

    /// Registries that have a file of ours, in the order to remove them: last the one for which the directory of all was made.
    package func registries() throws(SystemError) -> [String] {
        guard Directory.exists(path) else { return [] }
        var found: [(made: Int, name: String)] = []
        for name in try Directory.names(path) where Directory.exists(file(name)) {
            // A file among the directories: none of ours.
            guard let bytes = try? bytes(file(name)), let made = HostsFile.madeDirectories(of: bytes) else { continue }
            found.append((made, name))
        }
        return found.sorted { ($0.made, $0.name) < ($1.made, $1.name) }.map(\.name)
    }
}
