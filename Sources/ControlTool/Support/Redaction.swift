/// Takes secrets out of text that leaves the node, whatever it is: logins in URLs, and values of keys that are named like
/// secrets. Pure. Files with secrets are never read in the first place; this is for what wrote one down by mistake.
package enum Redaction {
    /// What stands in their place.
    package static let mark = "[redacted]"

    /// Keys whose values go, in lower case; a longer word that ends in one counts too (`X-Auth-Token`).
    private static let keys = [
        "authorization", "password", "passwd", "secret", "token", "credential", "credentials", "signature", "bearer",
        "apikey", "api-key", "api_key", "auth", "cookie",
    ].map { Array($0.utf8) }

    package static func text(_ bytes: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(bytes.count)
        var at = 0
        while at < bytes.count {
            if let end = login(bytes, at) {
                out += Array("://\(mark)@".utf8)
                at = end
            } else if let range = value(bytes, at) {
                out += bytes[at..<range.lowerBound]
                out += Array(mark.utf8)
                at = range.upperBound
            } else {
                out.append(bytes[at])
                at += 1
            }
        }
        return out
    }

    package static func text(_ text: String) -> String { String(decoding: Self.text(Array(text.utf8)), as: UTF8.self) }

    /// Behind the `@` of a URL's login, when `://` begins here and a login follows.
    private static func login(_ bytes: [UInt8], _ at: Int) -> Int? {
        guard bytes[at] == UInt8(ascii: ":"), at + 2 < bytes.count, bytes[at + 1] == UInt8(ascii: "/"),
            bytes[at + 2] == UInt8(ascii: "/")
        else { return nil }
        var end: Int?
        var next = at + 3
        // The last `@` before the path: a password may have one.
        while next < bytes.count, bytes[next] > 0x20, !"/?#\"'<>\\".utf8.contains(bytes[next]) {
            if bytes[next] == UInt8(ascii: "@") { end = next + 1 }
            next += 1
        }
        return end
    }

    /// The value of a secret whose key ends right before `at`'s separator; nil when none begins here.
    private static func value(_ bytes: [UInt8], _ at: Int) -> Range<Int>? {
        guard isSeparator(bytes[at]), endsInKey(bytes, before: at) else { return nil }
        var next = at
        var isAssigned = false
        while next < bytes.count, isSeparator(bytes[next]) || bytes[next] == UInt8(ascii: " ") {
            isAssigned = isAssigned || bytes[next] == UInt8(ascii: ":") || bytes[next] == UInt8(ascii: "=")
            next += 1
        }
        let isBearer = endsIn(Array("bearer".utf8), bytes, before: at)
        guard next < bytes.count, isAssigned || isBearer, !bytes[at..<next].contains(UInt8(ascii: "\n")) else {
            return nil
        }
        let isHeader = ["authorization", "cookie"].contains { endsIn(Array($0.utf8), bytes, before: at) }
        let quote = "\"'".utf8.contains(bytes[next - 1]) ? bytes[next - 1] : nil
        let first = next
        while next < bytes.count, bytes[next] != UInt8(ascii: "\n"), bytes[next] != quote {
            // A header's value has words: `Basic dXNlcjpw`.
            if quote == nil, bytes[next] == UInt8(ascii: "\"") { break }
            if quote == nil, !isHeader, bytes[next] <= 0x20 || ",&;}'".utf8.contains(bytes[next]) { break }
            next += 1
        }
        return next > first ? first..<next : nil
    }

    private static func isSeparator(_ byte: UInt8) -> Bool { "\"':= ".utf8.contains(byte) }

    private static func endsInKey(_ bytes: [UInt8], before end: Int) -> Bool {
        keys.contains { endsIn($0, bytes, before: end) }
    }

    private static func endsIn(_ key: [UInt8], _ bytes: [UInt8], before end: Int) -> Bool {
        guard end >= key.count else { return false }
        return zip(key, bytes[(end - key.count)..<end]).allSatisfy { key, byte in
            key == ((65...90).contains(byte) ? byte + 32 : byte)
        }
    }
}
