import Glibc
internal import LinuxSystem

/// The directory of one build's temporary files, for its owner only. Removed with all its contents by `remove`.
struct BuildDirectory: Sendable {
    let path: String

    /// Makes `PARENT/chunkd-build-XXXXXX`; the parent is what was asked for, TMPDIR, or /var/tmp (which is not in memory).
    init(in parent: String?) throws(ImageBuildError) {
        let variable = getenv("TMPDIR").map { String(cString: $0) } ?? ""
        let parent = parent ?? (variable.isEmpty ? "/var/tmp" : variable)
        var template = Array((parent + "/chunkd-build-XXXXXX").utf8CString)
        let made = template.withUnsafeMutableBufferPointer { buffer -> String? in
            guard let base = buffer.baseAddress, mkdtemp(base) != nil else { return nil }
            return String(cString: base)
        }
        guard let made else {
            throw ImageBuildError(
                .inputOutput, "cannot make a directory for temporary files; choose a place with --temp-dir",
                cause: SystemError(errno, "mkdtemp", parent))
        }
        path = made
    }

    func appending(_ name: String) -> String { path + "/" + name }

    /// Makes a subdirectory and returns its path.
    func makeDirectory(_ name: String) throws(SystemError) -> String {
        let path = appending(name)
        try retrying("mkdir", path) { mkdir(path, 0o700) }
        return path
    }

    /// Removes everything, also after a cancellation. Blocks. rm(1) copes with any name and any depth.
    func remove() {
        try? Tool.run("rm", ["-rf", "--one-file-system", "--", path], package: "coreutils", Cancellation())
    }
}
