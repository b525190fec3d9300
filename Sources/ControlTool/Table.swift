/// Plain text tables and figures for people. Pure: the same value gives the same text.
package enum Table {
    /// Columns aligned by display width of ASCII, two spaces apart; no trailing spaces. `right` columns (by index) are
    /// aligned to the right.
    package static func render(header: [String], rows: [[String]], right: Set<Int> = []) -> String {
        let all = ((header.isEmpty ? [] : [header]) + rows).map { $0.map(plain) }
        let columns = all.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            all.map { $0.indices.contains(column) ? $0[column].count : 0 }.max() ?? 0
        }
        return all.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                line += (column == 0 ? "" : "  ") + (right.contains(column) ? padding + cell : cell + padding)
            }
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }.joined(separator: "\n")
    }

    /// Without control characters, `?` for each: names of processes and texts of servers must not write to the terminal.
    package static func plain(_ text: String) -> String {
        func isControl(_ scalar: Unicode.Scalar) -> Bool {
            scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
        }
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        return String(String.UnicodeScalarView(text.unicodeScalars.map { isControl($0) ? "?" : $0 }))
    }

    /// Name and value pairs, the values aligned.
    package static func pairs(_ rows: [(String, String)]) -> String {
        render(header: [], rows: rows.map { [$0.0 + ":", $0.1] })
    }

    /// `1.5 GiB`: binary units, one decimal below ten.
    package static func bytes(_ count: UInt64) -> String {
        var value = Double(count)
        var unit = "B"
        for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] where value >= 1024 {
            value /= 1024
            unit = next
        }
        return unit == "B" ? "\(count) B" : "\(decimal(value)) \(unit)"
    }

    /// `35%`; 100% only when complete, 0% only when there is nothing.
    package static func percent(_ part: UInt64, of whole: UInt64) -> String {
        guard whole > 0 else { return "100%" }
        if part == 0 { return "0%" }
        if part >= whole { return "100%" }
        return "\(min(99, max(1, Int(Double(part) / Double(whole) * 100))))%"
    }

    /// `1.2 ms`, `3.4 s`, `2 h 5 m`.
    package static func seconds(_ value: Double) -> String {
        if value < 0.001 { return "\(Int((value * 1_000_000).rounded())) us" }
        if value < 1 { return "\(decimal(value * 1000)) ms" }
        if value < 120 { return "\(decimal(value)) s" }
        let minutes = Int(value / 60)
        return minutes < 120 ? "\(minutes) m" : "\(minutes / 60) h \(minutes % 60) m"
    }

    /// `0.25`: two decimals.
    package static func ratio(_ value: Double) -> String {
        let hundredths = Int((min(max(value, 0), 1e6) * 100).rounded())
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
    }

    private static func decimal(_ value: Double) -> String {
        if value >= 10 { return "\(Int(value.rounded()))" }
        let tenths = Int((value * 10).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10)" : "\(tenths / 10).\(tenths % 10)"
    }
}
