import Glibc
import LinuxSystem

/// The user chunkd runs as: `--agent-user`, a name of /etc/passwd, or `UID:GID` where the host knows no such user
/// (chunkd in a container of its own).
///
/// /etc/passwd is read here and not by getpwnam(3): that loads whatever libraries nsswitch.conf names into the process
/// that is to be trusted, and this program is linked statically so that it can run on any distribution.
package struct AgentUser: Equatable {
    /// Its number; never 0.
    package let uid: UInt32
    /// Its group, which may make sockets in the run directory.
    package let gid: UInt32

    package init(uid: UInt32, gid: UInt32) {
        self.uid = uid
        self.gid = gid
    }

    private static let passwd = "/etc/passwd"
    /// Some thousand users; a file beyond that is refused rather than read.
    private static let maxPasswdBytes = 1 << 20

    /// Nil for no user at all (empty: only root may connect).
    package static func find(_ text: String) throws(SystemError) -> AgentUser? {
        if text.isEmpty { return nil }
        var found = parse(text)
        if found == nil { found = lookUp(text, in: try contents(passwd)) }
        guard let user = found else {
            throw SystemError(
                ENOENT, "look up user", "\(text): not in \(passwd). Create it, or give --agent-user another or UID:GID")
        }
        guard user.uid != 0 else { throw SystemError(EINVAL, "look up user", "\(text): chunkd must not run as root") }
        return user
    }

    private static func contents(_ path: String) throws(SystemError) -> [UInt8] {
        try File(path: path, flags: O_RDONLY).contents(limit: maxPasswdBytes)
    }

    /// `UID:GID`.
    package static func parse(_ text: String) -> AgentUser? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let uid = UInt32(parts[0]), let gid = UInt32(parts[1]) else { return nil }
        return AgentUser(uid: uid, gid: gid)
    }

    /// The line of a name in passwd(5): `name:password:uid:gid:…`.
    package static func lookUp(_ name: String, in file: [UInt8]) -> AgentUser? {
        for line in file.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: ":"), maxSplits: 4, omittingEmptySubsequences: false)
            guard fields.count >= 4, fields[0].elementsEqual(name.utf8) else { continue }
            let numbers = fields[2...3].compactMap { UInt32(String(decoding: $0, as: UTF8.self)) }
            return numbers.count == 2 ? AgentUser(uid: numbers[0], gid: numbers[1]) : nil
        }
        return nil
    }
}
