/// Why there are no settings. Programs that meet one print it and exit 2 before they start anything.
package struct SettingsError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Closed set; `rawValue` is fit for a metric label.
    package enum Code: String, Sendable {
        case unreadable
        case syntax
        case unknownKey
        case wrongValue
        case contradiction
    }

    package var code: Code
    /// The setting as it was written, `fetch.rangeMax`; empty when the whole file is meant.
    package var key: String
    /// Where it was written: `/etc/chunkd/config.yaml:12`, `CHUNKD_FETCH_RANGE_MAX` or `--fetch-range-max`.
    package var origin: String
    /// What was wrong, what was expected, and the nearest known key.
    package var message: String

    /// Exit status for every error of configuration.
    package static let exitCode: Int32 = 2

    package init(_ code: Code, key: String = "", origin: String, _ message: String) {
        self.code = code
        self.key = key
        self.origin = origin
        self.message = message
    }

    package var description: String { key.isEmpty ? "\(origin): \(message)" : "\(origin): \(key): \(message)" }
}

/// Finds the known word nearest to a mistyped one.
enum Suggestion {
    /// ` (did you mean x?)`, or a list of what is known when nothing is near.
    static func phrase(for word: String, among known: [String]) -> String {
        if let near = nearest(to: word, among: known) { return "did you mean \(near)?" }
        return known.count <= 12 ? "known: \(known.joined(separator: ", "))" : "see docs/operations.md for all settings"
    }

    /// The known word with the least edit distance, if at most a third of the word (at least 2) must change.
    static func nearest(to word: String, among known: [String]) -> String? {
        let limit = max(2, word.count / 3)
        let ranked = known.map { (distance(word.lowercased(), $0.lowercased()), $0) }
        return ranked.filter { $0.0 <= limit }.min { $0 < $1 }?.1
    }

    /// Levenshtein distance; words are cut at 64 characters, so the cost is bounded.
    static func distance(_ first: String, _ second: String) -> Int {
        let a = Array(first.prefix(64))
        let b = Array(second.prefix(64))
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let next = min(row[j] + 1, row[j + 1] + 1, diagonal + (x == y ? 0 : 1))
                diagonal = row[j + 1]
                row[j + 1] = next
            }
        }
        return row[b.count]
    }
}
