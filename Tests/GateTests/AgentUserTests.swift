import Gate
import LinuxSystem
import Testing

@Suite("The user chunkd runs as") struct AgentUserTests {
    @Test func numbersNeedNoUserOnThisHost() throws {
        #expect(try AgentUser.find("64710:64711") == AgentUser(uid: 64710, gid: 64711))
        #expect(try AgentUser.find("") == nil)
    }

    @Test(arguments: ["0:0", "root"])
    func rootIsRefused(_ text: String) {
        #expect(throws: SystemError.self) { try AgentUser.find(text) }
    }

    @Test(arguments: ["1", "1:", ":1", "1:2:3", "-1:2", "1:x", "4294967296:1", "1 :2"])
    func halfNumbersAreNames(_ text: String) {
        #expect(AgentUser.parse(text) == nil)
        let error = #expect(throws: SystemError.self) { try AgentUser.find(text) }
        #expect(error?.description.contains(text) == true)
    }

    @Test func aNameIsFoundWhole() {
        let file = Array("chunk:x:1:1::/:/x\nbroken\nchunkd:x:7:8:a:/:/x\nchunkd:x:9:9::/:/x\nodd:x:a:1:::".utf8)
        #expect(AgentUser.lookUp("chunkd", in: file) == AgentUser(uid: 7, gid: 8))
        #expect(AgentUser.lookUp("chunk", in: file) == AgentUser(uid: 1, gid: 1))
        for absent in ["hunkd", "chunkd:", "", "broken", "odd"] { #expect(AgentUser.lookUp(absent, in: file) == nil) }
    }
}
