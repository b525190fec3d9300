import ChunkModel
import Glibc
import LinuxSystem
import TestSupport
import Testing

@testable import Agent

/// One connection to a gate, with the test at its other end.
@Suite("A connection to chunkgate", .timeLimit(.minutes(1)))
struct GateConnectionTests {
    /// Reads on a thread of its own until `body` is done.
    private func connected(_ body: (GateConnection, PacketSocket, File) async throws -> Void) async throws {
        let (mine, theirs) = try PacketSocket.pair()
        // The least there is: some ten small messages.
        var bytes: Int32 = 1
        setsockopt(mine.file.descriptor, SOL_SOCKET, SO_SNDBUF, &bytes, socklen_t(MemoryLayout<Int32>.size))
        try theirs.setReceiveTimeout(seconds: 10)
        let connection = GateConnection(number: 1, socket: mine)
        let ended = Monitor(false)
        try Thread.start("test-gate") {
            _ = connection.receiveAll { _ in }
            ended.update { $0 = true }
        }
        try await body(connection, theirs, mine.file)
        connection.close()
        #expect(ended.wait(until: .now.adding(milliseconds: 5000)) { $0 ? true : nil } == true)
    }

    @Test("a call that chunkgate does not answer ends, and others go on")
    func timeout() async throws {
        let queue = try WorkQueue("test-send", threads: 1)
        try await connected { connection, gate, _ in
            let error = await #expect(throws: AgentError.self) {
                _ = try await connection.call(.stat, timeout: .milliseconds(100), on: queue)
            }
            #expect(error?.code == .gateTimeout)
            async let reply = connection.call(.listBlocked, timeout: .seconds(30), on: queue)
            let frames = await off { (0..<2).map { _ in try? gate.receive(limit: GateProtocol.maxFrameSize) } }
            let second = try #require(frames.last ?? nil)
            let (request, number) = try GateProtocol.decodeRequest(second.bytes)
            #expect(request == .listBlocked)
            try gate.send(GateProtocol.encode(.blocked([]), number: number))
            #expect(try await reply.events == [.blocked([])])
        }
    }

    private static func isFull(_ socket: File) -> Bool {
        var state = pollfd(fd: socket.descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&state, 1, 0) == 0
    }

    @Test("calls beyond what the socket takes wait their turn, and all are answered")
    func fullSocket() async throws {
        let queue = try WorkQueue("test-send", threads: 1)
        let count = 100
        try await connected { connection, gate, socket in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<count {
                    group.addTask { _ = try await connection.call(.listBlocked, timeout: .seconds(30), on: queue) }
                }
                #expect(await off { Wait.until(.seconds(10)) { Self.isFull(socket) } })
                try Thread.start("test-answers") {
                    for _ in 0..<count {
                        guard let message = try? gate.receive(limit: GateProtocol.maxFrameSize),
                            let (_, number) = try? GateProtocol.decodeRequest(message.bytes),
                            (try? gate.send(GateProtocol.encode(.blocked([]), number: number))) != nil
                        else { return }
                    }
                }
                try await group.waitForAll()
            }
        }
    }
}
