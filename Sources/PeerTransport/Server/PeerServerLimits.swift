import NIOCore

/// Bounds of the peer server. Value type.
package struct PeerServerLimits: Sendable {
    /// Connections at once, handshakes included. Each keeps `keptSealedBytes` at most, most of them less: 512 × 128 KiB = 64 MiB.
    package var connections = 512
    /// Handshakes going on at once, and from one address: one host must not keep others from shaking hands.
    package var handshakes = 64
    package var handshakesPerAddress = 16
    /// Handshakes begun a second and in a burst. A core makes about 1,300 mutual ones a second: 200 are 15 % of one.
    package var handshakesPerSecond = 200
    package var handshakeBurst = 256
    /// Connections of one name: what a client opens at most (8 on demand, 4 ahead, 2 for gossip), with room for a
    /// client that has restarted and one that reloads its certificate.
    package var connectionsPerName = 32
    /// From accepting to the end of the handshake.
    package var handshakeTimeout = TimeAmount.seconds(5)
    /// From the end of the handshake or of the last answer to the next request. Longer than libcurl keeps a connection
    /// that it would use again (CURLOPT_MAXAGE_CONN, 118 s): then it is never the server that closes first.
    package var idleTimeout = TimeAmount.seconds(150)
    /// From the first to the last byte of a request.
    package var requestTimeout = TimeAmount.seconds(10)
    /// A client must take what waits in the socket (`highWatermark` at most) within this time.
    package var writeTimeout = TimeAmount.seconds(10)
    /// From a whole request to the first byte of its answer: an upper bound, the handler has a shorter one.
    package var answerTimeout = TimeAmount.seconds(120)
    /// Bytes of the request line and all header fields. Ours are under 500.
    package var headBytes = 8192
    package var headerFields = 32
    /// Bytes that wait in one connection for its client before no more are read from disk.
    package var highWatermark = 256 << 10
    package var lowWatermark = 64 << 10
    /// Slices written before other connections of the event loop get their turn: 4 × 64 KiB.
    package var slicesPerTurn = 4
    /// Sealed bytes a connection keeps room for between two answers.
    package var keptSealedBytes = 128 << 10

    package init() {}
}
