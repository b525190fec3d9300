import ChunkModel
import PeerTestSupport
import Testing

@testable import PeerTransport

/// The value under test behind a reference, so that expectations can call what changes it.
private final class Door {
    private var admission: Admission
    init(_ limits: PeerServerLimits = PeerServerLimits()) { admission = Admission(limits) }
    func accept(_ address: String, now: Double) -> PeerRefusalReason? { admission.accept(address, now: now) }
    func enter(_ name: NodeName) -> Bool { admission.enter(name) }
    func leave(_ name: NodeName) { admission.leave(name) }
    func endHandshake(_ address: String) { admission.endHandshake(address) }
    func close() { admission.close() }
    var handshakes: Int { admission.handshakes }
    var connections: Int { admission.connections }
}

@Suite struct AdmissionTests {
    @Test func aFloodFromOneAddressLeavesRoomForOthers() {
        let admission = Door()
        var refused = 0
        for _ in 0..<1000 where admission.accept("10.0.0.1", now: 0) != nil { refused += 1 }
        #expect(refused == 1000 - 16)
        #expect(admission.accept("10.0.0.2", now: 0) == nil)
    }

    @Test func handshakesAreLimitedByTheSecond() {
        let admission = Door()
        var begun = 0
        for step in 0..<5000 {
            // One second of 5,000 attempts, each done at once.
            if admission.accept("10.0.0.\(step % 200)", now: Double(step) / 5000) == nil {
                begun += 1
                admission.endHandshake("10.0.0.\(step % 200)")
                admission.close()
            }
        }
        #expect((256 + 190...256 + 200).contains(begun))
        #expect(admission.accept("10.0.0.1", now: 3) == nil)
    }

    @Test func whatIsCountedIsGivenBack() async throws {
        var limits = PeerServerLimits()
        limits.connections = 2
        limits.connectionsPerName = 1
        let admission = Door(limits)
        let name = try TestAuthority.name("a")
        #expect(admission.accept("x", now: 0) == nil)
        #expect(admission.accept("x", now: 0) == nil)
        #expect(admission.accept("x", now: 0) == .tooManyConnections)
        admission.endHandshake("x")
        #expect(admission.enter(name))
        admission.endHandshake("x")
        #expect(!admission.enter(name))
        admission.leave(name)
        #expect(admission.enter(name))
        admission.close()
        #expect(admission.accept("x", now: 0) == nil)
        #expect(admission.handshakes == 1)
        #expect(admission.connections == 2)
    }

    @Test func memoryOfTwoGenerationsIsBounded() {
        var memory = TwoGenerations<Int, Int>(limit: 10)
        for number in 0..<1000 {
            memory[number] = number
            let found = memory[number]
            #expect(found == number)
        }
        #expect(memory.count <= 20)
        // What is used stays.
        for number in 1000..<1100 {
            memory[number] = number
            let used = memory[1000]
            #expect(used == 1000)
        }
    }
}
