import ChunkModel

/// A request that is none of the protocol's: the status to answer, and a bounded reason.
package struct PeerCallError: Error, Sendable, Equatable {
    package enum Reason: String, Sendable, CaseIterable {
        case unknownPath = "unknown_path"
        case wrongMethod = "wrong_method"
        case targetTooLong = "target_too_long"
        case malformedID = "malformed_id"
        case malformedQuery = "malformed_query"
        case malformedHeader = "malformed_header"
    }

    package let reason: Reason

    package var status: Int {
        switch reason {
        case .unknownPath: 404
        case .wrongMethod: 405
        case .targetTooLong: 414
        case .malformedID, .malformedQuery, .malformedHeader: 400
        }
    }
}

extension PeerCall {
    /// Parses the request line and the header fields it needs; `header` is asked by lower-case names. Never traps.
    package init(
        method: String, target: String, header: (String) -> String?
    ) throws(PeerCallError) {
        guard target.utf8.count <= PeerProtocol.maxTargetBytes else { throw PeerCallError(reason: .targetTooLong) }
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts[0].split(separator: "/", omittingEmptySubsequences: false)
        guard path.count >= 3, path[0].isEmpty, path[1] == "v1" else { throw PeerCallError(reason: .unknownPath) }
        let query = try Query(parts.count > 1 ? parts[1] : "")
        switch (path[2], path.count) {
        case ("chunks", 4):
            try Self.require(method, "GET")
            self = .chunks(try Self.chunkRequest(try Self.id(path[3]), query, header))
        case ("blobs", 4):
            try Self.require(method, "GET")
            self = .residency(blob: try Self.id(path[3]), proof: try query.id("proof"))
        case ("parts", 4):
            try Self.require(method, "GET")
            self = .part(
                PartRequest(
                    part: try Self.id(path[3]), blob: try query.id("blob"), wait: try Self.wait(header),
                    fetch: try Self.fetch(header), rank: try Self.rank(header)))
        case ("gossip", 3):
            try Self.require(method, "POST")
            self = .gossip
        case ("mount", 3):
            try Self.require(method, "POST")
            self = .mount
        case ("complaint", 3):
            try Self.require(method, "POST")
            self = .complaint(
                PeerComplaint(
                    chunk: try query.id("chunk"), blob: try query.id("blob"),
                    at: try query.number("at", in: 0...PeerProtocol.maxChunkNumber)))
        default: throw PeerCallError(reason: .unknownPath)
        }
    }

    private static func require(_ method: String, _ expected: String) throws(PeerCallError) {
        guard method == expected else { throw PeerCallError(reason: .wrongMethod) }
    }

    private static func id(_ text: Substring) throws(PeerCallError) -> WireID {
        guard let id = WireID(hex: text) else { throw PeerCallError(reason: .malformedID) }
        return id
    }

    private static func chunkRequest(
        _ chunk: WireID, _ query: Query, _ header: (String) -> String?
    ) throws(PeerCallError) -> ChunkRequest {
        var request = ChunkRequest(
            chunk: chunk, blob: try query.id("blob"),
            at: try query.number("at", in: 0...PeerProtocol.maxChunkNumber))
        if query.has("count") { request.count = try query.number("count", in: 1...PeerProtocol.maxCount) }
        request.rank = try rank(header)
        request.wait = try wait(header)
        request.fetch = try fetch(header)
        // Not the protocol's own: a malformed one is as good as none.
        request.trace = header(TraceContext.field).flatMap { TraceContext(traceparent: $0) }
        return request
    }

    private static func rank(_ header: (String) -> String?) throws(PeerCallError) -> PeerRank {
        guard let text = header(PeerProtocol.rankField.lowercased()) else { return .demand }
        guard let rank = PeerRank(rawValue: text) else { throw PeerCallError(reason: .malformedHeader) }
        return rank
    }

    private static func fetch(_ header: (String) -> String?) throws(PeerCallError) -> Bool {
        guard let text = header(PeerProtocol.fetchField.lowercased()) else { return false }
        guard text == "0" || text == "1" else { throw PeerCallError(reason: .malformedHeader) }
        return text == "1"
    }

    private static func wait(_ header: (String) -> String?) throws(PeerCallError) -> Duration {
        guard let text = header(PeerProtocol.waitField.lowercased()) else { return .zero }
        guard let milliseconds = decimal(text) else { throw PeerCallError(reason: .malformedHeader) }
        return min(.milliseconds(milliseconds), PeerProtocol.maxWait)
    }

    /// The request line's target.
    package var target: String {
        switch self {
        case .chunks(let request):
            "/v1/chunks/\(request.chunk.hex)?blob=\(request.blob.hex)&at=\(request.at)&count=\(request.count)"
        case .residency(let blob, let proof): "/v1/blobs/\(blob.hex)?proof=\(proof.hex)"
        case .part(let request): "/v1/parts/\(request.part.hex)?blob=\(request.blob.hex)"
        case .gossip: "/v1/gossip"
        case .mount: "/v1/mount"
        case .complaint(let complaint):
            "/v1/complaint?chunk=\(complaint.chunk.hex)&blob=\(complaint.blob.hex)&at=\(complaint.at)"
        }
    }

    /// The header fields that belong to it.
    package var headers: [(name: String, value: String)] {
        switch self {
        case .chunks(let request):
            [(PeerProtocol.rankField, request.rank.rawValue)] + Self.waitHeader(request.wait)
                + Self.fetchHeader(request.fetch)
                + (request.trace.map { [(TraceContext.field, $0.traceparent)] } ?? [])
        case .part(let request):
            // As every version has it, a part is wanted on demand.
            (request.rank == .demand ? [] : [(PeerProtocol.rankField, request.rank.rawValue)])
                + Self.waitHeader(request.wait) + Self.fetchHeader(request.fetch)
        case .residency, .gossip, .mount, .complaint: []
        }
    }

    private static func fetchHeader(_ fetch: Bool) -> [(name: String, value: String)] {
        fetch ? [(PeerProtocol.fetchField, "1")] : []
    }

    private static func waitHeader(_ wait: Duration) -> [(name: String, value: String)] {
        let milliseconds = wait.wholeMilliseconds
        return milliseconds > 0 ? [(PeerProtocol.waitField, String(milliseconds))] : []
    }
}

/// `key=value&key=value`: each known key once; unknown ones, of a later version, are passed over. No escapes: every value
/// of the protocol is digits.
private struct Query {
    private var values: [(key: Substring, value: Substring)] = []

    /// Pairs in a query: four are known.
    private static let maxPairs = 8

    init(_ text: Substring) throws(PeerCallError) {
        guard !text.isEmpty else { return }
        for pair in text.split(separator: "&", omittingEmptySubsequences: false) {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, !has(parts[0]), values.count < Self.maxPairs else {
                throw PeerCallError(reason: .malformedQuery)
            }
            values.append((parts[0], parts[1]))
        }
    }

    func has(_ key: some StringProtocol) -> Bool { values.contains { $0.key == key } }

    private func value(_ key: String) throws(PeerCallError) -> Substring {
        guard let found = values.first(where: { $0.key == key })?.value else {
            throw PeerCallError(reason: .malformedQuery)
        }
        return found
    }

    func id(_ key: String) throws(PeerCallError) -> WireID {
        guard let id = WireID(hex: try value(key)) else { throw PeerCallError(reason: .malformedID) }
        return id
    }

    func number(_ key: String, in range: ClosedRange<Int>) throws(PeerCallError) -> Int {
        guard let number = decimal(try value(key)), range.contains(number) else {
            throw PeerCallError(reason: .malformedQuery)
        }
        return number
    }
}

/// Up to ten decimal digits, nothing else.
func decimal(_ text: some StringProtocol) -> Int? {
    guard (1...10).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
    return Int(text)
}

extension Duration {
    /// Whole milliseconds, rounded up; 0 for negative durations.
    var wholeMilliseconds: Int {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return Int(min(seconds, 1 << 31)) * 1000 + Int((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }
}
