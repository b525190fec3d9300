/// An absolute `http` or `https` URL, strictly parsed (RFC 3986, less what no registry needs): no user info, no
/// fragment, ASCII only. Its text is made again from the checked parts, so that no other parser can read it otherwise.
///
/// Value type, safe on any thread.
package struct HTTPURL: Hashable, Sendable, CustomStringConvertible {
    package enum Scheme: String, Sendable, CaseIterable {
        case http, https

        package var defaultPort: UInt16 { self == .http ? 80 : 443 }
    }

    /// Scheme, host and port: what credentials are bound to (RFC 6454).
    package struct Origin: Hashable, Sendable, CustomStringConvertible {
        package let scheme: Scheme
        /// In lower case; an IPv6 literal with its brackets.
        package let host: String
        package let port: UInt16

        package var description: String {
            scheme.rawValue + "://" + host + (port == scheme.defaultPort ? "" : ":\(port)")
        }
        /// The address when the host is a literal.
        package var address: IPAddress? {
            host.hasPrefix("[") ? IPAddress(host.dropFirst().dropLast()) : IPAddress(host)
        }
    }

    package let origin: Origin
    /// Path and query, always with a leading slash.
    package let target: String

    package var description: String { origin.description + target }
    /// The URL without its query, which may carry a signature: fit for messages and logs.
    package var redacted: String {
        origin.description + (target.firstIndex(of: "?").map { target[..<$0] + "?…" } ?? Substring(target))
    }
    /// The path alone.
    package var path: Substring { target.prefix { $0 != "?" } }

    /// A URL of checked parts; nil when the target does not start with "/" or holds other than URL characters.
    package init?(origin: Origin, target: String) {
        guard target.utf8.first == UInt8(ascii: "/"), target.utf8.count <= OCILimits.maxURLLength,
            Self.isTarget(Array(target.utf8))
        else { return nil }
        self.origin = origin
        self.target = target
    }

    /// `/` of an origin.
    package init(root origin: Origin) {
        self.origin = origin
        target = "/"
    }

    /// Parses an absolute URL; `invalidURL` says what is wrong.
    package init(_ text: some StringProtocol) throws(OCISpecError) {
        let bytes = Array(text.utf8)
        func refuse(_ what: String) -> OCISpecError {
            // The query may hold a signature and is kept out of the message.
            OCISpecError(.invalidURL, "URL \(OCISpecError.quote(text.prefix { $0 != "?" && $0 != "@" })): \(what)")
        }
        guard bytes.count <= OCILimits.maxURLLength else { throw refuse("\(bytes.count) bytes, limit 8192") }
        let lower = String(decoding: bytes.prefix(8), as: UTF8.self).lowercased()
        guard let scheme = Scheme.allCases.first(where: { lower.hasPrefix($0.rawValue + "://") }) else {
            throw refuse("expected http:// or https://")
        }
        let rest = bytes[(scheme.rawValue.utf8.count + 3)...]
        let end = rest.firstIndex { $0 == 47 || $0 == 63 || $0 == 35 } ?? rest.endIndex
        guard let origin = Self.origin(scheme, authority: String(decoding: rest[..<end], as: UTF8.self)) else {
            throw refuse("expected HOST[:PORT] without user or password")
        }
        var target = Array(rest[end...].prefix { $0 != 35 })
        if target.first != 47 { target.insert(47, at: 0) }
        guard Self.isTarget(target) else { throw refuse("characters that must be percent-encoded") }
        self.origin = origin
        self.target = String(decoding: target, as: UTF8.self)
    }

    /// The origin of `HOST[:PORT]`; nil when that is malformed.
    package static func origin(_ scheme: Scheme, authority: String) -> Origin? {
        guard let normal = Reference.normalizedRegistry(authority) else { return nil }
        var host = normal[...]
        var port = scheme.defaultPort
        if let colon = normal.lastIndex(of: ":"), !normal[colon...].contains("]") {
            guard let parsed = UInt16(normal[normal.index(after: colon)...]) else { return nil }
            (host, port) = (normal[..<colon], parsed)
        }
        return Origin(scheme: scheme, host: String(host), port: port)
    }

    /// Resolves a `Location` value against this URL (RFC 3986 section 5.2): absolute, `//host/path`, `/path`, `?query`
    /// or a relative path. Dot segments are refused: no registry needs them.
    package func resolving(_ location: some StringProtocol) throws(OCISpecError) -> HTTPURL {
        let text = String(location)
        let lower = text.prefix(8).lowercased()
        if lower.hasPrefix("http://") || lower.hasPrefix("https://") { return try HTTPURL(text) }
        if text.hasPrefix("//") { return try HTTPURL(origin.scheme.rawValue + ":" + text) }
        let isSchemed = text.prefix { $0 != "/" && $0 != "?" }.contains(":")
        guard !text.isEmpty, !isSchemed else {
            throw OCISpecError(.invalidURL, "Location \(OCISpecError.quote(text)): expected an http or https URL")
        }
        if text.hasPrefix("/") { return try HTTPURL(origin.description + text) }
        if text.hasPrefix("?") { return try HTTPURL(origin.description + path + text) }
        let directory = path[...(path.lastIndex(of: "/") ?? path.startIndex)]
        return try HTTPURL(origin.description + directory + text)
    }

    /// RFC 3986 pchar, "/" and "?", with complete percent escapes, and no "." or ".." path segment.
    private static func isTarget(_ bytes: [UInt8]) -> Bool {
        var index = 0
        while index < bytes.count {
            let unit = bytes[index]
            if unit == UInt8(ascii: "%") {
                guard index + 2 < bytes.count, isHex(bytes[index + 1]), isHex(bytes[index + 2]) else { return false }
                index += 3
                continue
            }
            guard HeaderScanner.isAlphanumeric(unit) || "-._~!$&'()*+,;=:@/?[]|".utf8.contains(unit) else {
                return false
            }
            index += 1
        }
        return bytes.prefix { $0 != 63 }.split(separator: 47).allSatisfy { !$0.elementsEqual([46]) && $0 != [46, 46] }
    }

    private static func isHex(_ unit: UInt8) -> Bool {
        (48...57).contains(unit) || (65...70).contains(unit) || (97...102).contains(unit)
    }

    /// Percent-encodes everything but RFC 3986 unreserved characters, for one query value.
    package static func encodeQueryValue(_ text: some StringProtocol) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var out: [UInt8] = []
        for unit in text.utf8 {
            if HeaderScanner.isAlphanumeric(unit) || "-._~".utf8.contains(unit) {
                out.append(unit)
            } else {
                out += [UInt8(ascii: "%"), digits[Int(unit >> 4)], digits[Int(unit & 15)]]
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}
