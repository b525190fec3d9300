import Yams

/// A configuration file as checked keys: every key is known, every value has the right shape, and lines are kept for
/// messages. The values themselves are read through swift-configuration.
struct YAMLDocument {
    /// Bytes of a configuration file that are read at all.
    static let maxBytes = 1 << 20
    /// Keys and values in one file: ten thousand registries would be absurd; aliases that multiply stop here.
    static let maxNodes = 10_000

    let file: String
    /// Lines of leaves and registry entries, by dotted key.
    private(set) var lines: [String: Int] = [:]
    /// Hosts under `registries`, sorted.
    private(set) var hosts: [String] = []
    /// No keys at all: nothing for a parser to read.
    private(set) var isEmpty = true
    private var nodes = 0

    /// Checks `text`, which came from `file`. An empty file is a document without keys.
    init(_ text: String, file: String) throws(SettingsError) {
        self.file = file
        let root: Node?
        do { root = try Yams.compose(yaml: text) } catch {
            throw SettingsError(.syntax, origin: file, "not YAML: \(Self.oneLine("\(error)"))")
        }
        guard let root, !Self.isNull(root) else { return }
        guard case .mapping(let top) = root else {
            throw SettingsError(.syntax, origin: file, "expected keys and values at the top level")
        }
        isEmpty = false
        try walk(top, prefix: [])
        hosts.sort()
    }

    /// `file:line` of a key.
    func origin(of key: String) -> String { lines[key].map { "\(file):\($0)" } ?? file }

    private mutating func walk(_ mapping: Node.Mapping, prefix: [String]) throws(SettingsError) {
        for (keyNode, value) in mapping {
            let (name, line) = try name(of: keyNode, prefix: prefix)
            let path = prefix + [name]
            let key = path.joined(separator: ".")
            if path == ["registries"] {
                try walkRegistries(value, line: line)
            } else if SettingsTable.all.contains(where: { $0.key == key }) {
                lines[key] = line
                guard case .scalar = value, !Self.isNull(value) else {
                    throw SettingsError(.wrongValue, key: key, origin: "\(file):\(line)", "expected one value")
                }
            } else if SettingsTable.all.contains(where: { $0.key.hasPrefix(key + ".") }) {
                if Self.isNull(value) { continue }
                guard case .mapping(let section) = value else {
                    throw SettingsError(
                        .wrongValue, key: key, origin: "\(file):\(line)", "expected a section with keys")
                }
                try walk(section, prefix: path)
            } else {
                throw unknown(key, line: line, among: SettingsTable.all.map(\.key) + ["registries"])
            }
        }
    }

    private mutating func walkRegistries(_ value: Node, line: Int) throws(SettingsError) {
        if Self.isNull(value) { return }
        guard case .mapping(let registries) = value else {
            throw SettingsError(
                .wrongValue, key: "registries", origin: "\(file):\(line)", "expected hosts, each with its keys")
        }
        for (hostNode, entry) in registries {
            let (host, line) = try name(of: hostNode, prefix: ["registries"])
            let key = "registries.\(host)"
            lines[key] = line
            guard RegistryHost.isValid(host) else {
                throw SettingsError(
                    .wrongValue, key: key, origin: "\(file):\(line)", "expected host or host:port, without a scheme")
            }
            hosts.append(host)
            if Self.isNull(entry) { continue }
            guard case .mapping(let fields) = entry else {
                throw SettingsError(.wrongValue, key: key, origin: "\(file):\(line)", "expected a section with keys")
            }
            try walkRegistry(fields, host: host)
        }
    }

    private mutating func walkRegistry(_ fields: Node.Mapping, host: String) throws(SettingsError) {
        let known = SettingsTable.registryKeys.map(\.key)
        for (fieldNode, value) in fields {
            let (field, line) = try name(of: fieldNode, prefix: ["registries", host])
            let key = "registries.\(host).\(field)"
            guard known.contains(field) else {
                throw unknown(key, line: line, among: known.map { "registries.\(host).\($0)" })
            }
            lines[key] = line
            if field == "mirrors" || field == "tokenServers" {
                guard case .sequence(let items) = value, items.allSatisfy({ $0.scalar != nil }) else {
                    throw SettingsError(.wrongValue, key: key, origin: "\(file):\(line)", "expected a list of hosts")
                }
            } else {
                guard case .scalar = value, !Self.isNull(value) else {
                    throw SettingsError(.wrongValue, key: key, origin: "\(file):\(line)", "expected one value")
                }
            }
        }
    }

    private mutating func name(of node: Node, prefix: [String]) throws(SettingsError) -> (String, line: Int) {
        let line = node.mark?.line ?? 0
        nodes += 1
        guard nodes <= Self.maxNodes else {
            throw SettingsError(.syntax, origin: file, "more than \(Self.maxNodes) keys")
        }
        guard let name = node.scalar?.string, !name.isEmpty else {
            throw SettingsError(
                .syntax, key: prefix.joined(separator: "."), origin: "\(file):\(line)", "a key must be a word")
        }
        return (name, line)
    }

    private func unknown(_ key: String, line: Int, among known: [String]) -> SettingsError {
        SettingsError(
            .unknownKey, key: key, origin: "\(file):\(line)",
            "unknown key; \(Suggestion.phrase(for: key, among: known))")
    }

    private static func isNull(_ node: Node) -> Bool {
        guard case .scalar(let scalar) = node, scalar.style == .plain || scalar.style == .any else { return false }
        return ["", "~", "null"].contains(scalar.string)
    }

    private static func oneLine(_ text: String) -> String {
        String(text.split(separator: "\n").joined(separator: " ").prefix(300))
    }
}

/// The host part of a reference, as `registries` and `mirrors` name it.
enum RegistryHost {
    /// Letters, digits, `.`, `-`, with an optional port; or a bracketed IPv6 address. At most 255 bytes.
    static func isValid(_ text: String) -> Bool {
        var name = text[...]
        if let colon = text.lastIndex(of: ":"), !text.hasSuffix("]") {
            guard let port = Int(text[text.index(after: colon)...]), (1...65535).contains(port) else { return false }
            name = text[..<colon]
        }
        if name.hasPrefix("["), name.hasSuffix("]") { return name.dropFirst().dropLast().allSatisfy(isAddressPart) }
        let letters = name.utf8.allSatisfy { unit in
            (0x30...0x39).contains(unit) || (0x41...0x5A).contains(unit) || (0x61...0x7A).contains(unit)
                || unit == UInt8(ascii: "-") || unit == UInt8(ascii: ".")
        }
        return letters && !name.isEmpty && name.utf8.count <= 255 && !name.hasPrefix("-") && !name.hasPrefix(".")
    }

    private static func isAddressPart(_ character: Character) -> Bool { character.isHexDigit || character == ":" }
}
