import Testing

@testable import ErofsFormat

@Suite("Nesting is bounded, and depth costs no stack")
struct NestingTests {
    /// Directories in one block: 32 bytes of compact inode, 40 of entries, padded to three 32-byte slots.
    private static let perBlock = 42

    /// An image of `depth` directories, each but the last with one entry `a` that is the next.
    private func chain(_ depth: Int) -> [UInt8] {
        var image = [UInt8](repeating: 0, count: 4096 * (1 + (depth + Self.perBlock - 1) / Self.perBlock))
        func put(_ value: UInt64, _ size: Int, at offset: Int) {
            for index in 0..<size { image[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8)) }
        }
        func nid(_ number: Int) -> UInt64 { UInt64(number / Self.perBlock * 128 + number % Self.perBlock * 3) }
        put(UInt64(Superblock.magic), 4, at: 1024)
        put(12, 1, at: 1036)
        put(1, 4, at: 1064)  // metadata starts at block 1
        for number in 0..<depth {
            let at = 4096 + Int(nid(number)) * 32
            var entries: [(name: String, nid: UInt64)] = [(".", nid(number)), ("..", nid(max(0, number - 1)))]
            if number + 1 < depth { entries.append(("a", nid(number + 1))) }
            put(0x04, 2, at: at)  // compact, inline tail
            put(0x41ED, 2, at: at + 4)
            var name = entries.count * 12
            for (index, entry) in entries.enumerated() {
                put(entry.nid, 8, at: at + 32 + index * 12)
                put(UInt64(name), 2, at: at + 32 + index * 12 + 8)
                put(2, 1, at: at + 32 + index * 12 + 10)
                for byte in entry.name.utf8 {
                    image[at + 32 + name] = byte
                    name += 1
                }
            }
            put(UInt64(name), 4, at: at + 8)
        }
        return image
    }

    private func validate(_ depth: Int) throws -> BootstrapSummary {
        try chain(depth).withUnsafeBytes { try BootstrapValidator.validate($0, devices: []) }
    }

    @Test func theLimitItselfIsAccepted() throws {
        #expect(try validate(1).directories == 1)
        #expect(try validate(BootstrapValidator.maxDepth).directories == BootstrapValidator.maxDepth)
    }

    @Test func oneMoreIsRefused() {
        let error = #expect(throws: ErofsError.self) { try validate(BootstrapValidator.maxDepth + 1) }
        #expect(error?.code == .limitExceeded)
    }

    @Test func manyMoreAreRefusedAlike() {
        let error = #expect(throws: ErofsError.self) { try validate(200_000) }
        #expect(error?.code == .limitExceeded)
    }
}
