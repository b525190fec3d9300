@testable import Agent
import ControlAPI
import Glibc
import Testing

@Suite struct ProcessNameTests {
    @Test func thisProcessHasItsNameAndOneThatIsNotThereHasNone() {
        #expect(ProcessName(pid: UInt32(getpid())).command?.isEmpty == false)
        #expect(ProcessName(pid: .max) == ProcessName(pid: 0))
        #expect(ProcessName(pid: .max).command == nil)
    }
}

@Suite struct EventLogTests {
    @Test func eventsAreNumberedFromOneAndAskedForByTheLastSeen() {
        let log = EventLog()
        #expect(log.events(after: 0) == EventsReply(events: [], last: 0))
        for number in 1...3 { log.note(.mounted, "image \(number)") }
        #expect(log.events(after: 0).events.map(\.number) == [1, 2, 3])
        #expect(log.events(after: 2).events.map(\.subject) == ["image 3"])
        #expect(log.events(after: 3) == EventsReply(events: [], last: 3))
        #expect(log.events(after: 99).events.count == 3, "chunkd was restarted since")
    }

    @Test func theSameAgainIsCountedAndNotKeptTwice() {
        let log = EventLog()
        log.note(.sourceFailed, "registry/r", "timeout")
        log.note(.mounted, "image")
        log.note(.sourceFailed, "registry/r", "refused", count: 4)
        let events = log.events(after: 0).events
        #expect(events.map(\.kind) == [.sourceFailed, .mounted])
        #expect(events[0].count == 5 && events[0].detail == "refused")
    }

    @Test func itsSizeIsBoundedAndWhatIsLostIsSaid() {
        let log = EventLog()
        let long = String(repeating: "x", count: 999)
        for number in 1...EventLog.capacity + 10 { log.note(.mounted, "image \(number)", long) }
        let reply = log.events(after: 0)
        #expect(reply.events.count == EventLog.capacity)
        #expect(reply.events.first?.number == 11 && reply.missed == 10)
        #expect(reply.last == UInt64(EventLog.capacity + 10))
        #expect(reply.events.allSatisfy { $0.detail.count == EventLog.maxText })
        #expect(log.events(after: 15).missed == 0)
    }
}
