import ChunkModel

/// A request to the mirror endpoint, checked: docs/formats/mirror.md. What is not in the grammar, or names a registry that
/// is not in the list, never becomes one. Value type, safe on any thread.
package struct MirrorRequest: Hashable, Sendable {
    package enum Subject: Hashable, Sendable {
        /// `/v2/`: is this a registry?
        case base
        /// Pinned to a digest, always.
        case manifest(Reference)
        case blob(Digest, of: Reference)
    }

    /// HEAD: the answer without its body.
    package let isHead: Bool
    package let subject: Subject

    /// Bytes of path and query: a name of 255, a digest, and a registry of 255 whose every byte is escaped are 1,160.
    package static let maxTargetBytes = 2048
    /// Pairs in a query: one is known.
    private static let maxPairs = 8

    /// Parses a request line. `registries` are the names `ns` may have, in the form `Reference` gives them.
    package init(method: String, target: String, registries: Set<String>) throws(MirrorRefusal) {
        guard method == "GET" || method == "HEAD" else { throw .method }
        isHead = method == "HEAD"
        guard target.utf8.count <= Self.maxTargetBytes else { throw .tooLong }
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts[0].split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard path.count >= 2, path[0].isEmpty, path[1] == "v2" else { throw .path }
        if path.count == 2 || path.count == 3 && path[2].isEmpty {
            subject = .base
            return
        }
        // /v2/NAME…/KIND/WHAT
        guard path.count >= 5 else { throw .path }
        let (kind, what) = (path[path.count - 2], path[path.count - 1])
        guard kind == "manifests" || kind == "blobs" else { throw .path }
        let registry = try Self.registry(parts.count > 1 ? parts[1] : "", registries)
        let name = path[2..<(path.count - 2)].joined(separator: "/")
        guard let digest = Digest(what) else {
            throw kind == "manifests" && Reference.isTag(what) ? .tag : .digest
        }
        do throws(OCISpecError) {
            let reference = try Reference(
                registry: registry, repository: name, digest: kind == "manifests" ? digest : nil)
            subject = kind == "manifests" ? .manifest(reference) : .blob(digest, of: reference)
        } catch {
            throw .repository
        }
    }

    /// The registry that `ns` names: what containerd adds for a host that is not the registry itself.
    private static func registry(_ query: Substring, _ registries: Set<String>) throws(MirrorRefusal) -> String {
        var found: String?
        for (number, pair) in query.split(separator: "&").enumerated() {
            guard number < maxPairs else { throw .query }
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts[0] == "ns" else { continue }
            guard found == nil, parts.count == 2, let value = unescape(parts[1]) else { throw .query }
            found = value
        }
        guard let found else { throw .noRegistry }
        guard let name = Reference.normalizedRegistry(found), registries.contains(name) else { throw .registry }
        return name
    }

    /// Undoes the escapes of a query (RFC 3986 section 2.1), of printable ASCII only; nil for anything else.
    private static func unescape(_ text: Substring) -> String? {
        var out: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let unit = rest.popFirst() {
            var value = unit
            if unit == UInt8(ascii: "%") {
                guard let high = rest.popFirst().flatMap(nibble), let low = rest.popFirst().flatMap(nibble) else {
                    return nil
                }
                value = high << 4 | low
            }
            guard (0x21...0x7E).contains(value) else { return nil }
            out.append(value)
        }
        return String(decoding: out, as: UTF8.self)
    }

    private static func nibble(_ unit: UInt8) -> UInt8? {
        switch unit {
        case 48...57: unit - 48
        case 65...70: unit - 55
        case 97...102: unit - 87
        default: nil
        }
    }
}

/// Why a request is none of the mirror's; the raw value is a metric label. Closed set.
package enum MirrorRefusal: String, Error, Sendable, CaseIterable {
    case method
    case tooLong = "too_long"
    case path
    case query
    /// No `ns`: not containerd, or the registry itself is meant.
    case noRegistry = "no_registry"
    /// A registry that `mirror.registries` does not name.
    case registry
    case repository
    case digest
    /// What a tag stands for is the registry's word alone.
    case tag

    /// All but a wrong method say "not here", so that whoever asks goes on to the registry.
    package var status: Int { self == .method ? 405 : 404 }
}

/// `Range` of a request for one part (RFC 9110 section 14.2): from a byte on, or from one to another. Value type.
package struct RequestedRange: Hashable, Sendable {
    package let first: UInt64
    /// Nil: to the end.
    package let last: UInt64?

    /// Parses `bytes=FIRST-[LAST]`; nil for anything else, which a server may ignore (suffixes and several ranges too).
    package init?(_ value: some StringProtocol) {
        var scanner = HeaderScanner(value)
        guard scanner.token()?.lowercased() == "bytes", scanner.skip(UInt8(ascii: "=")), let first = scanner.decimal(),
            scanner.skip(UInt8(ascii: "-"))
        else { return nil }
        let last = scanner.isAtDigit ? scanner.decimal() : nil
        scanner.skipSpaces()
        guard scanner.isAtEnd, (last ?? .max) >= first else { return nil }
        self.first = first
        self.last = last
    }

    /// The bytes of something of so many; nil when it has none of them (416).
    package func range(of size: UInt64) -> Range<UInt64>? {
        guard first < size else { return nil }
        return first..<(min(last ?? (size - 1), size - 1) + 1)
    }
}
