import ChunkModel
import PeerExchange
import TestSupport
import Testing

private let hex = String(repeating: "ab", count: 32)
private let other = String(repeating: "cd", count: 32)

private func parse(
    _ target: String, _ method: String = "GET", _ fields: [String: String] = [:]
) throws(PeerCallError) -> PeerCall {
    try PeerCall(method: method, target: target, header: { fields[$0] })
}

private func reason(_ target: String, _ method: String = "GET", _ fields: [String: String] = [:])
    -> PeerCallError.Reason?
{
    do throws(PeerCallError) {
        _ = try parse(target, method, fields)
        return nil
    } catch { return error.reason }
}

@Suite struct CallTests {
    @Test func aChunkRequestSaysAllItNeedsTo() async throws {
        let call = try parse(
            "/v1/chunks/\(hex)?blob=\(other)&at=17&count=3", "GET",
            ["chunkd-rank": "ahead", "chunkd-wait": "1500", "chunkd-fetch": "1"])
        let id = try #require(WireID(hex: hex))
        let blob = try #require(WireID(hex: other))
        #expect(
            call
                == .chunks(
                    ChunkRequest(
                        chunk: id, blob: blob, at: 17, count: 3, rank: .ahead, wait: .milliseconds(1500), fetch: true)))
        #expect(
            try parse("/v1/chunks/\(hex)?at=0&blob=\(other)") == .chunks(ChunkRequest(chunk: id, blob: blob, at: 0)))
    }

    @Test func everyCallIsWrittenAsItIsRead() async throws {
        let id = try #require(WireID(hex: hex))
        let blob = try #require(WireID(hex: other))
        let calls: [(PeerCall, String)] = [
            (
                .chunks(
                    ChunkRequest(
                        chunk: id, blob: blob, at: 5, count: 64, rank: .background, wait: .seconds(2), fetch: true)),
                "GET"
            ),
            (.residency(blob: blob, proof: id), "GET"), (.gossip, "POST"), (.mount, "POST"),
            (.complaint(PeerComplaint(chunk: id, blob: blob, at: 9)), "POST"),
        ]
        for (call, method) in calls {
            var fields: [String: String] = [:]
            for field in call.headers { fields[field.name.lowercased()] = field.value }
            #expect(try parse(call.target, method, fields) == call)
            #expect(call.target.utf8.count <= PeerProtocol.maxTargetBytes)
        }
    }

    @Test func whatIsNotOfTheProtocolIsRefused() {
        for target in [
            "", "/", "*", "/v1", "/v1/", "/v2/gossip", "v1/gossip", "http://host/v1/gossip", "/v1/gossip/",
            "//v1/gossip",
            "/v1/../v1/gossip", "/v1/chunks", "/metrics", "/v1/%67ossip",
        ] {
            #expect(reason(target, "POST") == .unknownPath, "\(target)")
        }
        #expect(reason("/v1/gossip", "GET") == .wrongMethod)
        #expect(reason("/v1/chunks/\(hex)?blob=\(other)&at=0", "DELETE") == .wrongMethod)
        #expect(reason("/v1/gossip?" + String(repeating: "a", count: 600), "POST") == .targetTooLong)
        for id in ["", "ab", hex.uppercased(), hex + "0", "../" + hex.dropFirst(3), "sha256:" + hex] {
            let found = reason("/v1/chunks/\(id)?blob=\(other)&at=0")
            #expect(found == .malformedID || found == .unknownPath, "\(id)")
        }
        for query in [
            "", "?", "?blob=\(other)", "?at=0", "?blob=\(other)&at=", "?blob=\(other)&at=-1", "?blob=\(other)&at=+1",
            "?blob=\(other)&at=0x1", "?blob=\(other)&at=99999999999", "?blob=\(other)&at=0&at=1",
            "?blob=\(other)&at=0&count=0",
            "?blob=\(other)&at=0&count=65", "?blob=\(other)&at=0&count=1e1", "?blob=\(other)&at=0&x",
            "?blob=\(other)&at=0&a=1&b=1&c=1&d=1&e=1&f=1&g=1",
        ] {
            #expect(reason("/v1/chunks/\(hex)\(query)") == .malformedQuery, "\(query)")
        }
        for (name, value) in [
            ("chunkd-rank", "urgent"), ("chunkd-rank", ""), ("chunkd-wait", "-1"), ("chunkd-wait", "1s"),
            ("chunkd-fetch", "yes"),
        ] {
            #expect(reason("/v1/chunks/\(hex)?blob=\(other)&at=0", "GET", [name: value]) == .malformedHeader)
        }
    }

    @Test func laterVersionsMayAddToTheQuery() async throws {
        #expect(
            try parse("/v1/chunks/\(hex)?blob=\(other)&at=0&zone=b") == parse("/v1/chunks/\(hex)?blob=\(other)&at=0"))
    }

    @Test func noWaitIsLongerThanTheBound() async throws {
        guard
            case .chunks(let request) = try parse(
                "/v1/chunks/\(hex)?blob=\(other)&at=0", "GET", ["chunkd-wait": "9999999999"])
        else {
            Issue.record("no chunk request")
            return
        }
        #expect(request.wait == PeerProtocol.maxWait)
    }

    @Test func mutatedRequestsNeverTrap() {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let start = Array("/v1/chunks/\(hex)?blob=\(other)&at=17&count=3".utf8)
        for _ in 0..<20_000 {
            var bytes = start
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let at = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0...2, using: &generator) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.remove(at: at)
                default: bytes.insert(bytes[Int.random(in: 0..<bytes.count, using: &generator)], at: at)
                }
            }
            let target = String(decoding: bytes, as: UTF8.self)
            guard let call = try? parse(target) else { continue }
            #expect((try? parse(call.target)) == call)
        }
    }
}

@Suite struct ResidencyTests {
    @Test func aHeaderSaysWhatTheBitsSay() async throws {
        let residency = try #require(PeerResidency(first: 16, bits: [0b0000_0101, 0x80]))
        #expect(residency.headerValue == "16:0580")
        #expect(PeerResidency(headerValue: "16:0580") == residency)
        #expect(residency.has(15) == nil)
        #expect(residency.has(16) == true)
        #expect(residency.has(17) == false)
        #expect(residency.has(31) == true)
        #expect(residency.has(32) == nil)
        #expect(residency.has(-1) == nil)
        #expect(residency.has(.max) == nil)
    }

    @Test func aLongMapIsCutAroundTheChunk() async throws {
        let bits = (0..<4000).map { UInt8(truncatingIfNeeded: $0) }
        let whole = try #require(PeerResidency(first: 0, bits: bits))
        for chunk in [0, 7, 5000, 31_999] {
            let part = whole.window(around: chunk)
            #expect(part.bits.count == PeerProtocol.maxHeaderBits)
            #expect(part.has(chunk) == whole.has(chunk))
            #expect(PeerResidency(headerValue: part.headerValue) == part)
        }
    }

    @Test func malformedHeadersAreNoResidency() {
        for bad in [
            "", ":", "0", "0:0", "0:0g", "1:00", "-8:00", "0:AB", "8589934592:00",
            "0:" + String(repeating: "0", count: 514), "0:00 ", " 0:00",
        ] {
            #expect(PeerResidency(headerValue: bad) == nil, "\(bad)")
        }
        #expect(PeerResidency(headerValue: "8:") != nil)
    }

    @Test func aTraceIsPartOfARequestAndAMalformedOneIsAsGoodAsNone() async throws {
        let target = "/v1/chunks/\(hex)?blob=\(other)&at=5"
        let text = "00-\(hex.prefix(32))-\(hex.prefix(16))-01"
        let context = try #require(TraceContext(traceparent: text))
        guard case .chunks(let request) = try parse(target, "GET", ["traceparent": text]) else {
            Issue.record("not a request for chunks")
            return
        }
        #expect(request.trace == context)
        #expect(PeerCall.chunks(request).headers.contains { $0.name == "traceparent" && $0.value == text })
        let long = String(repeating: "0", count: 9000)
        for wrong in ["", "00", text.uppercased(), "ff" + text.dropFirst(2), text + "-", long] {
            guard case .chunks(let request) = try parse(target, "GET", ["traceparent": wrong]) else {
                Issue.record("\(wrong.prefix(60)) is refused")
                continue
            }
            #expect(request.trace == nil, "\(wrong.prefix(60))")
        }
    }
}
