import ChunkModel
import ContentIndex

/// Names and ids for tests.
enum Names {
    static func node(_ number: Int) -> NodeName {
        guard let name = NodeName("node-\(number)") else { fatalError("a valid name") }
        return name
    }

    static func blob(_ number: Int) -> WireID {
        var bytes = [UInt8](repeating: 0, count: 32)
        for place in 0..<4 { bytes[31 - place] = UInt8(truncatingIfNeeded: number >> (8 * place)) }
        guard let id = WireID(rawBytes: bytes) else { fatalError("32 bytes are an id") }
        return id
    }

    /// An index that knows nodes 1...count as members, all registered for blob 1.
    static func index(_ count: Int, zone: (Int) -> String = { _ in "" }) -> ContentIndex {
        var index = ContentIndex()
        for number in 1...count {
            index.setMember(node(number), zone: zone(number), now: .zero)
            _ = index.apply(node(number), blob(1), version: 1, ContentRecord(.registered), now: .zero)
        }
        return index
    }
}

/// SplitMix64: a seed replays a run.
struct Random: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
