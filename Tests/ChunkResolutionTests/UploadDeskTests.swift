import ChunkModel
import ChunkResolution
import Testing

@Suite struct UploadDeskTests {
    private let blob: WireID = {
        guard let id = WireID(rawBytes: (0..<32).map { UInt8($0) }) else { fatalError("32 bytes are an id") }
        return id
    }()

    private func node(_ number: Int) -> NodeName {
        guard let name = NodeName("node-\(number)") else { fatalError("a valid name") }
        return name
    }

    private func ticket(_ answer: UploadDesk.Answer) -> UInt64? {
        if case .serve(let ticket) = answer { ticket } else { nil }
    }

    @Test func eachSegmentAndEachNodeHasItsShare() {
        var desk = UploadDesk()
        var served = 0
        for number in 1...20 {
            if ticket(desk.ask(node(number), blob, segment: 0, rank: .demand, now: .zero)) != nil { served += 1 }
        }
        #expect(served == 8)
        var own = 0
        for segment in UInt64(1)...20 {
            if ticket(desk.ask(node(99), blob, segment: segment, rank: .demand, now: .zero)) != nil { own += 1 }
        }
        #expect(own == 12)
    }

    @Test func theLastOnesAreForReaders() {
        var desk = UploadDesk()
        for number in 0..<40 {
            _ = desk.ask(node(number), blob, segment: UInt64(number), rank: .readAhead, now: .zero)
        }
        #expect(desk.active == 24)
        for number in 50..<90 {
            _ = desk.ask(node(number), blob, segment: UInt64(number), rank: .relayed, now: .zero)
        }
        #expect(desk.active == 32)
    }

    @Test func whoIsRefusedHearsWhoWasGivenItInTurn() {
        var desk = UploadDesk()
        for number in 1...8 {
            if let ticket = ticket(desk.ask(node(number), blob, segment: 0, rank: .demand, now: .zero)), number <= 6 {
                desk.noteSent(ticket, now: .zero)
            }
        }
        func hints(_ asker: Int, at now: Duration = .seconds(1)) -> [NodeName] {
            if case .busy(_, let holders) = desk.ask(node(asker), blob, segment: 0, rank: .demand, now: now) {
                holders
            } else {
                []
            }
        }
        #expect(hints(20) == [1, 2, 3, 4].map(node))
        #expect(hints(21) == [5, 6, 1, 2].map(node))
        #expect(!hints(3).contains(node(3)))
        #expect(hints(20, at: .seconds(5)).isEmpty, "too long ago")
    }

    @Test func aFinishedUploadMakesRoomOnce() {
        var desk = UploadDesk()
        let tickets = (1...8).compactMap { ticket(desk.ask(node($0), blob, segment: 0, rank: .demand, now: .zero)) }
        #expect(ticket(desk.ask(node(9), blob, segment: 0, rank: .demand, now: .zero)) == nil)
        desk.finish(tickets[0])
        desk.finish(tickets[0])
        #expect(ticket(desk.ask(node(9), blob, segment: 0, rank: .demand, now: .zero)) != nil)
        #expect(ticket(desk.ask(node(10), blob, segment: 0, rank: .demand, now: .zero)) == nil)
    }
}
