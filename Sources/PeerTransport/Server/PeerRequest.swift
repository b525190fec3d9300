import ChunkModel
import NIOCore

/// One request of a peer whose name the handshake has proven. Value type.
package struct PeerRequest: Sendable {
    package let peer: NodeName
    /// As sent: `GET`.
    package let method: String
    /// Path and query as sent: `/v1/…`.
    package let target: String
    package let headers: [(name: String, value: String)]
    package let body: [UInt8]

    package init(
        peer: NodeName, method: String, target: String, headers: [(name: String, value: String)] = [],
        body: [UInt8] = []
    ) {
        self.peer = peer
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
    }

    /// The first field of a name, without regard to case; `name` in lower case.
    package func header(_ name: String) -> String? {
        headers.first { field in
            field.name.utf8.count == name.utf8.count
                && zip(field.name.utf8, name.utf8).allSatisfy { (65...90).contains($0) ? $0 + 32 == $1 : $0 == $1 }
        }?.value
    }
}

/// What is answered. Value type.
package struct PeerResponse: Sendable {
    package enum Body: Sendable {
        case bytes([UInt8])
        /// Exactly so many bytes from a source.
        case source(any PeerBodySource, length: UInt64)
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

/// Gives the body of one answer slice by slice, as the client takes it.
///
/// `next` and `close` are called on the connection's event loop, one after the other.
package protocol PeerBodySource: AnyObject, Sendable {
    /// The next slice, or `.wait`: then `ready` is called once, on any thread, when it is worth asking again.
    func next(_ allocator: ByteBufferAllocator, ready: @escaping @Sendable () -> Void) -> PeerBodyStep
    /// Nothing more is asked: all was handed to the socket, or the connection is lost.
    func close(isComplete: Bool)
}

package enum PeerBodyStep: Sendable {
    case slice(ByteBuffer)
    case wait
    /// There will be no more: the connection is closed, so that the client sees a body that is too short.
    case failed
}

/// What the server does with requests.
package protocol PeerRequestHandler: Sendable {
    /// Largest body in bytes of such a request; 0 for one that has none. On the event loop: must not block.
    func bodyLimit(method: String, target: String) -> Int
    /// Answers. A request without a body is begun on the event loop: up to its first suspension it must not block.
    /// Cancelled when the connection is lost.
    func respond(to request: PeerRequest) async -> PeerResponse
}
