import CLinux
import Glibc

/// One line of /proc/self/mountinfo (proc(5)).
package struct MountEntry: Equatable, Sendable {
    package var id: Int
    package var parent: Int
    /// `major:minor` of the superblock's device: equal for all mounts of one superblock.
    package var device: String
    /// Path inside the file system that is mounted.
    package var root: String
    package var mountPoint: String
    package var type: String
    package var source: String

    /// Parses a line; nil when it is not one. Octal escapes (`\040`) are decoded.
    package init?(line: some StringProtocol) {
        let fields = line.split(separator: " ", omittingEmptySubsequences: true)
        guard fields.count >= 9, let id = Int(fields[0]), let parent = Int(fields[1]),
            let dash = fields.dropFirst(6).firstIndex(of: "-"), fields.count >= dash + 3
        else { return nil }
        self.id = id
        self.parent = parent
        device = String(fields[2])
        root = Self.unescape(fields[3])
        mountPoint = Self.unescape(fields[4])
        type = String(fields[dash + 1])
        source = Self.unescape(fields[dash + 2])
    }

    private static func unescape(_ field: some StringProtocol) -> String {
        guard field.utf8.contains(UInt8(ascii: "\\")) else { return String(field) }
        let bytes = Array(field.utf8)
        var out: [UInt8] = []
        var at = 0
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "\\"), at + 3 < bytes.count,
                let value = UInt8(String(decoding: bytes[at + 1...at + 3], as: UTF8.self), radix: 8)
            {
                out.append(value)
                at += 4
            } else {
                out.append(bytes[at])
                at += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// All mounts of this process's mount namespace.
    package static func all() throws(SystemError) -> [MountEntry] {
        String(decoding: try readProcFile("/proc/self/mountinfo"), as: UTF8.self)
            .split(separator: "\n").compactMap { MountEntry(line: $0) }
    }
}

/// Reads a /proc or /sys file, whose size stat(2) does not tell; at most `limit` bytes.
package func readProcFile(_ path: String, limit: Int = 16 << 20) throws(SystemError) -> [UInt8] {
    let file = try File(path: path, flags: O_RDONLY)
    var out: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while out.count < limit {
        let count = try retrying("read", path) { read(file.descriptor, &buffer, buffer.count) }
        if count == 0 { break }
        out += buffer[..<count]
    }
    return out
}

/// EROFS mounts and bind mounts.
package enum Mount {
    /// Mounts an EROFS image file read-only at `target` by the mount API. `devices` are the device table's files in
    /// slot order. The kernel opens them now: their marks must be in place (kernel-facts, law 1).
    package static func erofs(image: String, devices: [String], at target: String) throws(SystemError) {
        let context = File(owning: try retrying("fsopen", "erofs") { clinux_fsopen("erofs") })
        func set(_ key: String, _ value: String) throws(SystemError) {
            do throws(SystemError) {
                try retrying("fsconfig", "\(key)=\(value)") {
                    clinux_fsconfig_string(context.descriptor, key, value)
                }
            } catch { throw SystemError(error.errno, error.call, error.subject + log(of: context)) }
        }
        try set("source", image)
        for device in devices { try set("device", device) }
        do throws(SystemError) {
            try retrying("fsconfig", "create \(image)") { clinux_fsconfig_create(context.descriptor) }
        } catch { throw SystemError(error.errno, error.call, error.subject + log(of: context)) }
        let readOnly: UInt32 = 1  // MOUNT_ATTR_RDONLY, mount_setattr(2)
        let mount = File(owning: try retrying("fsmount", image) { clinux_fsmount(context.descriptor, readOnly) })
        try retrying("move_mount", target) { clinux_move_mount(mount.descriptor, target) }
    }

    /// What the kernel said about a failed mount step: messages read from the context (fsopen(2)).
    private static func log(of context: File) -> String {
        var out = ""
        var buffer = [UInt8](repeating: 0, count: 512)
        for _ in 0..<16 {
            let count = read(context.descriptor, &buffer, buffer.count)
            if count <= 0 { break }
            out += " [" + String(decoding: buffer[..<count], as: UTF8.self) + "]"
        }
        return out
    }

    /// Makes `target` show what `source` shows, read-only; `isConfined`: without set-user-ID programs and devices. The
    /// mount has its flags before anybody can reach it.
    package static func bind(_ source: String, onto target: String, isConfined: Bool) throws(SystemError) {
        let mount = File(owning: try retrying("open_tree", source) { clinux_clone_mount(source) })
        let attributes = CLINUX_MOUNT_RDONLY | (isConfined ? CLINUX_MOUNT_NOSUID | CLINUX_MOUNT_NODEV : 0)
        try retrying("mount_setattr", source) { clinux_mount_setattr(mount.descriptor, attributes) }
        try retrying("move_mount", "\(source) on \(target)") { clinux_move_mount(mount.descriptor, target) }
    }

    /// Unmounts; EBUSY while it is in use unless `lazily`.
    package static func unmount(_ target: String, lazily: Bool = false) throws(SystemError) {
        try retrying("umount2", target) { umount2(target, lazily ? Int32(MNT_DETACH) : 0) }
    }
}
