import ChunkModel
import PeerExchange

/// What peers send before anybody looks at what it means.
let peerFuzzTargets: [FuzzTarget] = [
    FuzzTarget(name: "peer-request", run: fuzzPeerRequest),
    FuzzTarget(name: "peer-residency", run: fuzzPeerResidency),
    FuzzTarget(name: "traceparent", run: fuzzTraceparent),
]

/// Lines: method, target, then `name: value` fields.
@Sendable private func fuzzPeerRequest(_ bytes: [UInt8]) {
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
    guard lines.count >= 2 else { return }
    var fields: [String: String] = [:]
    for line in lines.dropFirst(2).prefix(8) {
        let parts = line.split(separator: ":", maxSplits: 1)
        if parts.count == 2 { fields[parts[0].lowercased()] = String(parts[1].drop { $0 == " " }) }
    }
    guard let call = try? PeerCall(method: String(lines[0]), target: String(lines[1]), header: { fields[$0] }) else {
        return
    }
    if case .chunks(let request) = call {
        require((1...PeerProtocol.maxCount).contains(request.count), "\(request.count) chunks")
        require((0...PeerProtocol.maxChunkNumber).contains(request.at), "chunk \(request.at)")
        require(request.wait >= .zero && request.wait <= PeerProtocol.maxWait, "a wait of \(request.wait)")
    }
    // What it means is written again and means the same.
    var written: [String: String] = [:]
    for field in call.headers { written[field.name.lowercased()] = field.value }
    let again = try? PeerCall(method: String(lines[0]), target: call.target, header: { written[$0] })
    require(again == call, "\(call) reads back as \(String(describing: again))")
}

@Sendable private func fuzzPeerResidency(_ bytes: [UInt8]) {
    guard let residency = PeerResidency(headerValue: String(decoding: bytes, as: UTF8.self)) else { return }
    require(residency.bits.count <= PeerProtocol.maxHeaderBits, "more bits than a header holds")
    require(residency.first % 8 == 0 && residency.first >= 0, "first chunk \(residency.first)")
    require(PeerResidency(headerValue: residency.headerValue) == residency, "reads back as another")
    for chunk in [0, residency.first, residency.first + residency.bits.count * 8, -1, Int.max] {
        let said = residency.has(chunk) != nil
        let isWithin = chunk >= residency.first && (chunk - residency.first) / 8 < residency.bits.count
        require(said == isWithin, "chunk \(chunk)")
    }
    require(residency.window(around: residency.first) == residency, "a header's bits are their own window")
}

@Sendable private func fuzzTraceparent(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    guard let context = TraceContext(traceparent: text) else { return }
    require(bytes.count <= TraceContext.maxBytes, "\(bytes.count) bytes")
    require(TraceContext(traceparent: context.traceparent) == context, "reads back as another")
    require(text.dropFirst(2).hasPrefix(context.traceparent.dropFirst(2).dropLast(2)), "other ids than were written")
    require(TraceID(hex: context.trace.hex) == context.trace && SpanID(hex: context.span.hex) == context.span, "ids")
}
