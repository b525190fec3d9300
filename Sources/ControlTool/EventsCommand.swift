import ArgumentParser
import ControlAPI
import Glibc

struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happened on this node lately.",
        discussion: """
            EXAMPLES:
              chunkctl events
              chunkctl events --follow
              chunkctl events -o json | jq -r '.events[] | select(.kind == "peerQuarantined") | .subject'

            chunkd keeps the last 1,024 events since it started. The same again within ten seconds is one event (TIMES).
            With --follow and -o json each event is one line.
            """)

    @Flag(name: [.customShort("f"), .long], help: "Go on with what happens, until interrupted.")
    var follow = false

    @OptionGroup var common: CommonOptions

    /// Between two looks with --follow.
    private static let interval = Duration.seconds(1)

    func run() async throws {
        let client = try common.client()
        let first = try await client.events(EventsRequest())
        guard follow else { return try Console.show(first, as: common.output) { EventsText.text(first) } }
        var reply = first
        while true {
            for event in reply.events { try show(event) }
            let last = reply.last
            try await Task.sleep(for: Self.interval)
            reply = try await client.events(EventsRequest(after: last))
            if reply.missed > 0 { Console.note("\(reply.missed) events were missed") }
        }
    }

    private func show(_ event: NodeEvent) throws {
        switch common.output {
        case .json: Console.write(String(decoding: try ControlJSON.encode(Versioned(event)), as: UTF8.self))
        case .table: Console.write(Table.plain(EventsText.line(event)))
        }
    }
}

/// `chunkctl events` for people.
enum EventsText {
    static func text(_ reply: EventsReply) -> String {
        guard !reply.events.isEmpty else { return "nothing has happened since chunkd started" }
        let rows = reply.events.map { [time($0), $0.kind.rawValue, "\($0.count)", $0.subject, $0.detail] }
        return Table.render(header: ["TIME", "EVENT", "TIMES", "WHAT", "DETAIL"], rows: rows, right: [2])
    }

    static func line(_ event: NodeEvent) -> String {
        let times = event.count > 1 ? " (\(event.count) times)" : ""
        return "\(time(event)) \(event.kind.rawValue)\(times) \(event.subject)"
            + (event.detail.isEmpty ? "" : ": \(event.detail)")
    }

    private static func time(_ event: NodeEvent) -> String { UTCTime.text(unixSeconds: event.unixSeconds) }
}

/// Times of day for people.
enum UTCTime {
    /// RFC 3339, in UTC: nodes are compared. `fraction`, with its point, stands behind the whole seconds.
    static func text(unixSeconds: Double, fraction: String = "") -> String {
        var seconds = time_t(max(0, min(unixSeconds, 253_402_300_799)))
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T"
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))\(fraction)Z"
    }
}
