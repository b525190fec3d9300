/// A page in Prometheus's text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/), read more
/// strictly than a scraper does: every family has HELP and TYPE, in that order and once, and its samples follow.
package struct PrometheusText: Sendable {
    package struct Label: Hashable, Sendable {
        package let name: String
        package let value: String
    }
    package struct Sample: Sendable {
        package let name: String
        package let labels: [Label]
        package let value: Double
    }
    package struct Family: Sendable {
        package let name: String
        package let help: String
        package var type = ""
        package var samples: [Sample] = []
    }

    /// The first line that is wrong, counted from 1.
    package struct Wrong: Error, CustomStringConvertible {
        package let line: Int
        package let what: String
        package var description: String { "line \(line): \(what)" }
    }

    /// In the order of the page.
    package private(set) var families: [Family] = []
    private var series: Set<[String]> = []

    package init(_ page: String) throws(Wrong) {
        var lines = page.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.popLast() == "" else { throw Wrong(line: lines.count + 1, what: "no line feed at the end") }
        for (index, line) in lines.enumerated() {
            if let what = add(line) { throw Wrong(line: index + 1, what: "\(what): \(line)") }
        }
        for family in families {
            if let what = Self.findings(family) { throw Wrong(line: lines.count, what: "\(family.name): \(what)") }
        }
    }

    /// Takes a line; what is wrong with it.
    private mutating func add(_ line: Substring) -> String? {
        if line.hasPrefix("# HELP ") { return addHelp(line.dropFirst(7)) }
        if line.hasPrefix("# TYPE ") { return addType(line.dropFirst(7)) }
        if line.hasPrefix("#") { return "a comment" }
        guard let sample = SampleParser.parse(line) else { return "not a sample" }
        guard let family = families.last, !family.type.isEmpty else { return "a sample before its TYPE" }
        let suffixes = family.type == "histogram" ? ["_bucket", "_sum", "_count"] : [""]
        guard suffixes.contains(where: { sample.name == family.name + $0 }) else { return "a sample of no such family" }
        let names = sample.labels.map(\.name)
        guard Set(names).count == names.count else { return "a label twice" }
        guard names.contains("le") == (sample.name == family.name + "_bucket" && family.type == "histogram") else {
            return "le where it does not belong, or none"
        }
        let key = [sample.name] + sample.labels.map { "\($0.name)=\($0.value)" }.sorted()
        guard series.insert(key).inserted else { return "a series twice" }
        if family.type == "counter", !(sample.value >= 0 && sample.value.isFinite) { return "no count" }
        families[families.count - 1].samples.append(sample)
        return nil
    }

    private mutating func addHelp(_ rest: Substring) -> String? {
        let name = rest.prefix { $0 != " " }
        let help = rest.dropFirst(name.count + 1)
        guard SampleParser.isName(name) else { return "no name" }
        guard !help.isEmpty else { return "HELP without a text" }
        guard families.last?.type != "" else { return "HELP where TYPE was expected" }
        guard !families.contains(where: { $0.name == name }) else { return "a family twice" }
        guard SampleParser.unescape(help, quote: false) != nil else { return "an unknown escape" }
        families.append(Family(name: String(name), help: String(help)))
        return nil
    }

    private mutating func addType(_ rest: Substring) -> String? {
        let words = rest.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 2, let family = families.last, family.name == words[0], family.type.isEmpty else {
            return "TYPE without its HELP"
        }
        guard ["counter", "gauge", "histogram"].contains(words[1]) else { return "a type nobody uses here" }
        families[families.count - 1].type = String(words[1])
        return nil
    }

    /// What a histogram must be (ibid., "Histograms and summaries").
    private static func findings(_ family: Family) -> String? {
        if family.type.isEmpty { return "no TYPE" }
        guard family.type == "histogram" else { return nil }
        var groups: [Set<Label>: [Sample]] = [:]
        for sample in family.samples {
            groups[Set(sample.labels.filter { $0.name != "le" }), default: []].append(sample)
        }
        for samples in groups.values {
            let buckets = samples.filter { $0.name.hasSuffix("_bucket") }
            let bounds = buckets.compactMap { bucket in
                bucket.labels.first { $0.name == "le" }.flatMap { SampleParser.number($0.value) }
            }
            let ascends = zip(bounds, bounds.dropFirst()).allSatisfy { $0 < $1 }
            guard bounds.count == buckets.count, ascends, bounds.last == .infinity else { return "bounds" }
            guard zip(buckets, buckets.dropFirst()).allSatisfy({ $0.value <= $1.value }) else {
                return "not cumulative"
            }
            let counts = samples.filter { $0.name.hasSuffix("_count") }.map(\.value)
            guard counts == [buckets.last?.value], samples.contains(where: { $0.name.hasSuffix("_sum") }) else {
                return "count or sum"
            }
        }
        return nil
    }

    // MARK: Conventions

    private static let otherUnits: Set<String> = [
        "ms", "us", "ns", "s", "sec", "secs", "milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days",
        "b", "kb", "mb", "gb", "kib", "mib", "gib", "kilobytes", "megabytes", "gigabytes", "kibibytes", "mebibytes",
        "bits",
        "percent",
    ]

    /// What `promtool check metrics` objects to in a page that can be read: names, suffixes, units.
    package var lint: [String] {
        families.flatMap { family -> [String] in
            var found: [String] = []
            let words = family.name.split(separator: "_").map(String.init)
            if (family.type == "counter") != family.name.hasSuffix("_total") { found.append("_total is for counters") }
            if ["bucket", "sum", "count"].contains(words.last) { found.append("a histogram's suffix") }
            if words.contains(where: { ["counter", "gauge", "histogram", "summary"].contains($0) }) {
                found.append("its type in the name")
            }
            if family.name.contains(":") || family.name.contains(where: \.isUppercase) { found.append("odd letters") }
            if let unit = words.first(where: { Self.otherUnits.contains($0) }) {
                found.append("\(unit) is no base unit")
            }
            return found.map { "\(family.name): \($0)" }
        }
    }
}

/// One line `name{label="value",…} number`. Single spaces, no timestamp.
private struct SampleParser {
    private var rest: Substring

    static func parse(_ line: Substring) -> PrometheusText.Sample? {
        var parser = SampleParser(rest: line)
        let name = parser.word()
        guard isName(name), let labels = parser.labels(), parser.take(" "), let value = number(String(parser.rest))
        else {
            return nil
        }
        return .init(name: String(name), labels: labels, value: value)
    }

    static func isName(_ text: some StringProtocol) -> Bool {
        guard let first = text.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return text.utf8.allSatisfy { byte in
            (0x61...0x7A).contains(byte) || (0x41...0x5A).contains(byte) || (0x30...0x39).contains(byte)
                || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ":")
        }
    }

    /// As Go's ParseFloat takes it, without the forms nobody writes.
    static func number(_ text: String) -> Double? {
        switch text {
        case "+Inf": .infinity
        case "-Inf": -.infinity
        case "NaN": .nan
        default: text.allSatisfy { "0123456789.eE+-".contains($0) } ? Double(text) : nil
        }
    }

    /// Resolves `\\`, `\n` and, in a label, `\"`; nil for any other escape.
    static func unescape(_ text: Substring, quote: Bool) -> String? {
        var out = ""
        var rest = text
        while let character = rest.popFirst() {
            guard character == "\\" else {
                out.append(character)
                continue
            }
            switch rest.popFirst() {
            case "\\": out.append("\\")
            case "n": out.append("\n")
            case "\"" where quote: out.append("\"")
            default: return nil
            }
        }
        return out
    }

    private mutating func word() -> Substring {
        let found = rest.prefix { $0 != "{" && $0 != " " && $0 != "=" }
        rest = rest.dropFirst(found.count)
        return found
    }

    private mutating func take(_ character: Character) -> Bool {
        guard rest.first == character else { return false }
        rest.removeFirst()
        return true
    }

    private mutating func labels() -> [PrometheusText.Label]? {
        guard take("{") else { return [] }
        var found: [PrometheusText.Label] = []
        repeat {
            let name = word()
            guard Self.isName(name), !name.contains(":"), !name.hasPrefix("__"), take("="), take("\""),
                let value = quoted()
            else { return nil }
            found.append(.init(name: String(name), value: value))
        } while take(",")
        return take("}") ? found : nil
    }

    /// The text up to the closing quote, which is taken.
    private mutating func quoted() -> String? {
        var end = rest.startIndex
        while end < rest.endIndex, rest[end] != "\"" {
            if rest[end] == "\\" { end = rest.index(after: end) }
            guard end < rest.endIndex else { return nil }
            end = rest.index(after: end)
        }
        guard end < rest.endIndex else { return nil }
        let value = Self.unescape(rest[..<end], quote: true)
        rest = rest[rest.index(after: end)...]
        return value
    }
}
