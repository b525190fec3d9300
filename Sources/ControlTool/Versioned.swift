import ControlAPI

/// A value with `apiVersion` beside its own fields, as every JSON document of chunkctl has it.
struct Versioned<Value: Encodable>: Encodable {
    private let value: Value
    private let more: [String: String]

    /// `more` are further text fields.
    init(_ value: Value, more: [String: String] = [:]) {
        self.value = value
        self.more = more
    }

    private struct Key: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }

        init(_ name: String) { stringValue = name }
        init?(stringValue: String) { self.init(stringValue) }
        init?(intValue: Int) { nil }
    }

    func encode(to encoder: any Encoder) throws {
        try value.encode(to: encoder)
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(ControlVersion.current, forKey: Key("apiVersion"))
        for (name, text) in more { try container.encode(text, forKey: Key(name)) }
    }
}
