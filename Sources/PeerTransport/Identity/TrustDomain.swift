import ChunkModel

/// The trust domain of a cluster's identities: 1...255 characters of `[a-z0-9._-]` (SPIFFE-ID section 2.1).
///
/// Value type, safe to use from any thread.
package struct TrustDomain: Hashable, Sendable, CustomStringConvertible {
    package let text: String

    package static let maxByteCount = 255
    /// What stands between a trust domain and a node's name.
    private static let path = "/chunkd/node/"
    private static let scheme = "spiffe://"
    /// Longest SPIFFE id in bytes (SPIFFE-ID section 2.3); longer URI names are not looked at.
    package static let maxIDBytes = 2048

    /// Validates a trust domain; nil when it breaks the rule above.
    package init?(_ text: some StringProtocol) {
        let bytes = text.utf8
        guard !bytes.isEmpty, bytes.count <= Self.maxByteCount,
            bytes.allSatisfy({
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."),
                    UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            })
        else { return nil }
        self.text = String(text)
    }

    package var description: String { text }

    /// `spiffe://<trust-domain>/chunkd/node/<name>`
    package func id(of name: NodeName) -> String { Self.scheme + text + Self.path + name.text }

    /// The node's name in a SPIFFE id of this trust domain. Compared byte by byte: a scheme or trust domain in upper
    /// case, an escape, a query, a port or a trailing slash is another name and refused.
    package func name(in id: String) throws(IdentityError) -> NodeName {
        let domain = Self.scheme + text
        guard id.utf8.starts(with: (domain + "/").utf8) else {
            throw IdentityError(.otherTrustDomain, "expected a name under \(domain)/, found \(id)")
        }
        let prefix = domain + Self.path
        guard id.utf8.starts(with: prefix.utf8), let name = NodeName(id.dropFirst(prefix.count)) else {
            throw IdentityError(.notANode, "expected \(prefix)NAME, found \(id)")
        }
        return name
    }
}
