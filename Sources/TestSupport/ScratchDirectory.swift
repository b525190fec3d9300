import Glibc
import LinuxSystem

/// A directory of one test, removed with everything in it when the last owner goes. What is mounted beneath it is
/// unmounted first, innermost first, so that a failed test leaves nothing behind.
package final class ScratchDirectory: Sendable {
    package let path: String

    /// Makes `PARENT/chunkd-NAME-xxxxxx`; the name is for people.
    package init(_ name: String, in parent: String = "/var/tmp") throws(SystemError) {
        var template = Array("\(parent)/chunkd-\(name)-XXXXXX".utf8CString)
        let made = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
        }
        guard let made else { throw SystemError(errno, "mkdtemp", "\(parent)/chunkd-\(name)") }
        path = made
        // Other users reach what is in it; mkdtemp(3) allows only the owner.
        try retrying("chmod", made) { chmod(made, 0o755) }
    }

    deinit {
        Self.unmountAll(beneath: path)
        // rm rather than a walk of ours: trees here have names and depths on purpose.
        _ = try? Command("rm", ["-rf", "--one-file-system", path]).run()
    }

    /// A path in it.
    package func appending(_ name: String) -> String { path + "/" + name }

    /// Makes a directory in it.
    package func makeDirectory(_ name: String, mode: mode_t = 0o755) throws(SystemError) -> String {
        let directory = appending(name)
        try retrying("mkdir", directory) { mkdir(directory, mode) }
        return directory
    }

    /// Unmounts everything mounted at or beneath a path; lazily where it is busy.
    package static func unmountAll(beneath path: String) {
        guard let mounts = try? MountEntry.all() else { return }
        let ours = mounts.filter { $0.mountPoint == path || $0.mountPoint.hasPrefix(path + "/") }
        for mount in ours.sorted(by: { $0.mountPoint.utf8.count > $1.mountPoint.utf8.count }) {
            do throws(SystemError) { try Mount.unmount(mount.mountPoint) } catch {
                try? Mount.unmount(mount.mountPoint, lazily: true)
            }
        }
    }
}
