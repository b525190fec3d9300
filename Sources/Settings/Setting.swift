import OCISpec

/// One row of the table of settings: the single place that knows a setting's key, form, default and meaning.
package struct Setting: Sendable {
    /// camelCase, sections joined by dots: `fetch.rangeMax`.
    package let key: String
    /// What a value looks like.
    package let form: String
    package let defaultText: String
    package let doc: String
    /// Where the environment has it, when not under the key itself: settings of chunkgate bear the names chunkgate reads.
    var environmentPath: [String]?
    /// Parses and stores; returns what was expected when the text is not that.
    let assign: @Sendable (_ text: String, _ into: inout AgentSettings) -> String?

    /// `--fetch-range-max`: the rule of swift-configuration's command-line provider.
    package var flag: String { "--" + Self.words(path).joined(separator: "-").lowercased() }
    /// `CHUNKD_FETCH_RANGE_MAX`: the rule of its environment provider, with our prefix.
    package var environmentName: String {
        "CHUNKD_" + Self.words(environmentPath ?? path).joined(separator: "_").uppercased()
    }
    /// `["fetch", "rangeMax"]`.
    var path: [String] { key.split(separator: ".").map(String.init) }

    /// The same setting under another name in the environment.
    func inEnvironment(as name: String) -> Setting {
        var copy = self
        copy.environmentPath = [name]
        return copy
    }

    private static func words(_ path: [String]) -> [String] { path.flatMap(splitCamelCase) }

    private static func splitCamelCase(_ name: String) -> [String] {
        var words = [""]
        var afterLower = false
        for character in name {
            if character.isUppercase, afterLower { words.append("") }
            words[words.count - 1].append(character)
            afterLower = character.isLowercase
        }
        return words
    }
}

// MARK: - Kinds of values

extension Setting {
    typealias Field<Value> = WritableKeyPath<AgentSettings, Value> & Sendable

    /// An absolute path; empty only when the default is.
    static func path(_ key: String, _ field: any Field<String>, _ fallback: String, _ doc: String) -> Setting {
        Setting(key: key, form: "path", defaultText: fallback, doc: doc) { text, settings in
            guard text.hasPrefix("/") || (text.isEmpty && fallback.isEmpty), !text.utf8.contains(0) else {
                return "an absolute path"
            }
            settings[keyPath: field] = text.count > 1 && text.hasSuffix("/") ? String(text.dropLast()) : text
            return nil
        }
    }

    /// A user or group name, as useradd(8) allows it.
    static func name(_ key: String, _ field: any Field<String>, _ fallback: String, _ doc: String) -> Setting {
        Setting(key: key, form: "name", defaultText: fallback, doc: doc) { text, settings in
            let allowed = text.utf8.allSatisfy { unit in
                (0x30...0x39).contains(unit) || (0x41...0x5A).contains(unit) || (0x61...0x7A).contains(unit)
                    || "_-.".utf8.contains(unit)
            }
            guard allowed, (1...32).contains(text.utf8.count), !text.hasPrefix("-") else { return "a user name" }
            settings[keyPath: field] = text
            return nil
        }
    }

    /// A SPIFFE trust domain (SPIFFE-ID, section 2.1).
    static func trustDomain(
        _ key: String, _ field: any Field<String>, _ fallback: String, _ doc: String
    ) -> Setting {
        Setting(key: key, form: "trust domain", defaultText: fallback, doc: doc) { text, settings in
            let allowed = text.utf8.allSatisfy { unit in
                (0x30...0x39).contains(unit) || (0x61...0x7A).contains(unit) || "_-.".utf8.contains(unit)
            }
            guard allowed, (1...255).contains(text.utf8.count) else { return "a trust domain, of a-z 0-9 . - _" }
            settings[keyPath: field] = text
            return nil
        }
    }

    /// Any text of one line; empty by default.
    static func text(_ key: String, _ field: any Field<String>, _ doc: String) -> Setting {
        Setting(key: key, form: "text", defaultText: "", doc: doc) { text, settings in
            guard text.utf8.count <= 4096, text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
                return "one line of text"
            }
            settings[keyPath: field] = text
            return nil
        }
    }

    /// The URL of a proxy; empty by default.
    static func proxy(_ key: String, _ field: any Field<String>, _ doc: String) -> Setting {
        Setting(key: key, form: "URL", defaultText: "", doc: doc) { text, settings in
            let fine = (text.hasPrefix("http://") || text.hasPrefix("https://")) && text.utf8.allSatisfy { $0 > 0x20 }
            guard fine || text.isEmpty else { return "a URL such as http://proxy.example:3128" }
            settings[keyPath: field] = text
            return nil
        }
    }

    static func size(
        _ key: String, _ field: any Field<UInt64>, _ fallback: String, _ range: ClosedRange<UInt64>, _ doc: String
    ) -> Setting {
        Setting(key: key, form: "size", defaultText: fallback, doc: doc) { text, settings in
            guard let value = Units.size(text) else { return Units.sizeForm }
            guard range.contains(value) else {
                return "a size from \(Units.text(size: range.lowerBound)) to \(Units.text(size: range.upperBound))"
            }
            settings[keyPath: field] = value
            return nil
        }
    }

    static func rate(
        _ key: String, _ field: any Field<UInt64?>, _ fallback: String, _ doc: String, atLeast least: UInt64 = 1
    ) -> Setting {
        Setting(key: key, form: "rate", defaultText: fallback, doc: doc) { text, settings in
            guard let value = Units.rate(text) else { return Units.rateForm }
            guard value ?? least >= least else { return "at least \(Units.text(size: least))/s, or unlimited" }
            settings[keyPath: field] = value
            return nil
        }
    }

    static func duration(
        _ key: String, _ field: any Field<Duration>, _ fallback: String, _ range: ClosedRange<Duration>, _ doc: String
    ) -> Setting {
        Setting(key: key, form: "duration", defaultText: fallback, doc: doc) { text, settings in
            guard let value = Units.duration(text) else { return Units.durationForm }
            guard range.contains(value) else { return "a duration from \(range.lowerBound) to \(range.upperBound)" }
            settings[keyPath: field] = value
            return nil
        }
    }

    static func number(
        _ key: String, _ field: any Field<Int>, _ fallback: Int, _ range: ClosedRange<Int>, _ doc: String
    ) -> Setting {
        Setting(key: key, form: "number", defaultText: String(fallback), doc: doc) { text, settings in
            guard let value = Int(text), range.contains(value) else {
                return "a whole number from \(range.lowerBound) to \(range.upperBound)"
            }
            settings[keyPath: field] = value
            return nil
        }
    }

    static func bool(_ key: String, _ field: any Field<Bool>, _ fallback: Bool, _ doc: String) -> Setting {
        Setting(key: key, form: "true, false", defaultText: String(fallback), doc: doc) { text, settings in
            guard let value = Bool(text) else { return "true or false" }
            settings[keyPath: field] = value
            return nil
        }
    }

    static func choice<Value: RawRepresentable & CaseIterable & Sendable>(
        _ key: String, _ field: any Field<Value>, _ fallback: Value, _ doc: String
    ) -> Setting where Value.RawValue == String {
        let form = Value.allCases.map(\.rawValue).joined(separator: ", ")
        return Setting(key: key, form: form, defaultText: fallback.rawValue, doc: doc) { text, settings in
            guard let value = Value(rawValue: text) else { return "one of \(form)" }
            settings[keyPath: field] = value
            return nil
        }
    }

    static func listen(
        _ key: String, _ field: any Field<AgentSettings.ListenAddress>, _ fallback: String, _ doc: String
    ) -> Setting {
        Setting(key: key, form: "host:port", defaultText: fallback, doc: doc) { text, settings in
            guard let value = AgentSettings.ListenAddress(text) else { return "host:port or [v6]:port" }
            settings[keyPath: field] = value
            return nil
        }
    }

    /// An address that only processes of this machine reach.
    static func loopback(
        _ key: String, _ field: any Field<AgentSettings.ListenAddress>, _ fallback: String, _ doc: String
    ) -> Setting {
        Setting(key: key, form: "host:port", defaultText: fallback, doc: doc) { text, settings in
            guard let value = AgentSettings.ListenAddress(text), IPAddress(value.host)?.scope == .loopback else {
                return "a loopback address, 127.0.0.1:port or [::1]:port: whoever reaches it may ask"
            }
            settings[keyPath: field] = value
            return nil
        }
    }

    /// Names of registries, with commas; empty by default.
    static func registries(_ key: String, _ field: any Field<[String]>, _ doc: String) -> Setting {
        Setting(key: key, form: "text", defaultText: "", doc: doc) { text, settings in
            var names: [String] = []
            for part in text.split(whereSeparator: { $0 == "," || $0 == " " }) {
                // As a reference would have it: with a dot, a port, or localhost.
                guard let name = try? Reference(registry: String(part), repository: "a").registry else {
                    return "registries as HOST[:PORT], with commas, such as docker.io,registry.example:5000"
                }
                if !names.contains(name) { names.append(name) }
            }
            settings[keyPath: field] = names
            return nil
        }
    }

    static func address(
        _ key: String, _ field: any Field<AgentSettings.ListenAddress?>, _ fallback: String, _ doc: String
    ) -> Setting {
        Setting(key: key, form: "host:port, off", defaultText: fallback, doc: doc) { text, settings in
            if text == "off" {
                settings[keyPath: field] = nil
                return nil
            }
            guard let value = AgentSettings.ListenAddress(text) else { return "host:port, [v6]:port or off" }
            settings[keyPath: field] = value
            return nil
        }
    }
}
