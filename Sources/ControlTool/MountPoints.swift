import Glibc
import LinuxSystem

/// What the mount table says about a directory and about the gate's mounts. Values in, values out.
package struct MountPoints: Sendable {
    /// In the order of mountinfo: later entries cover earlier ones.
    package var entries: [MountEntry]

    package init(entries: [MountEntry]) { self.entries = entries }

    /// The mounts of this process's namespace.
    package static func current() throws -> MountPoints { MountPoints(entries: try MountEntry.all()) }

    /// The topmost mount exactly at `path`; nil when nothing is mounted there.
    package func top(at path: String) -> MountEntry? { entries.last { $0.mountPoint == path } }

    /// Mounts of the same superblock as `entry`, itself apart.
    package func others(of entry: MountEntry) -> [MountEntry] {
        entries.filter { $0.device == entry.device && $0.id != entry.id }
    }

    /// Whether apart from `entry` only the gate's own mount of the image is in this namespace. The gate looks for itself.
    package func isLast(_ entry: MountEntry, gatePath: String) -> Bool {
        others(of: entry).allSatisfy { $0.mountPoint == gatePath }
    }

    /// Checks that `directory` (absolute, resolved) can take an image.
    package func checkFree(_ directory: String) throws(ToolError) {
        guard let top = top(at: directory), top.type == "erofs" else { return }
        throw ToolError(
            "conflict", "\(directory) has an image mounted already (\(top.source))",
            hint: "chunkctl umount \(directory)")
    }

    /// The gate's EROFS mount at `path`. Binding a directory that is not that mount would show an empty tree.
    package func gateMount(at path: String) throws(ToolError) -> MountEntry {
        guard let entry = top(at: path), entry.type == "erofs" else {
            throw ToolError(
                "conflict", "chunkgate mounted the image at \(path), but that mount is not visible here",
                hint: "run chunkctl in chunkgate's mount namespace (nsenter -t PID -m)")
        }
        return entry
    }

    /// The EROFS mount at `directory` that `chunkctl umount` may remove. `gatePaths` are the gate's own mounts.
    package func image(at directory: String, gatePaths: [String]) throws(ToolError) -> MountEntry {
        guard let entry = top(at: directory) else {
            throw ToolError("notFound", "nothing is mounted at \(directory)", hint: "findmnt -t erofs lists images")
        }
        guard entry.type == "erofs" else {
            throw ToolError(
                "conflict", "\(directory) is a \(entry.type) mount, not an image", hint: "use umount(8) for it")
        }
        guard !gatePaths.contains(directory) else {
            throw ToolError(
                "conflict", "\(directory) is chunkgate's own mount, shared by all users of the image",
                hint: "unmount the directory it was mounted on with chunkctl mount")
        }
        return entry
    }

    /// `path` without symbolic links, `.` and `..`; it must be a directory.
    package static func resolve(directory path: String) throws(ToolError) -> String {
        guard let resolved = realpath(path, nil) else {
            let code = errno
            throw ToolError(
                "notFound", "\(path): \(String(cString: strerror(code)))",
                hint: code == ENOENT ? "mkdir -p \(path)" : "")
        }
        defer { free(resolved) }
        var status = stat()
        guard stat(resolved, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw ToolError("conflict", "\(path) is not a directory", hint: "name a directory to mount on")
        }
        return String(cString: resolved)
    }
}
