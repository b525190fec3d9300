import ChunkModel

/// The name of an image in a registry: `HOST[:PORT]/REPOSITORY[:TAG][@sha256:…]`.
///
/// The grammar is that of distribution/reference (`reference.go`, `regexp.go`), with one difference: the registry is
/// never guessed. A reference without a registry host is an error that says so. Value type, safe on any thread.
package struct Reference: Hashable, Sendable, CustomStringConvertible {
    /// Host and optional port, in lower case, as in a URL: `registry.example:5000`, `[::1]:5000`.
    package let registry: String
    /// Repository path, without leading or trailing slash.
    package let repository: String
    package let tag: String?
    package let digest: Digest?

    /// What a manifest request asks for.
    package enum Target: Hashable, Sendable, CustomStringConvertible {
        case tag(String)
        case digest(Digest)

        package var description: String {
            switch self {
            case .tag(let tag): tag
            case .digest(let digest): digest.description
            }
        }
    }

    /// The tag that stands for "no tag given".
    package static let defaultTag = "latest"

    /// The digest when there is one (it wins over the tag), else the tag, else `latest`.
    package var target: Target {
        if let digest { return .digest(digest) }
        return .tag(tag ?? Self.defaultTag)
    }

    /// Parses a reference; `OCISpecError` with `invalidReference` or `missingRegistry` says what is wrong with it.
    package init(_ string: some StringProtocol) throws(OCISpecError) {
        let quoted = OCISpecError.quote(string)
        let bytes = Array(string.utf8)
        guard !bytes.isEmpty else { throw OCISpecError(.invalidReference, "reference is empty") }
        guard bytes.count <= OCILimits.maxReferenceLength else {
            throw OCISpecError(
                .invalidReference,
                "reference \(quoted) has \(bytes.count) bytes, limit \(OCILimits.maxReferenceLength)")
        }
        var rest = bytes[...]
        var digest: Digest?
        if let at = rest.firstIndex(of: UInt8(ascii: "@")) {
            guard let parsed = Digest(String(decoding: rest[(at + 1)...], as: UTF8.self)) else {
                throw OCISpecError(
                    .invalidReference, "reference \(quoted): after '@' expected sha256: and 64 lower-case hex digits")
            }
            digest = parsed
            rest = rest[..<at]
        }
        guard let slash = rest.firstIndex(of: UInt8(ascii: "/")), Self.looksLikeHost(rest[..<slash]) else {
            throw OCISpecError(
                .missingRegistry, "reference \(quoted) names no registry: write HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]")
        }
        let host = rest[..<slash]
        var path = rest[(slash + 1)...]
        var tag: String?
        if let colon = path.firstIndex(of: UInt8(ascii: ":")) {
            tag = String(decoding: path[(colon + 1)...], as: UTF8.self)
            path = path[..<colon]
        }
        try self.init(
            registry: String(decoding: host, as: UTF8.self), repository: String(decoding: path, as: UTF8.self),
            tag: tag,
            digest: digest)
    }

    /// Makes a reference of its parts, each checked against the grammar.
    package init(registry: String, repository: String, tag: String? = nil, digest: Digest? = nil) throws(OCISpecError) {
        guard let host = Self.normalizedRegistry(registry), Self.looksLikeHost(Array(host.utf8)[...]) else {
            throw OCISpecError(
                .invalidReference, "registry \(OCISpecError.quote(registry)) is not HOST.DOMAIN, HOST:PORT or localhost"
            )
        }
        guard Self.isRepository(repository) else {
            throw OCISpecError(
                .invalidReference,
                "repository \(OCISpecError.quote(repository)): expected lower-case letters, digits and single "
                    + "separators ('.', '_', '__', '-') in components divided by '/'")
        }
        let length = host.utf8.count + 1 + repository.utf8.count
        guard length <= OCILimits.maxNameLength else {
            throw OCISpecError(
                .invalidReference, "repository name has \(length) bytes, limit \(OCILimits.maxNameLength)")
        }
        if let tag, !Self.isTag(tag) {
            throw OCISpecError(
                .invalidReference,
                "tag \(OCISpecError.quote(tag)): expected 1 to 128 of letters, digits, '_', '.', '-', not starting "
                    + "with '.' or '-'")
        }
        self.registry = host
        self.repository = repository
        self.tag = tag
        self.digest = digest
    }

    private init(unchecked other: Reference, tag: String?, digest: Digest?) {
        registry = other.registry
        repository = other.repository
        self.tag = tag
        self.digest = digest
    }

    /// The same image pinned to a digest; the tag is kept for people.
    package func pinned(to digest: Digest) -> Reference { Reference(unchecked: self, tag: tag, digest: digest) }

    /// Another manifest of the same repository.
    package func byDigest(_ digest: Digest) -> Reference { Reference(unchecked: self, tag: nil, digest: digest) }

    /// The same repository with another target.
    package func at(_ target: Target) throws(OCISpecError) -> Reference {
        switch target {
        case .digest(let digest): return byDigest(digest)
        case .tag(let tag):
            return try Reference(registry: registry, repository: repository, tag: tag)
        }
    }

    /// `HOST[:PORT]/REPOSITORY`.
    package var name: String { registry + "/" + repository }

    package var description: String {
        name + (tag.map { ":" + $0 } ?? "") + (digest.map { "@" + $0.description } ?? "")
    }
}

// MARK: - Grammar

extension Reference {
    /// distribution/reference `splitDockerDomain`: the first component is a host when it has a dot, a port, or is
    /// `localhost`. (An upper-case letter does not make a host here: the host's normal form would not be one.)
    private static func looksLikeHost(_ bytes: ArraySlice<UInt8>) -> Bool {
        bytes.contains { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: ":") }
            || bytes.elementsEqual("localhost".utf8)
    }

    /// Checks `HOST[:PORT]` and puts it in lower case; nil when it is neither a DNS name, an IPv4 nor a bracketed
    /// IPv6 address, or the port is not 1...65535.
    package static func normalizedRegistry(_ string: String) -> String? {
        var bytes = Array(string.utf8)
        guard !bytes.isEmpty, bytes.count <= OCILimits.maxNameLength else { return nil }
        for index in bytes.indices where isUpper(bytes[index]) { bytes[index] += 32 }
        var host = bytes[...]
        if host.first == UInt8(ascii: "[") {
            guard let close = host.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            guard IPAddress(String(decoding: host[1..<close], as: UTF8.self))?.isIPv6 == true else { return nil }
            let tail = host[(close + 1)...]
            guard tail.isEmpty || tail.first == UInt8(ascii: ":") && isPort(tail.dropFirst()) else { return nil }
            return String(decoding: bytes, as: UTF8.self)
        }
        if let colon = host.firstIndex(of: UInt8(ascii: ":")) {
            guard isPort(host[(colon + 1)...]) else { return nil }
            host = host[..<colon]
        }
        for component in host.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
            guard (1...63).contains(component.count), component.allSatisfy({ isLowerAlphanumeric($0) || $0 == 45 }),
                component.first != 45, component.last != 45
            else { return nil }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func isPort(_ digits: ArraySlice<UInt8>) -> Bool {
        guard (1...5).contains(digits.count), digits.allSatisfy(isDigit) else { return false }
        let value = digits.reduce(0) { $0 * 10 + Int($1 - 48) }
        return (1...65535).contains(value)
    }

    /// `path-component := [a-z0-9]+ ((?:[_.]|__|[-]+) [a-z0-9]+)*`, components divided by "/".
    package static func isRepository(_ string: String) -> Bool {
        guard !string.isEmpty, string.utf8.count <= OCILimits.maxNameLength else { return false }
        return Array(string.utf8).split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            .allSatisfy(isPathComponent)
    }

    private static func isPathComponent(_ component: ArraySlice<UInt8>) -> Bool {
        guard let first = component.first, let last = component.last, isLowerAlphanumeric(first),
            isLowerAlphanumeric(last)
        else { return false }
        var separator: [UInt8] = []
        for unit in component {
            if isLowerAlphanumeric(unit) {
                let allowed = separator.count <= 1 || separator == [95, 95] || separator.allSatisfy { $0 == 45 }
                guard allowed else { return false }
                separator = []
            } else {
                guard unit == UInt8(ascii: "_") || unit == UInt8(ascii: ".") || unit == UInt8(ascii: "-") else {
                    return false
                }
                separator.append(unit)
            }
        }
        return true
    }

    /// `tag := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}` (distribution spec, "Pulling manifests").
    package static func isTag(_ string: String) -> Bool {
        let bytes = Array(string.utf8)
        guard (1...128).contains(bytes.count), bytes[0] != UInt8(ascii: "."), bytes[0] != UInt8(ascii: "-") else {
            return false
        }
        return bytes.allSatisfy {
            isLowerAlphanumeric($0) || isUpper($0) || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".")
                || $0 == UInt8(ascii: "-")
        }
    }

    private static func isUpper(_ unit: UInt8) -> Bool { (65...90).contains(unit) }
    private static func isDigit(_ unit: UInt8) -> Bool { (48...57).contains(unit) }
    private static func isLowerAlphanumeric(_ unit: UInt8) -> Bool { isDigit(unit) || (97...122).contains(unit) }
}
