import ControlAPI
import Glibc
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
    @Suite("What each process may do")
    struct Confinement {
        @Test("chunkd has no privileges: another user, no capabilities, none to gain, no way into the gate's files")
        func agent() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let status = try #require(ProcessStatus(node.agentPid))
            let user = try #require(getpwnam("chunkd")).pointee.pw_uid
            #expect(user != 0)
            #expect(status["Uid"] == "\(user) \(user) \(user) \(user)")
            for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                #expect(status[field] == "0000000000000000", "\(field)")
            }
            #expect(status["NoNewPrivs"] == "1")
            #expect(status["Groups"] == "", "supplementary groups: \(status["Groups"])")

            let tree = try images.plainTree("tree", [("file", 100_000)])
            try node.build(tree, to: images.reference("confined"))
            try images.compare(tree, try node.mount(images.reference("confined")))
            let asItsUser = ["--reuid", "chunkd", "--regid", "chunkd", "--clear-groups"]
            let tried = try Command("setpriv", asItsUser + ["ls", node.stateDirectory + "/gate"]).run()
            #expect(tried.status != 0, "chunkd's user can list the gate's directory")
            try node.expectHealthy()
        }

        @Test("chunkgate opens no network socket, neither keeper nor child")
        func gate() throws {
            let images = try Images()
            let node = try Node([images.registry])
            let tree = try images.plainTree("tree", [("file", 100_000)])
            try node.build(tree, to: images.reference("sockets"))
            try images.compare(tree, try node.mount(images.reference("sockets")))
            let child = try #require(node.gateChildPid)
            for pid in [node.gatePid, child] {
                let status = try #require(ProcessStatus(pid))
                for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "netlink", "icmp", "sctp/eps"] {
                    #expect(try status.sockets(inTable: table) == [], "process \(pid) in \(table)")
                }
                // And the other way round: every socket it has is a unix one.
                #expect(try status.sockets(inTable: "unix").count == status.socketInodes().count)
            }
            #expect(try ProcessStatus(child)?.socketInodes().isEmpty == false, "the check saw no socket at all")
            try node.expectHealthy()
        }
    }
}
