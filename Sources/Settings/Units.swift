/// Values with units as they are written in the configuration. Whole numbers only, the unit without a space; `0` alone
/// needs none. Anything else is nil, so that `50GB`, `5 s` or a bare `5` is an error and never a guess.
package enum Units {
    /// What a size looks like, for error messages and the documentation.
    package static let sizeForm = "a size such as 512KiB, 8MiB or 50GiB (B, KiB, MiB, GiB, TiB)"
    package static let rateForm = "a rate such as 100MiB/s, or unlimited"
    package static let durationForm = "a duration such as 200ms, 30s or 5m (us, ms, s, m, h)"

    /// Bytes.
    package static func size(_ text: String) -> UInt64? {
        scaled(text, [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)])
    }

    /// Bytes a second; the inner nil is `unlimited`.
    package static func rate(_ text: String) -> UInt64?? {
        if text == "unlimited" { return .some(nil) }
        guard text.hasSuffix("/s"), let value = size(String(text.dropLast(2))), value > 0 else { return nil }
        return .some(value)
    }

    package static func duration(_ text: String) -> Duration? {
        let units: [(String, UInt64)] = [
            ("us", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000),
        ]
        guard let microseconds = scaled(text, units), let value = Int64(exactly: microseconds) else { return nil }
        return .microseconds(value)
    }

    /// The largest unit that divides `bytes`: the text `size` reads back.
    package static func text(size bytes: UInt64) -> String {
        for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] as [(String, UInt64)] {
            if bytes > 0, bytes % (1 << shift) == 0 { return "\(bytes >> shift)\(name)" }
        }
        return bytes == 0 ? "0" : "\(bytes)B"
    }

    /// The first unit in `units` that ends the text after digits wins, so the longer of two endings comes first.
    private static func scaled(_ text: String, _ units: [(String, UInt64)]) -> UInt64? {
        if text == "0" { return 0 }
        for (unit, factor) in units where text.hasSuffix(unit) {
            let digits = text.dropLast(unit.count)
            guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { continue }
            guard let number = UInt64(digits) else { return nil }
            let (value, overflow) = number.multipliedReportingOverflow(by: factor)
            return overflow ? nil : value
        }
        return nil
    }
}
