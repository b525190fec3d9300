/// Writes tar archives entry by entry, also such as no proper tool makes: POSIX ustar with pax headers (pax(1)).
struct TarArchive {
    enum Kind: UInt8 {
        case file = 0x30  // "0"
        case hardLink, symlink, characterDevice, blockDevice, directory, fifo
    }

    private(set) var bytes: [UInt8] = []

    mutating func add(
        _ name: String, _ kind: Kind = .file, _ data: [UInt8] = [], link: String = "", mode: Int = 0o644,
        owner: (Int, Int) = (0, 0), mtime: Int = 1_000_000_000, device: (Int, Int) = (0, 0),
        xattrs: [(String, [UInt8])] = []
    ) {
        if !xattrs.isEmpty {
            let records = xattrs.flatMap { Self.record("SCHILY.xattr." + $0.0, $0.1) }
            header("pax", 0x78, records.count, "", 0o644, (0, 0), mtime, (0, 0))
            body(records)
        }
        header(name, kind.rawValue, data.count, link, mode, owner, mtime, device)
        body(data)
    }

    /// The archive with its end.
    var whole: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }

    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    private static func record(_ key: String, _ value: [UInt8]) -> [UInt8] {
        let rest = Array(" \(key)=".utf8) + value + [10]
        var length = rest.count + 1
        while String(length).utf8.count + rest.count != length { length = String(length).utf8.count + rest.count }
        return Array(String(length).utf8) + rest
    }

    private mutating func header(
        _ name: String, _ kind: UInt8, _ size: Int, _ link: String, _ mode: Int, _ owner: (Int, Int), _ mtime: Int,
        _ device: (Int, Int)
    ) {
        var block = [UInt8](repeating: 0, count: 512)
        func put(_ text: [UInt8], _ at: Int) { block.replaceSubrange(at..<at + text.count, with: text) }
        func octal(_ value: Int, _ width: Int) -> [UInt8] {
            let digits = Array(String(value, radix: 8).utf8)
            return [UInt8](repeating: 0x30, count: width - 1 - digits.count) + digits + [0]
        }
        put(Array(Array(name.utf8).prefix(100)), 0)
        put(octal(mode, 8), 100)
        put(octal(owner.0, 8), 108)
        put(octal(owner.1, 8), 116)
        put(octal(size, 12), 124)
        put(octal(mtime, 12), 136)
        put([UInt8](repeating: 0x20, count: 8), 148)
        put([kind], 156)
        put(Array(Array(link.utf8).prefix(100)), 157)
        put(Array("ustar\u{0}00".utf8), 257)
        put(octal(device.0, 8), 329)
        put(octal(device.1, 8), 337)
        let sum = block.reduce(0) { $0 + Int($1) }
        put(Array(octal(sum, 7)) + [0x20], 148)
        bytes += block
    }

    private mutating func body(_ data: [UInt8]) {
        bytes += data
        bytes += [UInt8](repeating: 0, count: (512 - data.count % 512) % 512)
    }
}
