import CLinux
import Glibc
import LinuxSystem

/// Giving up what root has.
enum Privileges {
    /// A user of the system.
    struct User: Equatable {
        let name: String
        let uid: uid_t
        let gid: gid_t

        /// Looks a user up; nil when there is none of that name.
        init?(named name: String) {
            var entry = passwd()
            var result: UnsafeMutablePointer<passwd>?
            var buffer = [CChar](repeating: 0, count: 16 << 10)
            guard getpwnam_r(name, &entry, &buffer, buffer.count, &result) == 0, result != nil else { return nil }
            self.name = name
            uid = entry.pw_uid
            gid = entry.pw_gid
        }
    }

    /// Becomes `user` for good: no groups, no capabilities in any set, and no way to gain any through execve
    /// (PR_SET_NO_NEW_PRIVS, prctl(2)). Only for root, and only before there is a second thread: capabilities are a
    /// thread's own (capabilities(7)).
    static func become(_ user: User) throws(SystemError) {
        try retrying("prctl PR_CAPBSET_DROP") { clinux_drop_bounding_set() }
        try retrying("setgroups") { setgroups(0, nil) }
        try retrying("setgid", user.name) { setgid(user.gid) }
        try retrying("setuid", user.name) { setuid(user.uid) }
        try renounce()
    }

    /// Makes sure that a process which is not root has no capabilities either.
    static func renounce() throws(SystemError) {
        try retrying("capset") { clinux_clear_capabilities() }
    }

    /// Makes the directories the user needs, as chunkgate would: whichever of the two starts first.
    static func prepareDirectories(state: String, run: String, for user: User) throws(SystemError) {
        try Directory.create(state, mode: 0o755)
        let agent = state + "/agent"
        try Directory.create(agent, mode: 0o700)
        try retrying("lchown", agent) { lchown(agent, user.uid, user.gid) }
        guard !Directory.exists(run) else { return }
        // Sticky, writable by the user's group: chunkd makes its socket there and cannot replace chunkgate's.
        try Directory.create(run, mode: 0o700)
        try retrying("lchown", run) { lchown(run, 0, user.gid) }
        try retrying("chmod", run) { chmod(run, 0o1770) }
    }
}
