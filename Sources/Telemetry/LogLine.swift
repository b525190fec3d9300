import Glibc
import Logging

/// How a log line looks.
package enum LogLineFormat: Sendable {
    /// `2026-01-02T03:04:05.678Z info message key=value`, for people.
    case text
    /// One JSON object a line, for machines.
    case json
}

/// One log line, not yet text.
struct LogLine {
    /// Nanoseconds since 1970, UTC.
    var unixNanoseconds: Int64
    var level: Logger.Level
    var logger: String
    var message: String
    /// In the order of the output.
    var metadata: [(key: String, value: String)]

    func formatted(_ format: LogLineFormat) -> String {
        switch format {
        case .text: text
        case .json: json
        }
    }

    private var text: String {
        var out = "\(timestamp) \(level.rawValue) \(Self.clean(message))"
        for (key, value) in metadata { out += " \(Self.clean(key))=\(Self.quoted(value))" }
        return out
    }

    private var json: String {
        var out = "{\"time\":\"\(timestamp)\",\"level\":\"\(level.rawValue)\",\"logger\":\(Self.jsonString(logger))"
        out += ",\"message\":\(Self.jsonString(message))"
        for (key, value) in metadata {
            // Keys of ours must stay unique in the object.
            let name = ["time", "level", "logger", "message"].contains(key) ? "meta." + key : key
            out += ",\(Self.jsonString(name)):\(Self.jsonString(value))"
        }
        return out + "}"
    }

    /// RFC 3339 in UTC with milliseconds.
    var timestamp: String {
        var seconds = time_t(unixNanoseconds / 1_000_000_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func pad(_ value: some BinaryInteger, _ width: Int = 2) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = "\(pad(parts.tm_year + 1900, 4))-\(pad(parts.tm_mon + 1))-\(pad(parts.tm_mday))"
        let time = "\(pad(parts.tm_hour)):\(pad(parts.tm_min)):\(pad(parts.tm_sec))"
        return "\(date)T\(time).\(pad(unixNanoseconds / 1_000_000 % 1000, 3))Z"
    }

    /// Control characters as escapes: a line from outside must not make two lines or move a terminal's cursor.
    static func clean(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var out = ""
        for scalar in text.unicodeScalars {
            if isControl(scalar) {
                out += "\\u{\(String(scalar.value, radix: 16))}"
            } else {
                out.unicodeScalars.append(scalar)
            }
        }
        return out
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
    }

    private static func quoted(_ value: String) -> String {
        let cleaned = clean(value)
        guard cleaned.isEmpty || cleaned.contains(where: { $0 == " " || $0 == "\"" || $0 == "=" }) else {
            return cleaned
        }
        return "\"" + cleaned.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) }.joined() + "\""
    }

    /// RFC 8259 section 7.
    static func jsonString(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case "\r": out += "\\r"
            case let control where control.value < 0x20:
                let hex = String(control.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
