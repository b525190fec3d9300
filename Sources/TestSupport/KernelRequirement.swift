import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem

/// What the tests on the real mechanism need of the machine: root, pre-content events (Linux 6.14) on the file system
/// of /var/tmp, and EROFS mounts from files (6.12).
package enum KernelRequirement {
    /// Why the kernel tests cannot run here; nil when they can. Found out once.
    package static let missing: String? = find()

    /// Whether the kernel tests are to be run: always where a skip is a failure (`CI=true` or
    /// `CHUNKD_REQUIRE_KERNEL=1`), so that they fail there, and elsewhere where they can.
    package static var shouldRun: Bool { isRequired || missing == nil }

    /// What a skipped test says.
    package static var comment: String { missing ?? "the kernel can run this test" }

    private static var isRequired: Bool {
        let environment = ProcessInfo.processInfo.environment
        return environment["CI"] == "true" || environment["CHUNKD_REQUIRE_KERNEL"] == "1"
    }

    private static func find() -> String? {
        guard geteuid() == 0 else { return "needs root" }
        let flags = CLINUX_FAN_CLASS_PRE_CONTENT | CLINUX_FAN_CLOEXEC | CLINUX_FAN_UNLIMITED_QUEUE
        do throws(SystemError) {
            let group = File(
                owning: try retrying("fanotify_init") { clinux_fanotify_init(flags, UInt32(O_RDWR | O_CLOEXEC)) })
            let scratch = try ScratchDirectory("probe")
            let image = scratch.appending("image")
            let file = try File(path: image, flags: O_CREAT | O_RDWR)
            try retrying("fanotify_mark FAN_PRE_ACCESS", "a file in /var/tmp") {
                clinux_fanotify_mark_fd(
                    group.descriptor, CLINUX_FAN_MARK_ADD, CLINUX_FAN_PRE_ACCESS, file.descriptor)
            }
            return findErofs(in: scratch)
        } catch { return "needs pre-content events of Linux 6.14: \(error)" }
    }

    private static func findErofs(in scratch: ScratchDirectory) -> String? {
        do {
            let tree = try scratch.makeDirectory("tree")
            let target = try scratch.makeDirectory("target")
            try Command.run("mkfs.erofs", scratch.appending("probe.erofs"), tree)
            try Mount.erofs(image: scratch.appending("probe.erofs"), devices: [], at: target)
            try Mount.unmount(target)
            return nil
        } catch { return "needs EROFS mounts from files: \(error)" }
    }
}
