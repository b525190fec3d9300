/// One challenge of a `WWW-Authenticate` header (RFC 9110 section 11.6.1; bearer parameters: distribution
/// `spec/auth/token.md`). Value type, safe on any thread.
package enum AuthChallenge: Hashable, Sendable {
    case basic(realm: String)
    /// `realm` is the token server's URL, not yet checked.
    case bearer(realm: String, service: String?, scope: String?, error: String?)

    /// All Basic and Bearer challenges of the header's values, in order; others are skipped. A value that breaks the
    /// grammar yields what was read before the break. At most `OCILimits.maxChallenges`.
    package static func parse(_ values: [String]) -> [AuthChallenge] {
        var out: [AuthChallenge] = []
        for value in values.prefix(OCILimits.maxChallenges) where value.utf8.count <= OCILimits.maxHeaderValueLength {
            var scanner = HeaderScanner(value)
            while out.count < OCILimits.maxChallenges, let (scheme, parameters) = next(&scanner) {
                let first: (String) -> String? = { name in parameters.first { $0.name == name }?.value }
                switch scheme {
                case "basic":
                    out.append(.basic(realm: first("realm") ?? ""))
                case "bearer":
                    guard let realm = first("realm") else { continue }
                    out.append(
                        .bearer(realm: realm, service: first("service"), scope: first("scope"), error: first("error")))
                default:
                    continue
                }
            }
        }
        return out
    }

    /// Reads one challenge and the comma behind it; nil at the end or where the grammar is broken.
    private static func next(
        _ scanner: inout HeaderScanner
    ) -> (scheme: String, parameters: [(name: String, value: String)])? {
        skipCommas(&scanner)
        guard let scheme = scanner.token() else { return nil }
        var parameters: [(name: String, value: String)] = []
        scanner.skipSpaces()
        if scanner.token68() { return (scheme.lowercased(), []) }
        while true {
            // A parameter is `name = value`; a token not followed by "=" starts the next challenge.
            var ahead = scanner
            skipCommas(&ahead)
            guard let name = ahead.token() else { break }
            ahead.skipSpaces()
            guard ahead.skip(UInt8(ascii: "=")) else { break }
            ahead.skipSpaces()
            guard let value = ahead.next == UInt8(ascii: "\"") ? ahead.quotedString() : ahead.token() else {
                return nil
            }
            guard parameters.count < OCILimits.maxChallengeParameters else { return nil }
            parameters.append((name.lowercased(), value))
            scanner = ahead
            scanner.skipSpaces()
            guard scanner.isAtEnd || scanner.next == UInt8(ascii: ",") else { return nil }
        }
        return (scheme.lowercased(), parameters)
    }

    private static func skipCommas(_ scanner: inout HeaderScanner) {
        scanner.skipSpaces()
        while scanner.skip(UInt8(ascii: ",")) { scanner.skipSpaces() }
    }
}
