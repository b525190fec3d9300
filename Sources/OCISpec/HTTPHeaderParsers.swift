/// `Content-Range` of a single byte range (RFC 9110 section 14.4). Value type, safe on any thread.
package struct ContentRange: Hashable, Sendable {
    /// The bytes that follow; nil in the unsatisfied form `bytes */N` of a 416 response.
    package let range: Range<UInt64>?
    /// Bytes of the whole representation; nil when the server wrote `*`.
    package let totalSize: UInt64?

    /// Parses `bytes FIRST-LAST/(TOTAL|*)` or `bytes */TOTAL`; nil for anything else, for LAST < FIRST and for
    /// LAST >= TOTAL.
    package init?(_ value: some StringProtocol) {
        var scanner = HeaderScanner(value)
        guard scanner.token().map({ $0.lowercased() == "bytes" }) == true, scanner.skip(32) else { return nil }
        scanner.skipSpaces()
        var range: Range<UInt64>?
        if !scanner.skip(UInt8(ascii: "*")) {
            // 2^63 bounds the end so that sums of offsets elsewhere cannot overflow.
            guard let first = scanner.decimal(), scanner.skip(UInt8(ascii: "-")), let last = scanner.decimal(),
                first <= last, last < UInt64(Int64.max)
            else { return nil }
            range = first..<last + 1
        }
        guard scanner.skip(UInt8(ascii: "/")) else { return nil }
        var total: UInt64?
        if !scanner.skip(UInt8(ascii: "*")) {
            guard let parsed = scanner.decimal(), parsed <= UInt64(Int64.max) else { return nil }
            total = parsed
        }
        scanner.skipSpaces()
        guard scanner.isAtEnd, range != nil || total != nil else { return nil }
        if let range, let total, range.upperBound > total { return nil }
        self.range = range
        totalSize = total
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3).
package enum RetryAfter {
    /// How long to wait: delay-seconds, or an HTTP date less `now` (seconds since 1970); never below zero, never
    /// above `limit`. nil when the value is neither.
    package static func delay(_ value: some StringProtocol, now: Int64, limit: Duration) -> Duration? {
        var scanner = HeaderScanner(value)
        scanner.skipSpaces()
        if scanner.isAtDigit {
            let start = scanner
            if let seconds = scanner.decimal() {
                scanner.skipSpaces()
                guard scanner.isAtEnd else { return nil }
                return min(.seconds(Int64(clamping: seconds)), limit)
            }
            // More digits than 64 bits hold: absurd, so the limit.
            scanner = start
            scanner.skipDigits()
            scanner.skipSpaces()
            return scanner.isAtEnd ? limit : nil
        }
        guard let date = HTTPDate.seconds(value) else { return nil }
        let (wait, overflow) = date.subtractingReportingOverflow(now)
        return overflow ? limit : min(max(.seconds(wait), .zero), limit)
    }
}

/// Dates in HTTP headers (RFC 9110 section 5.6.7): IMF-fixdate and the two obsolete forms.
package enum HTTPDate {
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// Seconds since 1970, or nil when the text is no HTTP date. The day name is not checked against the date.
    package static func seconds(_ value: some StringProtocol) -> Int64? {
        guard value.utf8.count <= 64 else { return nil }
        let words = Array(value.utf8).split { $0 == 32 || $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "-") }
            .map { String(decoding: $0, as: UTF8.self) }
        switch words.count {
        // Sun, 06 Nov 1994 08:49:37 GMT — or Sunday, 06-Nov-94 08:49:37 GMT
        case 6 where words[5] == "GMT":
            guard var year = number(words[3], 0...9999) else { return nil }
            if words[3].utf8.count == 2 { year += year < 70 ? 2000 : 1900 }
            return seconds(year: year, month: words[2], day: words[1], time: words[4])
        // Sun Nov  6 08:49:37 1994
        case 5:
            guard let year = number(words[4], 0...9999) else { return nil }
            return seconds(year: year, month: words[1], day: words[2], time: words[3])
        default:
            return nil
        }
    }

    private static func number(_ text: String, _ allowed: ClosedRange<Int64>) -> Int64? {
        guard (1...4).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }),
            let value = Int64(text), allowed.contains(value)
        else { return nil }
        return value
    }

    private static func seconds(year: Int64, month: String, day: String, time: String) -> Int64? {
        let clock = time.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard let monthIndex = months.firstIndex(of: month), let day = number(day, 1...31), clock.count == 3,
            let hour = number(clock[0], 0...23), let minute = number(clock[1], 0...59),
            let second = number(clock[2], 0...60), year >= 1970
        else { return nil }
        return days(year: year, month: Int64(monthIndex) + 1, day: day) * 86400 + hour * 3600 + minute * 60 + second
    }

    /// Days since 1970-01-01 of a Gregorian date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    private static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }
}

/// Walks the bytes of one header value. Every step is bounded by the value's length; nothing traps.
struct HeaderScanner {
    private let bytes: [UInt8]
    private var at = 0

    /// Values longer than the limit are cut, and so fail to parse at their end.
    init(_ value: some StringProtocol) { bytes = Array(value.utf8.prefix(OCILimits.maxHeaderValueLength)) }

    var isAtEnd: Bool { at == bytes.count }
    var isAtDigit: Bool { at < bytes.count && (48...57).contains(bytes[at]) }
    var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    mutating func skip(_ unit: UInt8) -> Bool {
        guard next == unit else { return false }
        at += 1
        return true
    }

    mutating func skipSpaces() {
        while let unit = next, unit == 32 || unit == 9 { at += 1 }
    }

    mutating func skipDigits() {
        while isAtDigit { at += 1 }
    }

    /// An unsigned decimal of at most 64 bits; nil without digits or on overflow.
    mutating func decimal() -> UInt64? {
        guard isAtDigit else { return nil }
        var value: UInt64 = 0
        while isAtDigit {
            let (scaled, overflow1) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow2) = scaled.addingReportingOverflow(UInt64(bytes[at] - 48))
            guard !overflow1, !overflow2 else { return nil }
            value = sum
            at += 1
        }
        return value
    }

    /// An RFC 9110 token (section 5.6.2), or nil without moving.
    mutating func token() -> String? {
        let start = at
        while let unit = next, Self.isTokenUnit(unit) { at += 1 }
        return at == start ? nil : String(decoding: bytes[start..<at], as: UTF8.self)
    }

    /// A quoted string (section 5.6.4) without its quotes and escapes; nil when it is not closed or holds controls.
    mutating func quotedString() -> String? {
        guard skip(UInt8(ascii: "\"")) else { return nil }
        var out: [UInt8] = []
        while let unit = next {
            at += 1
            switch unit {
            case UInt8(ascii: "\""): return String(decoding: out, as: UTF8.self)
            case UInt8(ascii: "\\"):
                guard let escaped = next, escaped >= 32, escaped != 127 else { return nil }
                out.append(escaped)
                at += 1
            case 9, 32...126, 128...: out.append(unit)
            default: return nil
            }
        }
        return nil
    }

    /// token68 (RFC 9110 section 11.2) or nil without moving; what follows must be a comma or the end.
    mutating func token68() -> Bool {
        var end = at
        while end < bytes.count, Self.isToken68Unit(bytes[end]) { end += 1 }
        guard end > at else { return false }
        while end < bytes.count, bytes[end] == UInt8(ascii: "=") { end += 1 }
        var after = end
        while after < bytes.count, bytes[after] == 32 || bytes[after] == 9 { after += 1 }
        guard after == bytes.count || bytes[after] == UInt8(ascii: ",") else { return false }
        at = end
        return true
    }

    static func isAlphanumeric(_ unit: UInt8) -> Bool {
        (48...57).contains(unit) || (65...90).contains(unit) || (97...122).contains(unit)
    }
    static func isTokenUnit(_ unit: UInt8) -> Bool { isAlphanumeric(unit) || "!#$%&'*+-.^_`|~".utf8.contains(unit) }
    private static func isToken68Unit(_ unit: UInt8) -> Bool { isAlphanumeric(unit) || "-._~+/".utf8.contains(unit) }
}
