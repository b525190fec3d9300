/// Rules about text that a formatter does not know.
enum Tidiness {
    /// Lines a source file may have: what can be read in one sitting. Aim at 250.
    static let maxLines = 450

    /// The line's code: what stands before `//`, with string literals emptied. Good enough for lines that a person
    /// wrote; multi-line strings are taken as code.
    static func withoutCommentOrStrings(_ line: some StringProtocol) -> String {
        var out = ""
        var inString = false
        var previous: Character = " "
        for character in line {
            if character == "\"" && previous != "\\" { inString.toggle() }
            if !inString {
                if character == "/" && previous == "/" {
                    out.removeLast()
                    return out
                }
                out.append(character)
            }
            previous = character == "\\" && previous == "\\" ? " " : character
        }
        return out
    }

    static func findings(in text: String, file: String) -> [Finding] {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        var found: [Finding] = []
        if lines.count > maxLines + 1 {
            found.append(Finding(file: file, line: 0, what: "\(lines.count - 1) lines, limit \(maxLines)"))
        }
        // Spelt in halves, so that this file does not find itself.
        let leftOver = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]
        for (index, line) in lines.enumerated() {
            let words = line.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init)
            for word in leftOver where words.contains(word) {
                found.append(Finding(file: file, line: index + 1, what: "left over: \(word)"))
            }
            let code = withoutCommentOrStrings(line)
            if code.contains("try" + "!") {
                found.append(Finding(file: file, line: index + 1, what: "try" + "! traps: handle the error"))
            }
            for escape in ["@unchecked" + " Sendable", "nonisolated" + "(unsafe)"] where code.contains(escape) {
                let around = lines[max(0, index - 4)...min(lines.count - 1, index + 1)]
                if !around.contains(where: { isPlainComment($0) || givesReason($0) }) {
                    found.append(Finding(file: file, line: index + 1, what: "\(escape) without its reason beside it"))
                }
            }
        }
        return found
    }

    /// A `///` comment that speaks of the escape itself.
    private static func givesReason(_ line: some StringProtocol) -> Bool {
        line.contains("///") && ["nsafe", "nchecked"].contains { line.contains($0) }
    }

    /// A `//` comment, on its own line or after code; a `///` one documents use, not reasons.
    private static func isPlainComment(_ line: some StringProtocol) -> Bool {
        guard let range = line.firstRange(of: "//") else { return false }
        return !line[range.upperBound...].hasPrefix("/")
    }

    /// Pauses in tests decide nothing: a test waits for the condition itself, with a bound. A server that is slow on
    /// purpose says so beside it.
    static func pauses(in text: String, file: String) -> [Finding] {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        var found: [Finding] = []
        for (index, line) in lines.enumerated() where isPause(withoutCommentOrStrings(line)) {
            if !lines[max(0, index - 1)...index].contains(where: { isPlainComment($0) }) {
                found.append(Finding(file: file, line: index + 1, what: "pauses, and does not say why"))
            }
        }
        return found
    }

    /// A call of sleep(3) or its kin, or of `Task.sleep`; not of another language's in a string (`time.sleep`).
    private static func isPause(_ code: String) -> Bool {
        let words = code.split { !($0.isLetter || $0.isNumber || $0 == "_" || $0 == ".") }.map(String.init)
        return words.contains { ["sleep", "usleep", "nanosleep", "Task.sleep", "Thread.sleep"].contains($0) }
    }

    /// Dependencies in a package manifest that are not pinned to one version. Package.resolved is not kept.
    static func unpinned(in manifest: String) -> [Finding] {
        var found: [Finding] = []
        var rest = manifest[...]
        var line = 1
        while let start = rest.firstRange(of: ".package(") {
            line += rest[..<start.lowerBound].count { $0 == "\n" }
            rest = rest[start.upperBound...]
            let call = rest.prefix { $0 != ")" }
            if !call.contains("exact:") {
                found.append(Finding(file: "Package.swift", line: line, what: "dependency without exact:"))
            }
        }
        return found
    }

    /// Targets of relative links in Markdown, without their anchors.
    static func links(in markdown: String) -> [String] {
        var found: [String] = []
        var rest = markdown[...]
        while let open = rest.firstRange(of: "](") {
            rest = rest[open.upperBound...]
            let target = rest.prefix { $0 != ")" && $0 != "\n" && $0 != " " }
            let path = target.prefix { $0 != "#" }
            if !path.isEmpty, !target.contains("://"), !target.hasPrefix("mailto:") { found.append(String(path)) }
        }
        return found
    }

    /// Targets of `make` that a text tells people to run: `make test` in a code span or on a line of a code block.
    static func makeCommands(in markdown: String) -> [String] {
        var found: [String] = []
        for line in markdown.split(separator: "\n") {
            let words = line.split { " \t`$".contains($0) }
            for (word, next) in zip(words, words.dropFirst()) where word == "make" {
                let spanned = line.contains("`make \(next)") || line.drop { $0 == " " || $0 == "$" }.hasPrefix("make ")
                let name = next.prefix { $0.isLetter || $0 == "-" }
                if spanned, !name.isEmpty { found.append(String(name)) }
            }
        }
        return found
    }
}
