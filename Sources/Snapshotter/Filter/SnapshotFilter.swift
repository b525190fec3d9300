/// A filter that cannot be read: where, expected and found.
package struct FilterError: Error, Equatable, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}

/// One filter of `List`, in containerd's syntax (containerd, pkg/filters): selectors joined by commas, all of which must
/// hold. A selector is a path with or without `==` or `!=` and a value; names with other signs than letters and digits,
/// and values, may be in quotes. Regular expressions (`~=`) are refused.
package struct SnapshotFilter: Sendable {
    /// Bytes of one filter, and filters of one request.
    package static let maxLength = 8192
    package static let maxFilters = 64

    enum Test: Equatable, Sendable {
        case isPresent
        case equals(String)
        case differs(String)
    }

    private struct Selector: Sendable {
        var path: [String]
        var test: Test
    }

    private let selectors: [Selector]

    package init(_ text: String) throws(FilterError) {
        guard text.utf8.count <= Self.maxLength else {
            throw FilterError("filter of \(text.utf8.count) bytes, expected at most \(Self.maxLength)")
        }
        var scanner = FilterScanner(text)
        var selectors: [Selector] = []
        repeat {
            selectors.append(Selector(path: try scanner.path(), test: try scanner.test()))
        } while try scanner.hasAnother()
        self.selectors = selectors
    }

    /// - Parameter field: the value of a path, as `name` or `labels`, `KEY`; nil when there is none.
    package func matches(_ field: (_ path: [String]) -> String?) -> Bool {
        selectors.allSatisfy { selector in
            let value = field(selector.path)
            return switch selector.test {
            case .isPresent: value != nil
            case .equals(let wanted): value == wanted
            case .differs(let other): value ?? "" != other
            }
        }
    }
}

/// Takes a filter apart.
private struct FilterScanner {
    private let text: [Character]
    private var place = 0

    init(_ text: String) { self.text = Array(text) }

    private var next: Character? { place < text.count ? text[place] : nil }

    private func unexpected(_ expected: String) -> FilterError {
        FilterError(
            "filter \"\(String(text))\": expected \(expected) at \(place), found \(next.map { "\"\($0)\"" } ?? "the end")"
        )
    }

    mutating func path() throws(FilterError) -> [String] {
        var parts = [try field()]
        while next == "." {
            place += 1
            parts.append(try field())
        }
        return parts
    }

    private mutating func field() throws(FilterError) -> String {
        if next == "\"" { return try quoted() }
        var out = ""
        while let sign = next, sign.isASCII, sign.isLetter || sign.isNumber || sign == "_" {
            out.append(sign)
            place += 1
        }
        guard !out.isEmpty else { throw unexpected("a name") }
        return out
    }

    mutating func test() throws(FilterError) -> SnapshotFilter.Test {
        guard let first = next, first != "," else { return .isPresent }
        guard place + 1 < text.count, text[place + 1] == "=", "=!~".contains(first) else {
            throw unexpected("==, != or ~=")
        }
        guard first != "~" else { throw unexpected("== or != (~= is not supported)") }
        place += 2
        let value = try value()
        return first == "=" ? .equals(value) : .differs(value)
    }

    private mutating func value() throws(FilterError) -> String {
        if next == "\"" { return try quoted() }
        var out = ""
        while let sign = next, sign != ",", !sign.isWhitespace {
            out.append(sign)
            place += 1
        }
        return out
    }

    /// As Go's `%q` writes it, of which `\"`, `\\`, `\n` and `\t` occur in names.
    private mutating func quoted() throws(FilterError) -> String {
        place += 1
        var out = ""
        while let sign = next, sign != "\"" {
            place += 1
            guard sign == "\\" else {
                out.append(sign)
                continue
            }
            switch next {
            case "\"": out.append("\"")
            case "\\": out.append("\\")
            case "n": out.append("\n")
            case "t": out.append("\t")
            default: throw unexpected("an escape that is known")
            }
            place += 1
        }
        guard next == "\"" else { throw unexpected("a closing quote") }
        place += 1
        return out
    }

    /// Whether a comma and another selector follow; anything else but the end is an error.
    mutating func hasAnother() throws(FilterError) -> Bool {
        guard let sign = next else { return false }
        guard sign == "," else { throw unexpected("a comma or the end") }
        place += 1
        return true
    }
}
