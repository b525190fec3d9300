/// Which proxy a request goes through (the conventions of `http_proxy`, `https_proxy`, `no_proxy`).
///
/// Decided here and not by libcurl, so that the answer is one value that the address policy can rely on. Value type.
package struct ProxySettings: Sendable, Equatable {
    /// Proxy URL for http and for https requests; nil connects directly.
    package var http: String?
    package var https: String?
    /// `*`, host names (the name itself and everything below it, a leading dot is ignored), IPv4 or IPv6 addresses, or
    /// IPv4 CIDR blocks; each with an optional `:PORT`.
    package var noProxy: [String]

    package init(http: String? = nil, https: String? = nil, noProxy: [String] = []) {
        self.http = http
        self.https = https
        self.noProxy = noProxy
    }

    /// The proxy for a host (an IPv6 literal with its brackets) and port; nil connects directly. Loopback literals and
    /// `localhost` are always direct.
    package func proxy(forHTTPS isHTTPS: Bool, host: String, port: UInt16) -> String? {
        guard let proxy = isHTTPS ? https : http, !proxy.isEmpty else { return nil }
        let host = host.lowercased()
        if host == "localhost" || host == "[::1]" || host.hasPrefix("127.") && Self.ipv4(host) != nil { return nil }
        return noProxy.contains { Self.matches($0, host: host, port: port) } ? nil : proxy
    }

    private static func matches(_ entry: String, host: String, port: UInt16) -> Bool {
        var name = entry.lowercased().filter { $0 != " " && $0 != "\t" }[...]
        if name == "*" { return true }
        // One colon, or a colon behind "]", divides a port off; more are an IPv6 address.
        if let colon = name.lastIndex(of: ":"), name.firstIndex(of: ":") == colon || name[..<colon].hasSuffix("]") {
            guard UInt16(name[name.index(after: colon)...]) == port else { return false }
            name = name[..<colon]
        }
        if let slash = name.firstIndex(of: "/") {
            guard let bits = Int(name[name.index(after: slash)...]), (0...32).contains(bits),
                let network = ipv4(name[..<slash]), let address = ipv4(host)
            else { return false }
            return bits == 0 || network >> UInt32(32 - bits) == address >> UInt32(32 - bits)
        }
        while name.hasPrefix(".") { name = name.dropFirst() }
        let bare = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
        if name.hasPrefix("[") { name = name.dropFirst().dropLast() }
        guard !name.isEmpty else { return false }
        return bare == name || bare.hasSuffix("." + name) && ipv4(bare) == nil
    }

    private static func ipv4(_ text: some StringProtocol) -> UInt32? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard let byte = UInt8(String(part)) else { return nil }
            value = value << 8 | UInt32(byte)
        }
        return value
    }
}
