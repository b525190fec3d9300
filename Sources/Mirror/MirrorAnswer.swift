import NIOCore

/// One request as the endpoint got it; nothing in it is checked.
package struct MirrorCall: Sendable {
    package let method: String
    package let target: String
    /// Names in lower case.
    private let fields: [String: String]

    package init(method: String, target: String, fields: [(name: String, value: String)]) {
        self.method = method
        self.target = target
        // Of two equal names neither counts: which one was meant is a guess.
        var seen: [String: String?] = [:]
        for field in fields {
            let name = field.name.lowercased()
            seen[name] = seen[name] == nil ? .some(field.value) : .some(nil)
        }
        self.fields = seen.compactMapValues { $0 }
    }

    /// The value of a field that occurs once; by its name in lower case.
    package func field(_ name: String) -> String? { fields[name] }
}

/// Bytes that are sent as they come. One user at a time.
package protocol MirrorBody: Sendable {
    /// The next bytes, waiting for them if need be; nil when there will be none: the connection is closed, so that whoever
    /// asked sees a cut and not an end. Ends soon when its task is cancelled.
    func next() async -> ByteBuffer?
}

/// What is answered.
package struct MirrorAnswer: Sendable {
    package enum Body: Sendable {
        case bytes([UInt8])
        case stream(any MirrorBody, length: UInt64)

        var length: UInt64 {
            switch self {
            case .bytes(let bytes): UInt64(bytes.count)
            case .stream(_, let length): length
            }
        }
    }

    package var status: Int
    package var headers: [(name: String, value: String)]
    package var body: Body

    package init(_ status: Int, headers: [(name: String, value: String)] = [], body: Body = .bytes([])) {
        self.status = status
        self.headers = headers
        self.body = body
    }
}

/// Who answers. Safe from any thread; must not block.
package protocol MirrorResponder: Sendable {
    /// Cancelled when the connection is gone.
    func respond(to call: MirrorCall) async -> MirrorAnswer
}
