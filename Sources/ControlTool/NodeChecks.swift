import ControlAPI
import Glibc
import LinuxSystem
import PreContent
import Settings

/// The checks of `chunkctl doctor` that need no agent. Those that judge a value are pure and take it as an argument.
package enum NodeChecks {
    /// All of them, in the order of the table.
    static func all(settings: AgentSettings) -> [DoctorCheck] {
        var name = utsname()
        uname(&name)
        let release = withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        var checks = [kernel(release: release), fanotify(), erofs(release: release)]
        checks.append(stateDirectory(settings.stateDirectory))
        checks.append(openFiles(hardLimit: hardLimitOfOpenFiles()))
        checks.append(groups(limit: number("/proc/sys/fs/fanotify/max_user_groups"), shards: settings.gate.shards))
        checks.append(tools(path: ConnectionOptions.environment()["PATH"] ?? ""))
        checks.append(gateSocket(settings.gateSocket))
        return checks
    }

    /// Pre-content events came with Linux 6.14.
    package static func kernel(release: String) -> DoctorCheck {
        let parts = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
        guard parts.count == 2 else {
            return DoctorCheck(
                name: "kernel", status: .warn, found: "unknown version \(release)",
                advice: "Linux 6.14 or later is needed")
        }
        let fine = (parts[0], parts[1]) >= (6, 14)
        return DoctorCheck(
            name: "kernel", status: fine ? .ok : .fail, found: "Linux \(release)",
            advice: fine ? "" : "install Linux 6.14 or later: fanotify pre-content events are needed")
    }

    /// Opens a pre-content group and closes it again.
    private static func fanotify() -> DoctorCheck {
        do throws(SystemError) {
            _ = try Group()
            return DoctorCheck(name: "fanotify", status: .ok, found: "pre-content events work")
        } catch {
            return fanotify(error: error)
        }
    }

    /// What a failed fanotify_init(2) means.
    package static func fanotify(error: SystemError) -> DoctorCheck {
        switch error.errno {
        case EPERM:
            DoctorCheck(
                name: "fanotify", status: .warn, found: "not checked: needs CAP_SYS_ADMIN",
                advice: "run chunkctl doctor as root; in a container, chunkgate needs CAP_SYS_ADMIN of the host")
        case EMFILE:
            DoctorCheck(
                name: "fanotify", status: .fail, found: "all groups of this user are in use",
                advice: "raise the sysctl fs.fanotify.max_user_groups")
        default:
            DoctorCheck(
                name: "fanotify", status: .fail, found: error.description,
                advice: "a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y, Linux 6.14 or later, is needed")
        }
    }

    private static func erofs(release: String) -> DoctorCheck {
        let known = text("/proc/filesystems").split(whereSeparator: \.isWhitespace).contains("erofs")
        let modules = text("/lib/modules/\(release)/modules.dep")
        let isModule = modules.contains("/erofs/erofs.ko")
        return erofs(known: known, isModule: isModule, config: text("/boot/config-\(release)"))
    }

    /// EROFS mounts straight from a file need CONFIG_EROFS_FS_BACKED_BY_FILE (Linux 6.12). `config` may be empty.
    package static func erofs(known: Bool, isModule: Bool, config: String) -> DoctorCheck {
        guard known || isModule else {
            return DoctorCheck(
                name: "erofs", status: .fail, found: "not in this kernel",
                advice: "a kernel with CONFIG_EROFS_FS and CONFIG_EROFS_FS_BACKED_BY_FILE is needed")
        }
        let lines = config.split(separator: "\n")
        if lines.contains("# CONFIG_EROFS_FS_BACKED_BY_FILE is not set") {
            return DoctorCheck(
                name: "erofs", status: .fail, found: "without file-backed mounts",
                advice: "a kernel with CONFIG_EROFS_FS_BACKED_BY_FILE=y is needed")
        }
        let sure = lines.contains("CONFIG_EROFS_FS_BACKED_BY_FILE=y")
        return DoctorCheck(
            name: "erofs", status: .ok,
            found: (known ? "available" : "module, loaded on first mount") + (sure ? ", file-backed mounts" : ""))
    }

    private static func stateDirectory(_ path: String) -> DoctorCheck {
        // Before the first start the directory is not there: its nearest parent tells.
        var existing = path
        while access(existing, F_OK) != 0, let slash = existing.lastIndex(of: "/") {
            existing = slash == existing.startIndex ? "/" : String(existing[..<slash])
        }
        var space = statvfs()
        let free = statvfs(existing, &space) == 0 ? UInt64(space.f_bavail) * UInt64(space.f_frsize) : 0
        do throws(SystemError) {
            let kind = try File(path: existing, flags: O_RDONLY | O_DIRECTORY).fileSystem()
            return stateDirectory(path, kind: kind, freeBytes: free)
        } catch {
            return DoctorCheck(
                name: "state directory", status: .warn, found: "\(path): \(error)",
                advice: "run chunkctl doctor as root")
        }
    }

    /// Pre-content marks work on ext4, xfs and btrfs only.
    package static func stateDirectory(_ path: String, kind: FileSystemKind, freeBytes: UInt64) -> DoctorCheck {
        let found = "\(path): \(kind), \(Table.bytes(freeBytes)) free"
        guard kind.carriesPreContentMarks else {
            return DoctorCheck(
                name: "state directory", status: .fail, found: found,
                advice: "put stateDir on ext4, xfs or btrfs: others cannot carry pre-content marks")
        }
        let scarce = freeBytes < 1 << 30
        return DoctorCheck(
            name: "state directory", status: scarce ? .warn : .ok, found: found,
            advice: scarce ? "less than 1 GiB is free: make room, or set quota.highWater" : "")
    }

    /// An event needs a descriptor while it is answered; EMFILE would deny it (kernel-facts, law 11).
    package static func openFiles(hardLimit: UInt64) -> DoctorCheck {
        let enough = hardLimit >= 65536
        return DoctorCheck(
            name: "open files", status: enough ? .ok : .warn, found: "hard limit \(hardLimit)",
            advice: enough
                ? ""
                : "raise it to 65536 or more for chunkgate (LimitNOFILE= in its unit): "
                    + "a read that finds no free descriptor fails")
    }

    private static func hardLimitOfOpenFiles() -> UInt64 {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return UInt64(limit.rlim_max)
    }

    /// Each shard is a group. `limit` nil: the kernel does not say.
    package static func groups(limit: Int?, shards: Int) -> DoctorCheck {
        guard let limit else {
            return DoctorCheck(
                name: "fanotify groups", status: .warn, found: "no /proc/sys/fs/fanotify",
                advice: "is this kernel built with CONFIG_FANOTIFY?")
        }
        let enough = limit >= 2 * shards
        return DoctorCheck(
            name: "fanotify groups", status: enough ? .ok : .fail, found: "\(limit) a user, \(shards) needed",
            advice: enough ? "" : "sysctl fs.fanotify.max_user_groups=128, or lower gate.shards")
    }

    /// Programs image building calls; mounting needs none of them.
    package static func tools(path: String) -> DoctorCheck {
        let directories = path.split(separator: ":").map(String.init)
        let missing = ["mkfs.erofs", "umoci"].filter { tool in
            !(directories + ["/sbin", "/usr/sbin"]).contains { access("\($0)/\(tool)", X_OK) == 0 }
        }
        return DoctorCheck(
            name: "build tools", status: missing.isEmpty ? .ok : .warn,
            found: missing.isEmpty ? "mkfs.erofs, umoci" : "missing: \(missing.joined(separator: ", "))",
            advice: missing.isEmpty ? "" : "for chunkctl image build: apt-get install erofs-utils umoci")
    }

    private static func gateSocket(_ path: String) -> DoctorCheck {
        gateSocket(path, isReadable: access(path, F_OK) == 0 || errno == ENOENT, listening: text("/proc/net/unix"))
    }

    /// Looks for a listening socket in the text of /proc/net/unix (proc(5)): a connection would look like a second
    /// chunkd to the gate. `isReadable`: we may look into the socket's directory.
    package static func gateSocket(_ path: String, isReadable: Bool, listening table: String) -> DoctorCheck {
        // Num: RefCount Protocol Flags Type St Inode Path; the flag __SO_ACCEPTCON (0x10000) says it listens.
        let found = table.split(separator: "\n").contains { line in
            let fields = line.split(separator: " ", maxSplits: 7, omittingEmptySubsequences: true)
            return fields.count == 8 && fields[7] == path && (UInt32(fields[3], radix: 16) ?? 0) & 0x10000 != 0
        }
        if found { return DoctorCheck(name: "chunkgate", status: .ok, found: "listens on \(path)") }
        return DoctorCheck(
            name: "chunkgate", status: isReadable ? .fail : .warn, found: "nothing listens on \(path)",
            advice: isReadable ? "start chunkgate, or set runDir or gateSocket" : "run chunkctl doctor as root")
    }

    /// A small text file of the kernel or distribution; empty when it cannot be read.
    private static func text(_ path: String) -> String {
        (try? readProcFile(path)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    private static func number(_ path: String) -> Int? {
        Int(text(path).filter { !$0.isWhitespace })
    }
}
