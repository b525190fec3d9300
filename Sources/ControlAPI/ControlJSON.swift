import FoundationEssentials

/// JSON of the control API: keys sorted, slashes plain, so that equal values are equal bytes.
package enum ControlJSON {
    /// Bytes of one value. `pretty` indents, for people who asked `-o json`.
    package static func encode(_ value: some Encodable, pretty: Bool = false) throws(ControlError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
        do { return Array(try encoder.encode(value)) } catch {
            throw ControlError(.internal, "cannot write JSON: \(error)")
        }
    }

    /// Decodes one value; unknown keys are skipped. `what` is named in the error.
    package static func decode<Value: Decodable>(
        _: Value.Type = Value.self, from bytes: [UInt8], what: String
    ) throws(ControlError) -> Value {
        do { return try JSONDecoder().decode(Value.self, from: Data(bytes)) } catch let error as DecodingError {
            throw ControlError(.invalidRequest, "\(what): \(explain(error))")
        } catch {
            throw ControlError(.invalidRequest, "\(what): \(error)")
        }
    }

    /// What a `DecodingError` means, in a line: the path of the value and what is wrong with it.
    private static func explain(_ error: DecodingError) -> String {
        func path(_ context: DecodingError.Context, _ last: String? = nil) -> String {
            (context.codingPath.map(\.stringValue) + (last.map { [$0] } ?? [])).joined(separator: ".")
        }
        switch error {
        case .keyNotFound(let key, let context): return "\(path(context, key.stringValue)) is missing"
        case .typeMismatch(let type, let context), .valueNotFound(let type, let context):
            return "\(path(context)): expected \(type)"
        case .dataCorrupted(let context):
            let place = path(context)
            // The decoder says no more of a number that its type cannot hold.
            return place.isEmpty ? "not JSON, or a number that does not fit" : "\(place): \(context.debugDescription)"
        @unknown default: return "\(error)"
        }
    }
}

/// One line of a streamed answer (NDJSON): any number of `progress`, then one `result` or `error`.
package struct StreamLine<Reply: Codable & Sendable>: Codable, Sendable {
    package var progress: ProgressReport?
    package var result: Reply?
    package var error: ControlError?

    package init(progress: ProgressReport? = nil, result: Reply? = nil, error: ControlError? = nil) {
        self.progress = progress
        self.result = result
        self.error = error
    }
}

/// Body of every answer with a status of 400 or more.
package struct ErrorReply: Codable, Equatable, Sendable {
    package var apiVersion = ControlVersion.current
    package var error: ControlError

    package init(error: ControlError) { self.error = error }
}
