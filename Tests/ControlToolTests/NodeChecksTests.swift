import ControlAPI
import ControlTool
import Glibc
import LinuxSystem
import Testing

@Suite struct NodeChecksTests {
    @Test(arguments: [
        ("6.14.0", DoctorCheck.Status.ok), ("6.18.44-generic", .ok), ("7.0-rc1", .ok), ("6.13.9", .fail),
        ("5.15.0-1", .fail), ("weird", .warn),
    ])
    func kernelsBefore614Fail(release: String, status: DoctorCheck.Status) {
        let check = NodeChecks.kernel(release: release)
        #expect(check.status == status)
        #expect(check.advice.isEmpty == (status == .ok))
    }

    @Test func fanotifyErrorsSayWhatToDo() {
        #expect(NodeChecks.fanotify(error: SystemError(EPERM, "fanotify_init")).status == .warn)
        let full = NodeChecks.fanotify(error: SystemError(EMFILE, "fanotify_init"))
        #expect(full.status == .fail && full.advice.contains("max_user_groups"))
        let old = NodeChecks.fanotify(error: SystemError(EINVAL, "fanotify_init"))
        #expect(old.status == .fail && old.advice.contains("CONFIG_FANOTIFY_ACCESS_PERMISSIONS"))
    }

    @Test func erofsMustBeThereAndMountFiles() {
        #expect(NodeChecks.erofs(known: false, isModule: false, config: "").status == .fail)
        #expect(NodeChecks.erofs(known: false, isModule: true, config: "").status == .ok)
        let without = "CONFIG_EROFS_FS=m\n# CONFIG_EROFS_FS_BACKED_BY_FILE is not set\n"
        #expect(NodeChecks.erofs(known: true, isModule: false, config: without).status == .fail)
        let with = NodeChecks.erofs(known: true, isModule: false, config: "CONFIG_EROFS_FS_BACKED_BY_FILE=y\n")
        #expect(with.found == "available, file-backed mounts")
    }

    @Test func theStateDirectoryNeedsAFileSystemThatCarriesMarks() {
        for kind in [FileSystemKind.ext4, .xfs, .btrfs] {
            #expect(NodeChecks.stateDirectory("/s", kind: kind, freeBytes: 1 << 40).status == .ok)
        }
        #expect(NodeChecks.stateDirectory("/s", kind: .tmpfs, freeBytes: 1 << 40).status == .fail)
        #expect(
            NodeChecks.stateDirectory("/s", kind: .overlayfs, freeBytes: 1 << 40).advice.contains("ext4, xfs or btrfs"))
        #expect(NodeChecks.stateDirectory("/s", kind: .ext4, freeBytes: 1 << 20).status == .warn)
    }

    @Test func limitsAreJudged() {
        #expect(NodeChecks.openFiles(hardLimit: 1 << 20).status == .ok)
        #expect(NodeChecks.openFiles(hardLimit: 1024).status == .warn)
        #expect(NodeChecks.groups(limit: 128, shards: 4).status == .ok)
        #expect(NodeChecks.groups(limit: 7, shards: 4).status == .fail)
        #expect(NodeChecks.groups(limit: nil, shards: 4).status == .warn)
    }

    @Test func missingToolsAreNamed() {
        let check = NodeChecks.tools(path: "/nonexistent")
        // /sbin and /usr/sbin are always looked at; umoci is never there.
        #expect(check.status == .warn && check.found.contains("umoci"))
    }

    @Test func aListeningGateIsFoundWithoutConnecting() {
        let table = """
            Num       RefCount Protocol Flags    Type St Inode Path
            0000000000000000: 00000002 00000000 00010000 0005 01 21093 /run/chunkd/gate.sock
            0000000000000000: 00000003 00000000 00000000 0005 03 21094 /run/other/gate.sock
            0000000000000000: 00000002 00000000 00000000 0002 01 21095
            """
        #expect(NodeChecks.gateSocket("/run/chunkd/gate.sock", isReadable: true, listening: table).status == .ok)
        #expect(NodeChecks.gateSocket("/run/other/gate.sock", isReadable: true, listening: table).status == .fail)
        #expect(NodeChecks.gateSocket("/run/x.sock", isReadable: false, listening: table).status == .warn)
    }
}
